package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"postern/internal/textfile"
)

// maxFile bounds relay.toml, in octets.
const maxFile = 1 << 20

// Load reads and validates a configuration for the daemon. The error is an *Error with every problem;
// without one the Config is complete. Warnings returns what deserves a word all the same.
func Load(path string) (*Config, error) {
	c, err := Read(path)
	if c == nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// Read reads a configuration for a command that works on the store beside the daemon: keys, types and
// single values are checked, defaults filled in and paths made absolute, but combinations are not
// checked and secrets not read. On an error the Config, where not nil, serves Validate only.
func Read(path string) (*Config, error) {
	data, err := textfile.Bounded(path, maxFile)
	if bad, ok := errors.AsType[*textfile.Error](err); ok {
		return nil, &Error{Problems: []Problem{{File: path, Message: bad.Msg}}}
	}
	c := Parse(path, data)
	return c, c.doc.err()
}

// Parse is Read on text that has been read already; its problems are Validate's to return. The path
// names the file in messages and is where relative paths start.
func Parse(path string, data []byte) *Config {
	c := &Config{doc: &document{file: path, lines: make(map[string]int)}}
	root := reflect.ValueOf(c).Elem()
	if !c.doc.decode(data, root) {
		return c
	}
	if len(c.Listeners) == 0 && !c.doc.has("listener") {
		c.Listeners = []Listener{{TLS: StartTLS}, {TLS: Implicit}}
	}
	if len(c.Auth.Sources) == 0 && !c.doc.has("auth.source") {
		c.Auth.Sources = make([]AuthSource, 1)
	}
	c.doc.fill(root, "")
	derive(c)
	return c
}

// derive fills in the defaults that depend on other keys or on the machine.
func derive(c *Config) {
	if !c.doc.has("hostname") {
		c.Hostname, _ = os.Hostname()
	}
	deriveStore(c)
	deriveAdmin(c)
	deriveAutoconfig(c)
	deriveSources(c)
	deriveSelfService(c)
	deriveMechanisms(c)
	if a := c.TLS.ACME; a != nil {
		setDefault(&a.Names, c.doc.has("tls.acme.names"), []string{strings.TrimSuffix(c.Hostname, ".")})
	}
	if c.doc.has("privacy.history") {
		c.Store.History = c.Privacy.History
	}
	c.Privacy.History = c.Store.History
	setDefault(&c.Store.HistorySize, c.doc.has("store.history_size"), cmp.Or(c.Store.MaxSize, defaultMaxSize)/4)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		name, address := "submission", ":587"
		if l.TLS == Implicit {
			name, address = "submissions", ":465"
		}
		setDefault(&l.Name, c.doc.has(element("listener", i)+".name"), name)
		setDefault(&l.Address, c.doc.has(element("listener", i)+".address"), address)
		l.MinVersion = cmp.Or(l.MinVersion, c.TLS.MinVersion)
	}
	for i := range c.Upstreams {
		applyProfile(c, &c.Upstreams[i], element("upstream", i))
	}
	resolvePaths(c)
}

// defaultMaxSize is that of [store] max_size, for what is a share of it where there is no bound.
const defaultMaxSize Size = 10e9

func setDefault[T any](v *T, written bool, value T) {
	if !written {
		*v = value
	}
}

// resolvePaths makes every path of the file absolute, from the directory that the file is in.
func resolvePaths(c *Config) {
	paths := []*string{&c.DataDir, &c.TLS.CertFile, &c.TLS.KeyFile, &c.TLS.RSACertFile, &c.TLS.RSAKeyFile}
	paths = append(paths, c.Store.URL.files()...)
	for i := range c.DKIM {
		paths = append(paths, &c.DKIM[i].KeyFile)
	}
	for i := range c.Upstreams {
		paths = append(paths, &c.Upstreams[i].CAFile, &c.Upstreams[i].CertFile, &c.Upstreams[i].KeyFile)
		if o := c.Upstreams[i].OAuth; o != nil {
			paths = append(paths, o.paths()...)
		}
	}
	for i := range c.Alerts {
		paths = append(paths, &c.Alerts[i].CAFile)
	}
	for i := range c.Auth.Sources {
		paths = append(paths, &c.Auth.Sources[i].Path, &c.Auth.Sources[i].CAFile, &c.Auth.Sources[i].Socket)
	}
	for i := range c.Listeners {
		paths = append(paths, &c.Listeners[i].ClientCAFile)
	}
	if c.TLS.ACME != nil {
		paths = append(paths, &c.TLS.ACME.CAFile)
	}
	dir := c.dir()
	for _, p := range paths {
		*p = absolute(dir, *p)
	}
}

// dir returns the absolute directory of relay.toml.
func (c *Config) dir() string {
	dir := filepath.Dir(c.doc.file)
	if full, err := filepath.Abs(dir); err == nil {
		return full
	}
	return dir
}

// Path returns the file that the configuration was read from.
func (c *Config) Path() string { return c.doc.file }

// Files returns the files a change of which means that the configuration should be loaded again: relay.toml, secrets,
// DKIM keys, trust anchors and addresses of hooks. The listeners' certificates are watched by package certs.
func (c *Config) Files() []string {
	files := []string{c.doc.file, c.Store.Password.path(c.dir()), c.Store.SealKey.path(c.dir())}
	for _, f := range c.Store.URL.files() {
		files = append(files, *f)
	}
	for i := range c.DKIM {
		files = append(files, c.DKIM[i].KeyFile)
	}
	for i := range c.Upstreams {
		files = append(files, c.Upstreams[i].CAFile, c.Upstreams[i].CertFile, c.Upstreams[i].KeyFile,
			c.Upstreams[i].Password.path(c.dir()))
		files = append(files, c.Upstreams[i].Proxy.path(c.dir()))
		if o := c.Upstreams[i].OAuth; o != nil {
			files = append(files, o.CertificateFile, o.KeyFile, o.ServiceAccountFile, o.ClientSecret.path(c.dir()),
				o.RefreshToken.path(c.dir()))
		}
	}
	for i := range c.Alerts {
		files = append(files, c.Alerts[i].CAFile, c.Alerts[i].URL.path(c.dir()))
	}
	for _, s := range c.Auth.Sources { // not their password files, which are read again without a reload
		files = append(files, s.CAFile, s.BindPassword.path(c.dir()), s.Token.path(c.dir()),
			s.ClientSecret.path(c.dir()))
	}
	for _, l := range c.Listeners {
		files = append(files, l.ClientCAFile)
	}
	if o := c.Admin.OIDC; o != nil {
		files = append(files, o.ClientSecret.path(c.dir()))
	}
	if o := c.SelfService.OIDC; o != nil {
		files = append(files, o.ClientSecret.path(c.dir()))
	}
	if a := c.TLS.ACME; a != nil {
		files = append(files, a.CAFile)
		for _, s := range a.secrets() {
			files = append(files, s.path(c.dir()))
		}
	}
	slices.Sort(files)
	files = slices.Compact(files)
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// Problem returns a problem about a key at its place in the file, for what only other packages can
// check, such as the content of tls.cert_file.
func (c *Config) Problem(key, format string, args ...any) Problem {
	return Problem{File: c.doc.file, Line: c.doc.lineOf(key), Key: key, Message: fmt.Sprintf(format, args...)}
}
