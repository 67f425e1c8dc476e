package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/policy"
)

const minimal = "hostname = \"relay.example.com\"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"

// load loads text from a file in a directory of its own.
func load(t *testing.T, text string) *Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.toml")
	writeMode(t, path, text, 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultListeners(t *testing.T) {
	c := load(t, minimal)
	if len(c.Listeners) != 2 || len(c.Warnings()) != 0 {
		t.Fatalf("%+v %v", c.Listeners, c.Warnings())
	}
	type door struct{ name, address, tls string }
	want := []door{{"submission", ":587", StartTLS}, {"submissions", ":465", Implicit}}
	for i, l := range c.Listeners {
		if got := (door{l.Name, l.Address, l.TLS}); got != want[i] {
			t.Errorf("listener %d is %v, want %v", i, got, want[i])
		}
		if l.Auth != AuthRequired || l.Handoff.Std() != 5*time.Second || !l.HideClient || l.MaxMessageSize != 35e6 ||
			l.MinVersion.String() != "1.2" {
			t.Errorf("listener %d: %+v", i, l)
		}
	}
	if len(c.Auth.Sources) != 1 || c.Auth.Sources[0].Type != "store" ||
		!slices.Equal(c.Auth.Mechanisms, []string{"PLAIN", "LOGIN"}) {
		t.Errorf("%+v", c.Auth)
	}
}

// What was written stays, also where it is the zero value of a key with another default.
func TestWrittenZeroStays(t *testing.T) {
	c := load(t, minimal+`insecure_skip_verify = false
port = 2525
[[listener]]
tls = "implicit"
min_version = "1.3"
handoff = "0s"
hide_client = false
min_data_rate = "0/s"
[admin]
address = ""
[delivery]
warn_after = "0s"
[tls]
min_version = "1.2"
`)
	l := c.Listeners[0]
	if len(c.Listeners) != 1 || l.Name != "submissions" || l.Address != ":465" || l.Handoff != 0 || l.HideClient ||
		l.MinDataRate != 0 || l.MinVersion.String() != "1.3" {
		t.Errorf("%+v", l)
	}
	if c.Admin.Address != "" || c.Delivery.WarnAfter != 0 || c.Upstreams[0].Port != 2525 {
		t.Errorf("%+v %+v", c.Admin, c.Delivery)
	}
}

func TestUpstreamPorts(t *testing.T) {
	c := load(t, `hostname = "relay.example.com"
upstream = [
  { name = "a", host = "192.0.2.1" },
  { name = "b", host = "192.0.2.2", tls = "implicit" }, # one line each
  { name = "c", host = "127.0.0.1", tls = "none" },
]
`)
	for i, want := range []int{587, 465, 25} {
		if c.Upstreams[i].Port != want || c.Upstreams[i].MaxConnections != 10 || c.Upstreams[i].DKIM != DKIMSign {
			t.Errorf("%+v", c.Upstreams[i])
		}
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	writeMode(t, filepath.Join(dir, "secret"), "hunter2\n", 0o600)
	writeMode(t, filepath.Join(dir, "key.pem"), "-----BEGIN PRIVATE KEY-----", 0o600)
	path := filepath.Join(dir, "relay.toml")
	writeMode(t, path, "data_dir = \"data\"\n"+minimal+`username = "u"
password = "file:secret"
[tls]
cert_file = "cert.pem"
key_file = "/etc/key.pem"
[[dkim]]
domain = "example.com"
selector = "a"
key_file = "key.pem"
`, 0o600)
	t.Chdir(dir)
	c, err := Load("relay.toml")
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != filepath.Join(dir, "data") || c.TLS.CertFile != filepath.Join(dir, "cert.pem") ||
		c.TLS.KeyFile != "/etc/key.pem" {
		t.Errorf("%q %+v", c.DataDir, c.TLS)
	}
	if c.Upstreams[0].Password.Value() != "hunter2" {
		t.Error("the password was not read")
	}
	want := []string{filepath.Join(dir, "key.pem"), filepath.Join(dir, "secret"), "relay.toml"}
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("watched: %q, want %q", got, want)
	}
	if shown := fmt.Sprintf("%+v %#v", c, c); strings.Contains(shown, "hunter2") {
		t.Error("a printed Config shows the password")
	}
}

func TestHostnameOfTheMachine(t *testing.T) {
	c := Parse("relay.toml", []byte(strings.TrimPrefix(minimal, "hostname = \"relay.example.com\"\n")))
	name, err := os.Hostname()
	if err != nil || c.Hostname != name {
		t.Fatalf("%q, machine %q (%v)", c.Hostname, name, err)
	}
	for name, want := range map[string]string{"": "this machine has no name", "a b": "is not a host name",
		"host": "has no domain", "host.example.com": ""} {
		c.Hostname = name
		err := c.Validate()
		said := fmt.Sprint(err, c.Warnings())
		if want == "" && said != "<nil> []" || !strings.Contains(said, want) {
			t.Errorf("%q: %s", name, said)
		}
	}
}

// Commands that work on the store need neither secrets nor upstreams.
func TestReadAsksForNoSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.toml")
	writeMode(t, path, minimal+"username = \"u\"\npassword = \"env:POSTERN_TEST_UNSET\"\n", 0o600)
	if c, err := Read(path); err != nil || c.DataDir != "/var/lib/postern" {
		t.Fatal(c, err)
	}
	if _, err := Load(path); err == nil {
		t.Fatal("Load asks for none either")
	}
	writeMode(t, path, "data_dir = 5\n", 0o600)
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(),
		"relay.toml:1: data_dir: has the wrong type") {
		t.Fatal(err)
	}
}

func TestFileProblems(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.toml")
	writeMode(t, big, strings.Repeat("#", maxFile+1), 0o600)
	for path, want := range map[string]string{
		filepath.Join(dir, "absent.toml"): "absent.toml: does not exist, create it or correct the path",
		dir:                               ": is not a regular file",
		"/dev/null":                       "is not a regular file",
		big:                               "is it the right file?",
	} {
		c, err := Load(path)
		var all *Error
		if c != nil || !errors.As(err, &all) || !strings.Contains(err.Error(), want) ||
			strings.HasPrefix(err.Error(), path+":0") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestErrorIsSortedAndComplete(t *testing.T) {
	c := Parse("relay.toml", []byte("[log]\nlevel = \"loud\"\nformat = 5\n[store]\nhistory = \"x\"\nurls = \"\"\n"))
	want := strings.Join([]string{
		`relay.toml:1: upstream: there is none, write [[upstream]] with name and host of the provider that takes ` +
			`your mail`,
		`relay.toml:2: log.level: unknown value "loud", write "debug", "info", "warn" or "error"`,
		`relay.toml:3: log.format: has the wrong type, write a text in quotes`,
		`relay.toml:5: store.history: "x" is not a duration, write a number with a unit, such as "30s", "5m", "4h", ` +
			`"2d" or "1w"`,
		`relay.toml:6: store.urls: unknown key, did you mean url?`,
	}, "\n")
	for range 2 { // validating again says the same
		if err := c.Validate(); err == nil || err.Error() != want {
			t.Fatalf("says\n%v\ninstead of\n%s", err, want)
		}
	}
}

func TestProblemOfAnotherPackage(t *testing.T) {
	c := Parse("relay.toml", []byte(minimal+"[tls]\ncert_file = \"cert.pem\"\n"))
	for key, want := range map[string]string{
		"tls.cert_file":    "relay.toml:6: tls.cert_file: expired",
		"tls.key_file":     "relay.toml:5: tls.key_file: expired",
		"upstream[1].host": "relay.toml:4: upstream[1].host: expired",
		"upstream[2].host": "relay.toml:1: upstream[2].host: expired",
	} {
		if got := c.Problem(key, "%s", "expired").String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRules(t *testing.T) {
	c := load(t, minimal+`[[policy]]
logins = ["bench"]
limits = []
[[policy]]
networks = ["192.0.2.7"]
senders = ["scans@example.com"]
`)
	p, err := policy.New(c.Rules())
	if err != nil {
		t.Fatal(err)
	}
	if e := p.For(policy.Subject{Login: "bench"}); len(e.Limits) != 0 {
		t.Errorf("an empty list does not lift the limits: %v", e.Limits)
	}
	e := p.For(policy.Subject{Login: "anna@example.com", Client: netip.MustParseAddr("192.0.2.7")})
	if e.FirstSender().String() != "scans@example.com" || len(e.Limits) != 5 || e.OverLimit != policy.Defer {
		t.Errorf("%+v", e)
	}
	e = p.For(policy.Subject{Login: "anna@example.com", Client: netip.MustParseAddr("192.0.2.8")})
	if e.FirstSender().String() != "anna@example.com" || e.Limits[0].String() != "60 messages/minute" {
		t.Errorf("%+v", e)
	}
}

// example reads the project's relay.toml.
func example(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("../../relay.toml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// asExample writes an annotated file beside what it names, and returns its path.
func asExample(t *testing.T, text string) (path string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dkim"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeMode(t, filepath.Join(dir, "dkim", "example.com.pem"), "-----BEGIN PRIVATE KEY-----", 0o600)
	t.Setenv("UPSTREAM_PASSWORD", "hunter2")
	t.Setenv("ALERT_URL", "https://hooks.example.com/hunter2")
	t.Setenv("CONSOLE_OIDC_SECRET", "hunter2")
	t.Setenv("SELF_SERVICE_OIDC_SECRET", "hunter2")
	path = filepath.Join(dir, "relay.toml")
	writeMode(t, path, text, 0o644)
	return path
}

func TestExampleLoads(t *testing.T) {
	c, err := Load(asExample(t, strings.Join(example(t), "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings: %v", w)
	}
	if c.Upstreams[0].Password.Value() != "hunter2" {
		t.Error("the password was not read")
	}
}

// mentioned reports whether a key stands in some block of its list.
func mentioned(c *Config, key string) bool {
	for n := 1; n < 10; n++ {
		if c.doc.has(strings.Replace(key, "[1]", fmt.Sprintf("[%d]", n), 1)) {
			return true
		}
	}
	return false
}

// Every key stands in the example, under its table.
func TestExampleMentionsEveryKey(t *testing.T) {
	lines := example(t)
	for i, line := range lines {
		if i > 8 {
			lines[i] = strings.TrimPrefix(line, "# ")
		}
	}
	c := Parse("relay.toml", []byte(strings.Join(lines, "\n")))
	var visit func(typ reflect.Type, path string)
	visit = func(typ reflect.Type, path string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag := f.Tag.Get("toml")
			if tag == "" {
				continue
			}
			key, ft := join(path, tag), f.Type
			if ft.Kind() == reflect.Slice && isTable(ft.Elem()) {
				key, ft = element(key, 0), ft.Elem()
			}
			if !mentioned(c, key) {
				t.Errorf("relay.toml does not mention %s", key)
			}
			if isTable(ft) {
				if ft.Kind() == reflect.Pointer {
					ft = ft.Elem()
				}
				visit(ft, key)
			}
		}
	}
	visit(reflect.TypeFor[Config](), "")
}

// Every line of the example that is not marked as one states the default: taking it away changes nothing.
func TestExampleStatesTheDefaults(t *testing.T) {
	lines := example(t)
	kept := slices.Clone(lines)
	headers := slices.Clone(lines)
	for i, line := range lines {
		isHeader := strings.HasPrefix(line, "[")
		if strings.Contains(line, "# example") && !isHeader {
			kept[i], headers[i] = "", ""
		}
		if !isHeader {
			headers[i] = ""
		}
	}
	documented := Parse("relay.toml", []byte(strings.Join(kept, "\n")))
	defaults := Parse("relay.toml", []byte(strings.Join(headers, "\n")))
	if ps := append(documented.doc.problems, defaults.doc.problems...); len(ps) != 0 {
		t.Fatal(ps)
	}
	p, standard := documented.Policies[0], DefaultPolicy()
	standard.Senders = nil // stated in words
	if !reflect.DeepEqual(p, standard) {
		t.Errorf("policy: documented %+v, in force %+v", p, standard)
	}
	documented.Policies, defaults.Policies = nil, nil
	documented.doc, defaults.doc = nil, nil
	emptyToNil(reflect.ValueOf(documented).Elem())
	emptyToNil(reflect.ValueOf(defaults).Elem())
	if !reflect.DeepEqual(documented, defaults) {
		t.Errorf("documented\n%+v\nin force\n%+v", documented, defaults)
	}
	if !slices.Contains(lines, `senders = ["scans@example.com"]       # example; who it may be: address, *@domain, `+
		`{login}, @group. Default ["{login}"]`) {
		t.Error("the default senders are not stated")
	}
}

// emptyToNil makes lists that were written empty equal to those not written.
func emptyToNil(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Slice && v.Len() == 0 && v.CanSet():
		v.SetZero()
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			emptyToNil(v.Index(i))
		}
	case v.Kind() == reflect.Struct && isTable(v.Type()):
		for i := range v.NumField() {
			emptyToNil(v.Field(i))
		}
	}
}

// Every key has a case in testdata/bad that is refused because of it.
func TestEveryKeyHasARejectedExample(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	var refused strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, expected := splitExpected(string(data))
		refused.WriteString(expected)
	}
	var visit func(typ reflect.Type, path string)
	visit = func(typ reflect.Type, path string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag := f.Tag.Get("toml")
			ft := f.Type
			isList := ft.Kind() == reflect.Slice && isTable(ft.Elem())
			if isList {
				ft = ft.Elem()
			}
			key := join(path, tag)
			switch {
			case ft == reflect.TypeFor[*OAuth]():
				visit(ft.Elem(), key)
			case tag == "" || ft.Kind() == reflect.Pointer: // a pointer is a table that is refused whole
			case isTable(ft) && isList:
				visit(ft, key+"[?]")
			case isTable(ft):
				visit(ft, key)
			case !mentions(refused.String(), key):
				t.Errorf("no file of testdata/bad is refused because of %s", key)
			}
		}
	}
	visit(reflect.TypeFor[Config](), "")
}

// mentions reports whether one of the expected lines is about key, "[?]" being any element, or about
// one of its elements.
func mentions(expected, key string) bool {
	for line := range strings.Lines(expected) {
		parts := strings.SplitN(line, ": ", 4)
		if len(parts) < 4 {
			continue
		}
		got := parts[2]
		for n := 1; n < 9; n++ {
			got = strings.ReplaceAll(got, fmt.Sprintf("[%d]", n), "[?]")
		}
		if strings.TrimSuffix(got, "[?]") == strings.TrimSuffix(key, "[?]") {
			return true
		}
	}
	return false
}

// A profile sets what was not written, and nothing else.
func TestProfilesSetDefaults(t *testing.T) {
	c := load(t, `hostname = "relay.example.com"
[[upstream]]
name = "office"
provider = "microsoft365"
username = "relay@example.com"
password = "hunter2"
[[upstream]]
name = "own"
provider = "microsoft365"
host = "127.0.0.1"
port = 2525
tls = "none"
mechanisms = ["PLAIN"]
max_connections = 7
messages_per_connection = 8
idle_close = "9s"
rate = []
max_message_size = "1MB"
max_recipients = 11
assume_extensions = ["DSN"]
deny_extensions = ["CHUNKING"]
dkim = "sign"
sender_rule = "any"
message_id = "kept"
username = "relay@example.com"
password = "hunter2"
[[upstream.rule]]
name = "mine"
stages = ["dot"]
class = "deferral"
[[upstream]]
name = "grid"
provider = "sendgrid"
tls = "implicit"
password = "hunter2"
[[upstream]]
name = "bulk"
provider = "ses"
host = "email-smtp.eu-west-1.amazonaws.com"
port = 2465
`)
	office := c.Upstreams[0]
	if office.Host != "smtp.office365.com" || office.Port != 587 || office.TLS != StartTLS ||
		office.MaxConnections != 3 || office.DKIM != DKIMSkip ||
		!slices.Equal(office.Mechanisms, []string{"XOAUTH2", "LOGIN"}) ||
		!slices.Equal(office.Rate, []string{"30 messages/minute", "10000 recipients/day"}) {
		t.Errorf("%+v", office)
	}
	rates, err := office.Rates()
	if err != nil || len(rates) != 2 || rates[1].Count != 10000 || rates[1].Unit != "recipients" ||
		rates[1].Per != 24*time.Hour {
		t.Errorf("%v %v", rates, err)
	}
	own := c.Upstreams[1]
	if own.Host != "127.0.0.1" || own.Port != 2525 || own.TLS != NoTLS || own.MaxConnections != 7 ||
		own.MessagesPerConnection != 8 ||
		own.IdleClose.Std() != 9*time.Second || len(own.Rate) != 0 || own.MaxMessageSize != 1e6 ||
		own.MaxRecipients != 11 ||
		own.DKIM != DKIMSign || own.SenderRule != "any" || own.MessageID != "kept" ||
		!slices.Equal(own.Mechanisms, []string{"PLAIN"}) ||
		!slices.Equal(own.AssumeExtensions, []string{"DSN"}) ||
		!slices.Equal(own.DenyExtensions, []string{"CHUNKING"}) {
		t.Errorf("%+v", own)
	}
	if rules := own.ReplyRules(); rules[0].Name != "mine" || len(rules) != len(office.ReplyRules())+1 {
		t.Errorf("%d rules, the first is %s", len(rules), rules[0].Name)
	}
	if grid := c.Upstreams[2]; grid.Port != 465 || grid.Username != "apikey" {
		t.Errorf("%+v", grid)
	}
	if bulk := c.Upstreams[3]; bulk.TLS != Implicit || bulk.MaxMessageSize != 40e6 || bulk.MaxRecipients != 50 {
		t.Errorf("%+v", bulk)
	}
}
