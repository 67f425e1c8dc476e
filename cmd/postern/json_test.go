package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/queue"
	"postern/relay/trace"
)

// silent are the commands whose output is for people alone: they run on, ask somebody, or say one sentence.
var silent = []string{
	"postern", "postern demo", "postern setup", "postern serve", "postern upstream login",
	"postern user remove", "postern user lock", "postern user unlock", "postern device remove",
	"postern dkim retire", "postern dkim remove",
	"postern console role", "postern console disable", "postern console enable", "postern console remove",
	"postern token revoke", "postern app-password revoke", "postern app-password forget",
	"postern help", "postern completion",
	"postern secret protect", "postern service install", "postern service remove", "postern service start",
	"postern service stop",
}

// Every command that shows something shows it to machines too. A new one has --json or stands above.
func TestListingsHaveJSON(t *testing.T) {
	t.Parallel()
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasSubCommands() || slices.Contains(silent, c.CommandPath()) {
			return
		}
		seen++
		if c.Flags().Lookup("json") == nil {
			t.Errorf("%s has no --json", c.CommandPath())
		}
	}
	walk(rootCommand())
	if seen < 20 {
		t.Errorf("only %d commands show something", seen)
	}
}

// Keys are in lower case with underscores, in whatever is printed.
func TestJSONKeys(t *testing.T) {
	l := newCommandLine(t)
	t.Setenv("HOOK", "http://127.0.0.1:1/hook")
	now := time.Now()
	from, to := mail.Address{Local: "anna", Domain: "example.com"}, mail.Address{Local: "bob", Domain: "example.net"}
	m := &queue.Message{ID: "waiting", Login: "anna", Listener: "submission", Envelope: mail.Envelope{From: from},
		Author: from, MessageID: "<1@example.com>",
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: to}, Status: queue.Pending, Upstream: "provider",
			Reply: mail.R(451, "4.7.1", "later")}},
		Received: now, Expires: now.Add(time.Hour), NextAttempt: now, Held: true, HoldReason: "by a person",
		LastReply: mail.R(451, "4.7.1", "later"), WaitingFor: "provider"}
	content := mail.BytesContent([]byte("Subject: x\r\n\r\ny\r\n"))
	m.Size = content.Size()
	if err := l.store.Add(t.Context(), queue.NewMessage{Message: m, Content: content}); err != nil {
		t.Fatal(err)
	}
	err := l.store.AppendEventsNow(t.Context(), []trace.Event{{Time: now, Kind: trace.Deferred, ID: "waiting",
		Session: "s", Listener: "submission", Client: "192.0.2.1",
		Login: "anna", From: "anna@example.com", Author: "anna@example.com", To: "bob@example.net",
		MessageID: "<1@example.com>", Size: 3, Upstream: "provider",
		Identity: "relay", Class: "deferral", Stage: "rcpt", Rule: "none", Reply: mail.R(451, "4.7.1",
			"later"), Detail: "busy", Attempt: 2, Took: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	err = l.store.LoginLockout().Save(t.Context(), now, auth.Unsaved{Locks: []auth.Lock{{Login: "scan",
		Until: now.Add(time.Hour), Failures: 11}}})
	if err != nil {
		t.Fatal(err)
	}
	table := l.file("table.csv", "login,senders\ncarl,carl@example.com\n")
	all := map[string]int{}
	for _, line := range []string{
		"user add anna --note x --sender anna@example.com --network 192.0.2.0/24 --group staff",
		"device add scan --sender scan@example.com",
		"user set anna --add-group night", "user password anna",
		"device set scan --note y", "device password scan", "user import " + table + " --dry-run", "user import " +
			table, "user list", "device list",
		"queue list", "queue show waiting", "queue release waiting", "queue retry waiting", "queue hold waiting",
		"queue bounce waiting", "queue delete waiting",
		"trace", "trace waiting", "dkim add example.com", "dkim list", "dkim dns", "upstream list", "upstream profiles",
		"upstream profiles gmail",
		"version", "alert test", "upstream judge 550-5.7.1-no",
	} {
		out, errs, err := l.run(append(strings.Fields(line), "--json")...)
		if err != nil && !strings.HasPrefix(line, "alert") && !strings.HasPrefix(line, "upstream judge") {
			t.Errorf("%s: %v\n%s%s", line, err, out, errs)
		}
		for _, key := range keysOf(t, line, out) {
			all[key]++
			if !snakeCase.MatchString(key) {
				t.Errorf("%s: the key %q", line, key)
			}
		}
	}
	for _, key := range []string{"login", "message_id", "enhanced", "record_name", "max_connections", "lock_reason",
		"dry_run", "took_ns"} {
		if all[key] == 0 {
			t.Errorf("nothing had the key %q: was everything printed?", key)
		}
	}
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// keysOf returns the names in one JSON value or more, at any depth.
func keysOf(t *testing.T, what, text string) (keys []string) {
	t.Helper()
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				keys = append(keys, key)
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			return keys
		}
		if err != nil {
			t.Errorf("%s: no JSON: %v\n%s", what, err, text)
			return keys
		}
		walk(v)
	}
}

func TestDKIMRecordsAsJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(config, []byte("hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[upstream]]\n"+
		"name = \"provider\"\nhost = \"smtp.example.net\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	postern := onConfig(config)
	for _, domain := range []string{"example.com", "example.org"} {
		if out, err := postern("dkim", "add", domain, "--selector", "s1", "--algorithm", "ed25519"); err != nil {
			t.Fatal(err, out)
		}
	}
	out, err := postern("dkim", "dns", "Example.COM", "--json")
	if err != nil {
		t.Fatal(err, out)
	}
	var records []struct {
		Name   string `json:"record_name"`
		Record string `json:"record"`
		Zone   string `json:"zone_line"`
	}
	if err := json.Unmarshal([]byte(out), &records); err != nil {
		t.Fatal(err)
	}
	if len(records) != 1 || records[0].Name != "s1._domainkey.example.com" || !strings.HasPrefix(records[0].Record,
		"v=DKIM1; k=ed25519; p=") ||
		!strings.Contains(records[0].Zone, "IN TXT") {
		t.Errorf("%+v", records)
	}
	if text, err := postern("dkim", "dns", "example.com"); err != nil || !strings.Contains(text, records[0].Record) ||
		!strings.Contains(text, records[0].Zone) {
		t.Errorf("%v: %s", err, text)
	}
	if out, err := postern("dkim", "dns", "example.net", "--json"); err == nil || strings.Contains(out, "[") {
		t.Errorf("no key is no error: %s", out)
	}
	if _, err := postern("dkim", "dns", "no domain"); err == nil || fmt.Sprintf("%T", err) != "*main.usageError" {
		t.Errorf("a wrong domain: %v", err)
	}
}

// What check finds is there for machines, too.
func TestCheckJSON(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "")
	var view checkView
	if err := json.Unmarshal([]byte(o.postern("", "check", "--json")), &view); err != nil || !view.OK ||
		len(view.Problems) != 0 || view.File != o.config {
		t.Errorf("%+v, %v", view, err)
	}
	o.edit("[[listener]]", "[[listener]]\nhandof = \"1s\"")
	out := testkit.Run(t, "", "check", "--json", "--config", o.config)
	view = checkView{}
	if err := json.Unmarshal([]byte(out.Text), &view); err != nil || out.OK || view.OK || len(view.Problems) != 1 ||
		view.Problems[0].Line == 0 || view.Problems[0].Key == "" {
		t.Errorf("%s: %+v, %v", out.Text, view, err)
	}
}
