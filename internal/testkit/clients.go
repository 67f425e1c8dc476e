package testkit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clientTime bounds one run of a client.
const clientTime = 60 * time.Second

// TLS says how a client protects the connection.
type TLS string

// The ways to protect a connection.
const (
	StartTLS TLS = "starttls"
	Implicit TLS = "implicit"
	Plain    TLS = "none"
)

// Submission is what a client is asked to do: log in at a server and send one message.
type Submission struct {
	Server          string // host:port; the host is the name the certificate is checked against
	TLS             TLS
	CAFile          string
	Login, Password string // no AUTH where Login is empty
	Mechanism       string // "" leaves it to the client
	Token           string // of OAuth, for Curl
	Certificate     Cert   // of the client, for Curl
	From            string // reverse-path
	To              []string
	Message         []byte // header and body with CRLF
}

// Output is what a client said. A client that ran and was refused has OK false; one that could not be
// run at all fails the test.
type Output struct {
	OK   bool
	Text string // standard output and error, the SMTP dialogue where the client shows it
}

// A Client is a real mail client that can carry out a Submission.
type Client struct {
	Name string
	Send func(t testing.TB, s Submission) Output
}

// Clients are the clients a person is likely to use from a script.
func Clients() []Client {
	return []Client{
		{"swaks", Swaks},
		{"msmtp", Msmtp},
		{"curl", Curl},
		{"smtplib", Smtplib},
	}
}

// Swaks sends with swaks.
func Swaks(t testing.TB, s Submission) Output {
	t.Helper()
	path := Need(t, "swaks")
	host, port := s.split(t)
	args := []string{"--server", host, "--port", port, "--from", s.From, "--to", strings.Join(s.To, ","),
		"--ehlo", "client.example.com", "--timeout", "30s", "--data", "-"}
	switch s.TLS {
	case StartTLS:
		args = append(args, "--tls")
	case Implicit:
		args = append(args, "--tlsc")
	}
	if s.TLS != Plain && s.CAFile != "" {
		args = append(args, "--tls-ca-path", s.CAFile, "--tls-verify")
	}
	if s.Login != "" {
		mechanism := s.Mechanism
		mechanism = cmp.Or(mechanism, "PLAIN")
		args = append(args, "--auth", mechanism, "--auth-user", s.Login, "--auth-password", s.Password,
			"--auth-hide-password")
	}
	// swaks wants the data with LF, makes CRLF and the dots itself, and adds the last line end.
	data := bytes.TrimSuffix(bytes.ReplaceAll(s.Message, []byte("\r\n"), []byte("\n")), []byte("\n"))
	return run(t, data, nil, path, args...)
}

// Msmtp sends with msmtp.
func Msmtp(t testing.TB, s Submission) Output {
	t.Helper()
	path := Need(t, "msmtp")
	host, port := s.split(t)
	var b strings.Builder
	fmt.Fprintf(&b, "account default\nhost %s\nport %s\nfrom %s\ndomain client.example.com\ntimeout 30\n", host, port,
		s.From)
	switch s.TLS {
	case StartTLS:
		b.WriteString("tls on\ntls_starttls on\n")
	case Implicit:
		b.WriteString("tls on\ntls_starttls off\n")
	default:
		b.WriteString("tls off\n")
	}
	if s.TLS != Plain {
		fmt.Fprintf(&b, "tls_trust_file %s\n", s.CAFile)
	}
	if s.Login == "" {
		b.WriteString("auth off\n")
	} else {
		mechanism := strings.ToLower(s.Mechanism)
		mechanism = cmp.Or(mechanism, "on")
		fmt.Fprintf(&b, "auth %s\nuser %s\npassword %s\n", mechanism, s.Login, s.Password)
	}
	config := writeFile(t, "msmtprc", []byte(b.String()))
	args := append([]string{"--file=" + config, "--debug", "--"}, s.To...)
	return run(t, bytes.ReplaceAll(s.Message, []byte("\r\n"), []byte("\n")), nil, path, args...)
}

// Gsasl logs in with the program of GNU SASL, and sends nothing.
func Gsasl(t testing.TB, s Submission) Output {
	t.Helper()
	host, port := s.split(t)
	return run(t, []byte("QUIT\r\n"), nil, Need(t, "gsasl"), "--client", "--smtp", "--connect="+host+":"+port,
		"--starttls", "--mechanism="+s.Mechanism, "--x509-ca-file="+s.CAFile, "--authentication-id="+s.Login,
		"--password="+s.Password, "--verbose")
}

// Curl sends with curl.
func Curl(t testing.TB, s Submission) Output {
	t.Helper()
	path := Need(t, "curl")
	scheme := "smtp"
	if s.TLS == Implicit {
		scheme = "smtps"
	}
	args := []string{"--silent", "--show-error", "--verbose", "--max-time", "30",
		"--url", scheme + "://" + s.Server + "/client.example.com", "--mail-from", s.From, "--upload-file", "-"}
	if s.TLS == StartTLS {
		args = append(args, "--ssl-reqd")
	}
	if s.TLS != Plain && s.CAFile != "" {
		args = append(args, "--cacert", s.CAFile)
	}
	for _, to := range s.To {
		args = append(args, "--mail-rcpt", to)
	}
	if s.Mechanism != "" {
		args = append(args, "--login-options", "AUTH="+s.Mechanism)
	}
	if s.Certificate.CertFile != "" {
		args = append(args, "--cert", s.Certificate.CertFile, "--key", s.Certificate.KeyFile, "--user", ":")
	}
	if s.Token != "" {
		args = append(args, "--config", writeFile(t, "curlrc", []byte(fmt.Sprintf("user = %q\noauth2-bearer = %q\n",
			s.Login, s.Token))))
	} else if s.Login != "" { // in a file: a process list shows arguments
		user := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s.Login + ":" + s.Password)
		args = append(args, "--config", writeFile(t, "curlrc", []byte(`user = "`+user+`"`+"\n")))
	}
	return run(t, s.Message, nil, path, args...)
}

const smtplibScript = `
import os, smtplib, ssl, sys
e = os.environ
host, port = e["KIT_HOST"], int(e["KIT_PORT"])
context = ssl.create_default_context(cafile=e["KIT_CA"] or None) if e["KIT_TLS"] != "none" else None
if e["KIT_TLS"] == "implicit":
    s = smtplib.SMTP_SSL(host, port, "client.example.com", timeout=30, context=context)
else:
    s = smtplib.SMTP(host, port, "client.example.com", timeout=30)
s.set_debuglevel(1)
if e["KIT_TLS"] == "starttls":
    s.starttls(context=context)
if e["KIT_LOGIN"]:
    if e["KIT_MECHANISM"]:
        s.ehlo()
        s.user, s.password = e["KIT_LOGIN"], e["KIT_PASSWORD"]
        s.auth(e["KIT_MECHANISM"], getattr(s, "auth_" + e["KIT_MECHANISM"].lower().replace("-", "_")))
    else:
        s.login(e["KIT_LOGIN"], e["KIT_PASSWORD"])
refused = s.sendmail(e["KIT_FROM"], e["KIT_TO"].split(","), sys.stdin.buffer.read())
s.quit()
if refused:
    sys.exit("refused: %r" % refused)
`

// Smtplib sends with Python's smtplib.
func Smtplib(t testing.TB, s Submission) Output {
	t.Helper()
	path := Need(t, "python3")
	host, port := s.split(t)
	env := append(os.Environ(), "KIT_HOST="+host, "KIT_PORT="+port, "KIT_TLS="+string(s.TLS), "KIT_CA="+s.CAFile,
		"KIT_LOGIN="+s.Login, "KIT_PASSWORD="+s.Password, "KIT_MECHANISM="+s.Mechanism,
		"KIT_FROM="+s.From, "KIT_TO="+strings.Join(s.To, ","))
	return run(t, s.Message, env, path, "-c", smtplibScript)
}

func (s Submission) split(t testing.TB) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Server)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// run runs a tool to its end. Only an exit status counts as the client's answer.
func run(t testing.TB, stdin []byte, env []string, path string, args ...string) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = env
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v %v\n%s", filepath.Base(path), err, ctx.Err(), out)
	}
	return Output{OK: err == nil, Text: string(out)}
}
