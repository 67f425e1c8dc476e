package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"postern/relay/config"
)

// hostile is what outsiders write to forge a line, to steer a terminal, or to turn text around.
var hostile = []string{"x\nlevel=ERROR msg=forged", "x\r\n{\"msg\":\"forged\"}", "\x1b[2J\x1b[31mred\x1b]0;title\x07",
	"\u009b2J", "\u202egnp.exe\u202c", "\u2066x\u2069", "a\u2028b\u2029c\u0085d", "\x00\x7f\xff\xc3", "\ufeffx\u200b",
	`quote" back\slash = equals`, "\U000e0041tag", strings.Repeat("\u202e", 5000)}

// visible reports what a line of a log must not have: nil is nothing.
func visible(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("it is not UTF-8")
	}
	for _, r := range line {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("it has %U", r)
		}
	}
	return nil
}

// TestLogLinesCannotBeForged: whatever stands in a message, a key or a value of any kind, is one line that is visible
// as it is, and says the same.
func TestLogLinesCannotBeForged(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		for _, text := range hostile {
			for what, log := range map[string]func(*slog.Logger){
				"message": func(l *slog.Logger) { l.Info(text) },
				"string":  func(l *slog.Logger) { l.Info("m", "k", text) },
				"key":     func(l *slog.Logger) { l.Info("m", text, 1) },
				"error":   func(l *slog.Logger) { l.Info("m", "err", fmt.Errorf("it: %w", errors.New(text))) },
				"octets":  func(l *slog.Logger) { l.Info("m", "k", []byte(text)) },
				"list":    func(l *slog.Logger) { l.Info("m", "k", []string{text, text}) },
				"struct":  func(l *slog.Logger) { l.Info("m", "k", struct{ Name string }{text}) },
				"map":     func(l *slog.Logger) { l.Info("m", "k", map[string]string{text: text}) },
				"group": func(l *slog.Logger) {
					l.WithGroup(text).With("k", text).Info("m", slog.Group("g", "k", text))
				},
			} {
				var b bytes.Buffer
				log(newLogger(&b, config.Log{Format: format, Level: "info"}))
				line, rest, _ := strings.Cut(b.String(), "\n")
				if err := visible(line); err != nil || rest != "" {
					t.Errorf("%s, %s %q: %v, behind it %q: %q", format, what, text, err, rest, line)
				}
				if format != "json" {
					continue
				}
				var got map[string]any
				if err := json.Unmarshal([]byte(line), &got); err != nil {
					t.Errorf("%s %q: %v", what, text, err)
				}
				if what == "string" && got["k"] != strings.ToValidUTF8(text, "\ufffd") && utf8.ValidString(text) {
					t.Errorf("%q became %q", text, got["k"])
				}
			}
		}
	}
}

// TestOneLogger: nothing in the product writes a log past newLogger.
func TestOneLogger(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			path == filepath.Join("..", "..", "cmd", "postern", "logger.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, call := range []string{"slog.NewTextHandler(", "slog.NewJSONHandler("} {
			for _, rest := range strings.Split(string(b), call)[1:] {
				if !strings.HasPrefix(rest, "io.Discard") {
					t.Errorf("%s makes a handler of its own", path)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHostileFieldsInTheLog says hostile things wherever a client can, and looks at all lines of the daemon's log.
func TestHostileFieldsInTheLog(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		o := newOffice(t, "\n[log]\nformat = \""+format+"\"\nlevel = \"debug\"\n")
		o.postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
		p := o.serve()
		for _, text := range hostile[:len(hostile)-1] {
			line := strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(text) // what ends a command
			sayHostile(o, line, text)
		}
		p.Stop()
		n := 0
		for line := range strings.Lines(p.Log()) {
			line = strings.TrimSuffix(line, "\n")
			n++
			if err := visible(line); err != nil {
				t.Errorf("%s: %v: %q", format, err, line)
			}
			if format == "json" && !json.Valid([]byte(line)) || format == "text" && !strings.HasPrefix(line, "time=") {
				t.Errorf("%s: this is no line of ours: %q", format, line)
			}
		}
		if n < 4*len(hostile) {
			t.Errorf("%s: the log has %d lines only", format, n)
		}
	}
}

// sayHostile says a text in each field of a session and of a message.
func sayHostile(o *office, line, text string) {
	for _, before := range [][]string{
		{"EHLO " + line}, {"HELO " + line}, {line}, {"EHLO x", "MAIL FROM:<" + line + "@example.com> SMTPUTF8"},
		{"EHLO x", "AUTH PLAIN " + plainResponse("l"+text, "p"+text)}, {"EHLO x", "AUTH " + line},
	} {
		d := o.dial()
		for _, command := range before {
			d.print(command + "\r\n")
		}
		d.print("QUIT\r\n")
		_, _ = d.text.R.WriteTo(new(bytes.Buffer)) // until the server closes
		d.text.Close()
	}
	d := o.dial()
	d.cmd(250, "EHLO client.example.com")
	d.cmd(235, "AUTH PLAIN %s", plainResponse("anna@example.com", "a chosen password"))
	for _, command := range []string{"MAIL FROM:<anna@example.com> SMTPUTF8 ENVID=" + line,
		"MAIL FROM:<anna@example.com>", "RCPT TO:<" + line + "@example.net>", "RCPT TO:<bob@example.net>", "DATA"} {
		d.print(command + "\r\n")
	}
	d.print("From: anna@example.com\r\nTo: bob@example.net\r\nSubject: " + line + "\r\nMessage-ID: <" + line +
		"@x>\r\nX-Mailer: " + line + "\r\n\r\nhello\r\n.\r\nQUIT\r\n")
	_, _ = d.text.R.WriteTo(new(bytes.Buffer))
	d.text.Close()
}
