package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/local"
	"postern/internal/suggest"
	"postern/mail"
)

// storeInDataDir is the URL of the store that is a file of DataDir.
const storeInDataDir = "sqlite"

const storeURLForm = `"postgres://USER@HOST/DATABASE"`

// A server of PostgreSQL: its usual port, and how long one address of it is tried before the next.
const (
	postgresPort          = 5432
	defaultConnectTimeout = 5 * time.Second
	longestConnectTimeout = 60 * time.Second
)

// The values of sslmode, from weak to strong, as PostgreSQL calls them; the last is what a server elsewhere needs.
var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", sslVerifyFull}

const (
	sslVerifyFull = "verify-full"
	sslOwnMachine = "prefer" // where nobody else is on the way
)

// The values of target_session_attrs with which the store can be written to.
const (
	sessionAny       = "any"
	sessionReadWrite = "read-write"
	sessionPrimary   = "primary"
)

// StoreURL says where the store is: in a file of DataDir, which is the zero value, or at a server of PostgreSQL. It has
// no password, because addresses are logged: who writes one into it is told where to put it.
type StoreURL struct {
	user, database string
	hosts          []storeHost // tried in order; with SQLite none
	params         storeParams
}

// storeHost is a server, or the directory of its socket.
type storeHost struct {
	name string // without brackets; "/…" is a directory
	port int
}

// ours reports that nobody else is between us and the server.
func (h storeHost) ours() bool { return strings.HasPrefix(h.name, "/") || local.Host(h.name) }

// storeParams are the parameters of a URL; "" and 0: not written.
type storeParams struct {
	sslMode, sslRootCert, sslCert, sslKey string
	targetSession                         string
	connectTimeout                        time.Duration
}

var storeParamNames = []string{"connect_timeout", "host", "sslcert", "sslkey", "sslmode", "sslrootcert",
	"target_session_attrs"}

// ParseStoreURL reads a StoreURL. No error repeats what stands where a password might.
func ParseStoreURL(text string) (StoreURL, error) {
	if text == storeInDataDir {
		return StoreURL{}, nil
	}
	rest, ok := strings.CutPrefix(text, "postgres://")
	if !ok {
		rest, ok = strings.CutPrefix(text, "postgresql://")
	}
	if !ok {
		return StoreURL{}, fmt.Errorf(`unknown store, write "sqlite" or %s`, storeURLForm)
	}
	// A password may have any of / ? # in it, unescaped: the user ends at the last @.
	i := strings.LastIndexByte(rest, '@')
	if strings.Contains(rest[:max(i, 0)], ":") {
		return StoreURL{}, errStorePassword
	}
	if i < 0 {
		return StoreURL{}, fmt.Errorf("names no user, write %s", storeURLForm)
	}
	user, rest := rest[:i], rest[i+1:]
	rest, query, _ := strings.Cut(rest, "?")
	hosts, database, _ := strings.Cut(rest, "/")
	u := StoreURL{}
	var err error
	if u.user, err = storeName("user", user); err != nil {
		return StoreURL{}, err
	}
	if u.database, err = storeName("database", database); err != nil {
		return StoreURL{}, err
	}
	if err = u.params.parse(query, &hosts); err == nil {
		u.hosts, err = parseStoreHosts(hosts)
	}
	if err != nil {
		return StoreURL{}, err
	}
	return u, nil
}

var errStorePassword = errors.New(`has a password in it, and addresses are logged; write it as password = ` +
	`"env:NAME" or "file:PATH" beside it, and here USER@ alone (":" and "@" in a name are %3A and %40)`)

// storeName reads the name of a user or database.
func storeName(what, escaped string) (string, error) {
	if escaped == "" {
		return "", fmt.Errorf("names no %s, write %s", what, storeURLForm)
	}
	name, err := url.PathUnescape(escaped)
	if err != nil || strings.Contains(escaped, "/") || strings.ContainsFunc(name, unprintable) {
		return "", fmt.Errorf("has no %s that could be read, write letters, digits and _, others as %%XX", what)
	}
	if len(name) > 63 { // NAMEDATALEN; the server would cut it
		return "", fmt.Errorf("has a %s of %d octets, and PostgreSQL knows at most 63", what, len(name))
	}
	return name, nil
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }

// parseStoreHosts reads "host:port,host", or the directory of a socket with the port that it is named after.
func parseStoreHosts(text string) (hosts []storeHost, err error) {
	for part := range strings.SplitSeq(text, ",") {
		h := storeHost{port: postgresPort}
		name, port := part, ""
		if i := strings.LastIndexByte(part, ':'); i > strings.LastIndexByte(part, ']') {
			if name, port = part[:i], part[i+1:]; strings.Contains(name, ":") && !strings.HasPrefix(name, "[") {
				return nil, errors.New("has an IPv6 address without brackets, write [2001:db8::1]:5432")
			}
			if h.port, err = strconv.Atoi(port); err != nil || !allDigits(port) || h.port < 1 || h.port > 65535 {
				return nil, errors.New("has a port that is no number from 1 to 65535, write one such as :5432, or none")
			}
		}
		if h.name, err = storeHostName(name); err != nil {
			return nil, err
		}
		if slices.Contains(hosts, h) {
			return nil, fmt.Errorf("has %s twice, write each address once", h)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// storeHostName reads a host name, an address, one of IPv6 in brackets, or the directory of a socket.
func storeHostName(name string) (string, error) {
	if name == "" {
		return "", errors.New("names no host, write it behind the @, or ?host=/var/run/postgresql for a socket of " +
			"this machine")
	}
	if strings.HasPrefix(name, "/") {
		return filepath.Clean(name), nil
	}
	bare, bracketed := strings.CutPrefix(name, "[")
	bare, closed := strings.CutSuffix(bare, "]")
	if addr, err := netip.ParseAddr(bare); err == nil && bracketed == closed && bracketed == addr.Is6() {
		return bare, nil
	}
	if _, err := mail.ParseDomain(strings.ReplaceAll(name, "_", "-")); err != nil || bracketed || closed ||
		!isASCII(name) { // "_" is usual in networks of containers
		return "", errors.New("has a host that is no host name or IP address, write one such as db.example.com or " +
			"[2001:db8::1]")
	}
	return strings.ToLower(name), nil
}

// parse reads the parameters. The directory of a socket goes to hosts, which may have a port then and nothing else.
func (p *storeParams) parse(query string, hosts *string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("has parameters that cannot be read, write ?name=value&name=value, with %XX for what is no " +
			"letter or digit")
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch known := slices.Contains(storeParamNames, name); {
		case name == "password" || name == "sslpassword" || name == "passfile":
			return errStorePassword
		case !known:
			near := suggest.Question(name, storeParamNames)
			return fmt.Errorf("has the parameter %q, which is not among %s%s", mail.Printable(mail.Cut(name, 40)),
				strings.Join(storeParamNames, ", "), near)
		case len(values[name]) > 1:
			return fmt.Errorf("has the parameter %s twice, write it once", name)
		case values[name][0] == "" || strings.ContainsFunc(values[name][0], unprintable):
			return fmt.Errorf("has the parameter %s without a value that could be read, write one or remove it", name)
		}
		if err := p.set(name, values[name][0], hosts); err != nil {
			return err
		}
	}
	if (p.sslCert == "") != (p.sslKey == "") {
		return errors.New("has one of sslcert and sslkey without the other, write both or neither")
	}
	return nil
}

func (p *storeParams) set(name, value string, hosts *string) error {
	switch name {
	case "connect_timeout":
		n, err := strconv.Atoi(value)
		if p.connectTimeout = time.Duration(n) * time.Second; err != nil || n < 1 ||
			p.connectTimeout > longestConnectTimeout {
			return fmt.Errorf("has a connect_timeout that is no number of seconds from 1 to %d, write one such as 5",
				longestConnectTimeout/time.Second)
		}
	case "host":
		return socketHost(value, hosts)
	case "sslcert":
		p.sslCert = value
	case "sslkey":
		p.sslKey = value
	case "sslrootcert":
		if value != "system" { // what holds without it
			p.sslRootCert = value
		}
	case "sslmode":
		if p.sslMode = value; !slices.Contains(sslModes, value) {
			return fmt.Errorf("has an unknown sslmode, write %s, or one of %s", sslVerifyFull,
				strings.Join(sslModes[:len(sslModes)-1], ", "))
		}
	case "target_session_attrs":
		p.targetSession = value
		if !slices.Contains([]string{sessionAny, sessionReadWrite, sessionPrimary}, value) {
			return errors.New("has a target_session_attrs other than read-write, primary and any: the store is " +
				"written to, write read-write or leave it out")
		}
	}
	return nil
}

// socketHost puts the directory of a socket before the port that may stand where hosts do.
func socketHost(dir string, hosts *string) error {
	switch {
	case !strings.HasPrefix(dir, "/") || strings.ContainsAny(dir, ",:"):
		return errors.New("has a host= that is no directory of a socket such as /var/run/postgresql, write a host " +
			"name behind the @")
	case *hosts != "" && !strings.HasPrefix(*hosts, ":"):
		return errors.New("names a host behind the @ and another by host=, remove one of them")
	}
	*hosts = dir + *hosts
	return nil
}

// UnmarshalText reads what ParseStoreURL reads.
func (u *StoreURL) UnmarshalText(text []byte) (err error) {
	*u, err = ParseStoreURL(string(text))
	return err
}

// Server reports whether the store is at a server, which several nodes may share.
func (u StoreURL) Server() bool { return len(u.hosts) > 0 }

// Equal reports whether both are the same place, reached in the same way.
func (u StoreURL) Equal(other StoreURL) bool { return u.Conninfo() == other.Conninfo() }

// Place says where the store is: the server and database, without how it is reached. With SQLite it is "sqlite".
func (u StoreURL) Place() string {
	if !u.Server() {
		return storeInDataDir
	}
	at := "postgres://" + escapeName(u.user) + "@"
	if dir := u.hosts[0]; strings.HasPrefix(dir.name, "/") {
		port := ""
		if dir.port != postgresPort {
			port = ":" + strconv.Itoa(dir.port)
		}
		return at + port + "/" + escapeName(u.database) + "?host=" + dir.name
	}
	var hosts []string
	for _, h := range u.hosts {
		hosts = append(hosts, h.String())
	}
	return at + strings.Join(hosts, ",") + "/" + escapeName(u.database)
}

// escapeName writes a name so that storeName reads it.
func escapeName(name string) string { return strings.ReplaceAll(url.QueryEscape(name), "+", "%20") }

// String returns the address and port, without the usual port.
func (h storeHost) String() string {
	name := h.name
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if h.port == postgresPort {
		return name
	}
	return name + ":" + strconv.Itoa(h.port)
}

// String returns the URL with the parameters that were written.
func (u StoreURL) String() string {
	text := u.Place()
	sep := "?"
	if strings.Contains(text, "?") {
		sep = "&"
	}
	for _, p := range u.params.written() {
		if p.value != "" {
			text += sep + p.name + "=" + strings.ReplaceAll(url.QueryEscape(p.value), "%2F", "/")
			sep = "&"
		}
	}
	return text
}

type storeParam struct{ name, value string }

// written are the parameters in the order of their names, those that were not written as "".
func (p storeParams) written() []storeParam {
	timeout := ""
	if p.connectTimeout > 0 {
		timeout = strconv.Itoa(int(p.connectTimeout / time.Second))
	}
	return []storeParam{{"connect_timeout", timeout}, {"sslcert", p.sslCert}, {"sslkey", p.sslKey},
		{"sslmode", p.sslMode}, {"sslrootcert", p.sslRootCert}, {"target_session_attrs", p.targetSession}}
}

// Conninfo is what a client of PostgreSQL connects with, in the form of libpq's keywords and values, without the
// password. It says everything that a client would otherwise take from its environment or guess: a server elsewhere is
// verified, and of several the one that takes writes is meant. With SQLite it is "".
func (u StoreURL) Conninfo() string {
	if !u.Server() {
		return ""
	}
	var hosts, ports []string
	for _, h := range u.hosts {
		hosts, ports = append(hosts, h.name), append(ports, strconv.Itoa(h.port))
	}
	p := u.params
	p.sslMode = u.SSLMode()
	p.connectTimeout = cmp.Or(p.connectTimeout, defaultConnectTimeout)
	if len(u.hosts) > 1 {
		p.targetSession = cmp.Or(p.targetSession, sessionReadWrite)
	}
	p.targetSession = cmp.Or(p.targetSession, sessionAny)
	all := append([]storeParam{{"host", strings.Join(hosts, ",")}, {"port", strings.Join(ports, ",")},
		{"user", u.user}, {"dbname", u.database}}, p.written()...)
	var words []string
	for _, p := range all {
		if p.value != "" {
			words = append(words, p.name+"='"+conninfoEscapes.Replace(p.value)+"'")
		}
	}
	return strings.Join(words, " ")
}

var conninfoEscapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// SSLMode is the mode in force: what was written, or verify-full where the server is elsewhere.
func (u StoreURL) SSLMode() string {
	if u.Elsewhere() {
		return cmp.Or(u.params.sslMode, sslVerifyFull)
	}
	return cmp.Or(u.params.sslMode, sslOwnMachine)
}

// Elsewhere reports that a server may be another machine.
func (u StoreURL) Elsewhere() bool {
	return slices.ContainsFunc(u.hosts, func(h storeHost) bool { return !h.ours() })
}

// files are those that the parameters name.
func (u *StoreURL) files() []*string {
	return []*string{&u.params.sslRootCert, &u.params.sslCert, &u.params.sslKey}
}
