package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/clientsetup"
)

// cardOf is what postern client says of a login.
func (s *setupOffice) cardOf(login string) (c clientsetup.Card) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.postern("", "client", login, "--json")), &c); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// What postern client prints is what clients can send with, on every port.
func TestPrintedValuesWork(t *testing.T) {
	t.Parallel()
	const login, secret = "anna@example.com", "a chosen password"
	s := newSetupOffice(t)
	s.edit(`url = "https://relay.example.com"`, "url = \"https://relay.example.com\"\nserver = \"localhost\"")
	s.postern(secret+"\n", "user", "add", login, "--password-stdin")
	p := s.serve()
	card := s.cardOf(login)
	if len(card.Outgoing) != 2 {
		t.Fatalf("%+v", card.Outgoing)
	}
	for _, server := range card.Outgoing {
		for _, client := range testkit.Clients() {
			subject := client.Name + " on " + server.TLS
			m := s.submission(subject)
			m.Server, m.TLS = fmt.Sprintf("%s:%d", server.Host, server.Port), testkit.StartTLS
			if server.TLS == "implicit" {
				m.TLS = testkit.Implicit
			}
			m.Login, m.Password = server.Username, secret
			s.sends(subject, func() testkit.Output { return client.Send(t, m) })
		}
	}
	p.Stop()
}

// sends runs a client and waits for its message.
func (s *setupOffice) sends(subject string, send func() testkit.Output) {
	s.t.Helper()
	if out := send(); !out.OK {
		s.t.Errorf("%s:\n%s", subject, out.Text)
		return
	}
	got, err := s.upstream.WaitMessage(s.t.Context())
	if err != nil || !strings.Contains(string(got.Data), "Subject: "+subject+"\r\n") {
		s.t.Errorf("%s: %v: %s", subject, err, got.Data)
	}
}

func (s *setupOffice) edit(from, to string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("relay.toml", strings.Replace(string(text), from, to, 1))
}

// programs are those of docs/clients/applications.md that run here.
var programs = map[string]struct {
	need    string
	command func(file string) []string
	subject string
}{
	"python": {"python3", func(file string) []string { return []string{"/usr/bin/python3", file} }, "from Python"},
	"js":     {"node-nodemailer", func(file string) []string { return []string{"node", file} }, "from nodemailer"},
	"php":    {"libphp-phpmailer", func(file string) []string { return []string{"php", file} }, "from PHPMailer"},
}

// The programs of the guide for applications send, as they stand there but for names.
func TestGuideForApplications(t *testing.T) {
	t.Parallel()
	const login, secret = "anna@example.com", "a chosen password"
	s := newSetupOffice(t)
	s.postern(secret+"\n", "user", "add", login, "--password-stdin")
	p := s.serve()
	guide, err := os.ReadFile("../../docs/clients/applications.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, block := range regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(string(guide), -1) {
		program, ok := programs[block[1]]
		if !ok {
			continue
		}
		seen++
		t.Run(block[1], func(t *testing.T) {
			testkit.Need(t, program.need)
			text := strings.NewReplacer("relay.example.com", "localhost", "465", fmt.Sprint(s.implicit),
				`"libphp-phpmailer/`, `"/usr/share/php/libphp-phpmailer/`).Replace(block[2])
			file := filepath.Join(t.TempDir(), "program."+block[1])
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s.sends(program.subject, func() testkit.Output {
				args := program.command(file)
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				cmd.Env = append(os.Environ(), "SMTP_PASSWORD="+secret, "SSL_CERT_FILE="+s.ca.File,
					"NODE_EXTRA_CA_CERTS="+s.ca.File, "NODE_PATH=/usr/share/nodejs")
				out, err := cmd.CombinedOutput()
				return testkit.Output{OK: err == nil, Text: string(out)}
			})
		})
	}
	if seen != len(programs) {
		t.Errorf("%d programs in the guide, want %d", seen, len(programs))
	}
	p.Stop()
}

func TestClientCommand(t *testing.T) {
	t.Parallel()
	s := newSetupOffice(t, "autoconfig.example.com")
	s.postern("", "user", "add", "anna@example.com", "--network", "192.0.2.0/24")
	s.postern("", "user", "lock", "anna@example.com")
	text := s.postern("", "client", "anna@example.com")
	for _, want := range []string{fmt.Sprintf("Port            %d", s.implicit), "with STARTTLS", "imap.example.com",
		"THUNDERBIRD - by itself", "profile.mobileconfig?emailaddress=anna%40example.com", "Note: the login is locked",
		"the login works from 192.0.2.0/24 alone", "_autodiscover._tcp.example.com", "PACC: it knows submission"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said:\n%s", want, text)
		}
	}
	file := filepath.Join(s.dir, "anna.mobileconfig")
	s.postern("", "client", "anna@example.com", "--mobileconfig", file)
	signed, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(signed), "\x30") || !strings.Contains(string(signed), "<plist") {
		t.Errorf("%v: %.40q", err, signed)
	}
	if out := testkit.Run(t, "", "client", "anan@example.com", "--config", s.config); out.OK ||
		!strings.Contains(out.Text, "did you mean anna@example.com") {
		t.Errorf("%v %s", out.OK, out.Text)
	}
	s.edit("tls.cert_file", "#")
	s.edit("tls.key_file", "#")
	out := testkit.Run(t, "", "client", "anna@example.com", "--mobileconfig", "-", "--config", s.config)
	if !out.OK || !strings.Contains(out.Text, "The profile is not signed") || !strings.Contains(out.Text, "<plist") {
		t.Errorf("%v %s", out.OK, out.Text)
	}
}
