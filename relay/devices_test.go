package relay

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postern/auth"
	"postern/internal/testkit"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/trace"
)

var update = flag.Bool("update", false, "write what is forwarded now into the files of testdata/devices")

// applianceListener is a listener for old devices beside the rig's own.
const applianceListener = `[[listener]]
	name = "devices"
	address = "127.0.0.1:0"
	tls = "none"
	auth = "network"
	login = "scans@example.com"
	networks = ["127.0.0.0/8"]
	profile = "appliance"
	handoff = "1m"

	[[policy]]
	listeners = ["devices"]
	limits = []`

// deviceCase is a file of testdata/devices. It begins with a comment that says what sends so, then has:
//
//	the commands of the device up to RCPT
//	--- message      what comes after 354, as the device sends it; each line ends with CRLF unless it ends with \
//	--- changed      what log and trace say was changed, one sentence a line
//	--- forwarded    what the provider gets, without our trace fields and signature
//
// In the last two a generated date is DATE and a generated identifier is ID. \r, \n, \t, \\ and \xff are as in Go;
// \{N text} is a text N times.
type deviceCase struct {
	head, commands, message, changed, forwarded string
}

func readDevice(t *testing.T, path string) (c deviceCase) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	c.head, rest, _ = strings.Cut(rest, "--- message\n")
	c.message, rest, _ = strings.Cut(rest, "--- changed\n")
	c.changed, c.forwarded, _ = strings.Cut(rest, "--- forwarded\n")
	_, c.commands, _ = strings.Cut(c.head, "\n")
	return c
}

var repetition = regexp.MustCompile(`\\\{(\d+) ([^}]*)\}`)

// octets is what a line-based text of a case stands for.
func octets(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		open := strings.HasSuffix(line, `\`) && !strings.HasSuffix(line, `\\`)
		line = strings.TrimSuffix(line, `\`)
		line = repetition.ReplaceAllStringFunc(line, func(s string) string {
			m := repetition.FindStringSubmatch(s)
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			return strings.Repeat(m[2], n)
		})
		plain, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if b = append(b, plain...); !open {
			b = append(b, "\r\n"...)
		}
	}
	return b
}

// written is octets as a case writes them.
func written(b []byte) string {
	var out strings.Builder
	for line := range bytes.Lines(b) {
		text := strconv.Quote(strings.TrimSuffix(string(line), "\r\n"))
		text = strings.ReplaceAll(text[1:len(text)-1], `\"`, `"`)
		out.WriteString(runs.ReplaceAllStringFunc(text, func(s string) string {
			return fmt.Sprintf(`\{%d %s}`, len(s), s[:1])
		}))
		out.WriteString("\n")
	}
	return out.String()
}

// runs are letters that stand in a row often enough to be counted.
var runs = regexp.MustCompile(`x{20,}|A{20,}`)

// rawDevice speaks to the listener of devices, octet for octet.
type rawDevice struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (r *rig) device() *rawDevice {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Addresses()["devices"])
	if err != nil {
		r.t.Fatal(err)
	}
	d := &rawDevice{t: r.t, conn: conn, r: bufio.NewReader(conn)}
	d.expect("220")
	return d
}

func (d *rawDevice) expect(code string) string {
	d.t.Helper()
	for {
		line, err := d.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, code) {
			d.t.Fatalf("want %s, got %q, %v", code, line, err)
		}
		if line[3] == ' ' {
			return line
		}
	}
}

func (d *rawDevice) say(text, code string) string {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(text)); err != nil {
		d.t.Fatal(err)
	}
	return d.expect(code)
}

// submit sends a case and goes without QUIT.
func (d *rawDevice) submit(c deviceCase) {
	d.t.Helper()
	defer d.conn.Close()
	for command := range strings.Lines(c.commands) {
		d.say(strings.TrimSuffix(command, "\n")+"\r\n", "250")
	}
	d.say("DATA\r\n", "354")
	d.say(string(octets(d.t, c.message))+".\r\n", "250")
}

// TestOldDevices: what devices of many makers write is mended before it is signed, each repair is told, and what is
// forwarded is mail that everybody reads the same.
func TestOldDevices(t *testing.T) {
	files, err := filepath.Glob("testdata/devices/*.device")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d devices, %v", len(files), err)
	}
	p := newProvider(t)
	r := newRig(t, p, applianceListener)
	r.addUser(auth.User{Login: "scans@example.com"})
	records := r.addKey()
	for n, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".device")
		ok := t.Run(name, func(t *testing.T) {
			c := readDevice(t, file)
			d := r.device()
			d.t = t
			d.submit(c)
			got := p.wait(n + 1)[n].data
			if out := testkit.VerifyDKIM(t, []byte(got), records); !out.OK {
				t.Errorf("the signature does not hold: %s", out.Text)
			}
			checkReadable(t, got)
			changed, forwarded := r.accepted(n+1).changes(), written([]byte(plainForm(got, c.message)))
			if *update {
				text := c.head + "--- message\n" + c.message + "--- changed\n" + changed + "--- forwarded\n" + forwarded
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if changed != c.changed {
				t.Errorf("changed\n%swant\n%s", changed, c.changed)
			}
			if forwarded != c.forwarded {
				t.Errorf("forwarded\n%swant\n%s", forwarded, c.forwarded)
			}
		})
		if !ok && p.count() != n+1 {
			t.Fatal("the provider has not got what it should")
		}
	}
}

// acceptedEvent is the trace of a message that was taken.
type acceptedEvent trace.Event

// accepted returns the n-th.
func (r *rig) accepted(n int) (e acceptedEvent) {
	r.t.Helper()
	r.eventually("the trace of the message", func() bool {
		events := r.events(trace.Accepted)
		if len(events) == n {
			e = acceptedEvent(events[n-1])
		}
		return len(events) >= n
	})
	return e
}

func (e acceptedEvent) changes() string {
	_, all, found := strings.Cut(e.Detail, "; ")
	if !found {
		return ""
	}
	return strings.ReplaceAll(all, "; ", "\n") + "\n"
}

// checkReadable is what no reader behind us takes in two ways.
func checkReadable(t *testing.T, got string) {
	t.Helper()
	if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\n") {
		t.Error("a bare CR or LF is forwarded")
	}
	header, _, _ := strings.Cut(got, "\r\n\r\n")
	for line := range strings.SplitSeq(got, "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line of %d octets", len(line))
		}
	}
	if !mail.IsASCII(header) {
		t.Errorf("8-bit octets in the header:\n%s", header)
	}
	m, err := netmail.ReadMessage(strings.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"From", "Date", "Message-Id", "Mime-Version"} {
		if len(m.Header[name]) != 1 {
			t.Errorf("%d %s fields", len(m.Header[name]), name)
		}
	}
	from, err := m.Header.AddressList("From")
	if err != nil || len(from) != 1 || from[0].Address != "scans@example.com" ||
		strings.Contains(from[0].Name, "@partner.example") {
		t.Errorf("From %v, %v", from, err)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
}

var ourFields = regexp.MustCompile(`(?m)^(?:DKIM-Signature|Received):.*\r\n(?:[ \t].*\r\n)*`)

// plainForm is a forwarded message without what differs each time.
func plainForm(got, sent string) string {
	header, body, _ := strings.Cut(got, "\r\n\r\n")
	header = ourFields.ReplaceAllString(header+"\r\n", "")
	for field, stands := range map[string]string{"Date": "DATE", "Message-ID": "ID"} {
		line := regexp.MustCompile(`(?m)^` + field + `: (.*)\r\n`).FindStringSubmatch(header)
		if line != nil && (field == "Date" && !strings.Contains(line[1], "28 Nov 2026 09:00:01") ||
			strings.HasSuffix(line[1], "@relay.example.com>")) && !strings.Contains(sent, line[1]) {
			header = strings.Replace(header, line[0], field+": "+stands+"\r\n", 1)
		}
	}
	return header + "\r\n" + body
}

// smuggled are what careless servers take for the end of a message.
var smuggled = []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r.\n",
	"\r\n.\r\r\n", "\r\r\n.\r\r\n", "\n\r.\r\n", "\n..\n", "\r\n..\n", "\n..\r\n"}

// TestNothingIsSmuggledThroughDevices: behind whatever looks like an end stands text, here and at the provider, whose
// server reads lines as carelessly as any: what is taken arrives as one message, with its author.
func TestNothingIsSmuggledThroughDevices(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, applianceListener)
	r.addUser(auth.User{Login: "scans@example.com"})
	const second = "MAIL FROM:<ceo@example.com>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\nFrom: ceo@example.com\r\n\r\nx"
	taken := 0
	for _, end := range smuggled {
		d := r.device()
		for _, command := range []string{"EHLO x", "MAIL FROM:<scans@example.com>", "RCPT TO:<bob@example.net>"} {
			d.say(command+"\r\n", "250")
		}
		d.say("DATA\r\n", "354")
		message := "From: scans@example.com\r\n\r\na" + end + second + "\r\n.\r\nQUIT\r\n"
		if _, err := d.conn.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		reply, err := d.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if bye, err := d.r.ReadString('\n'); err != nil || !strings.HasPrefix(bye, "221 ") {
			t.Errorf("%q: after the message %q, %v: not the command that follows it", end, bye, err)
		}
		if d.conn.Close(); strings.HasPrefix(reply, "250 ") {
			taken++
			got := p.wait(taken)[taken-1]
			if got.from != "scans@example.com" ||
				!strings.Contains(got.data, "MAIL FROM:<ceo@example.com>\r\nRCPT TO") {
				t.Errorf("%q: from %s\n%s", end, got.from, got.data)
			}
		} else if !strings.HasPrefix(reply, "550 5.6.0 ") || !strings.Contains(reply, "smuggling") {
			t.Errorf("%q: %s", end, reply)
		}
	}
	if p.count() != taken || taken == 0 || taken == len(smuggled) {
		t.Errorf("%d messages arrived, %d were taken of %d", p.count(), taken, len(smuggled))
	}
}

// TestDevicesRefusedInWords: what cannot be mended is refused, with where it is and what to do.
func TestDevicesRefusedInWords(t *testing.T) {
	p := newProvider(t)
	r := newRig(t, p, applianceListener)
	r.addUser(auth.User{Login: "scans@example.com"})
	for message, want := range map[string]string{
		"From: scans@example.com\r\n\r\nx\x00y": `550 5.6.0 line 3 ("x\x00y") has a NUL octet; lines must be text, ` +
			`send other data as base64`,
		"\xff\xfeF\x00r\x00o\x00m\x00": "has a NUL octet",
	} {
		d := r.device()
		for _, command := range []string{"EHLO x", "MAIL FROM:<scans@example.com>", "RCPT TO:<bob@example.net>"} {
			d.say(command+"\r\n", "250")
		}
		d.say("DATA\r\n", "354")
		if reply := d.say(message+"\r\n.\r\n", "550"); !strings.Contains(reply, want) {
			t.Errorf("%q: %s", message, reply)
		}
		d.conn.Close()
	}
	if p.count() != 0 {
		t.Error("something was forwarded")
	}
}

// TestDeviceGuide: what the guide writes is what is taken.
func TestDeviceGuide(t *testing.T) {
	text, err := os.ReadFile("../docs/devices.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := tomlBlock.FindAllSubmatch(text, -1)
	if len(blocks) < 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	file := "hostname = \"relay.example.com\"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n"
	for _, b := range blocks {
		file += string(b[1])
	}
	path := filepath.Join(t.TempDir(), "relay.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings() {
		t.Error(w)
	}
}
