package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	day := 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "0d": 0, "5s": 5 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
		"2d": 2 * day, "1w": 7 * day, "1w2d3h": 9*day + 3*time.Hour, "36500d": 36500 * day, "1.5h": 90 * time.Minute,
	} {
		got, err := ParseDuration(text)
		if err != nil || got.Std() != want {
			t.Errorf("%q is %v (%v), want %v", text, got.Std(), err, want)
		}
	}
	for _, text := range []string{"", "5", "-5s", "+5s", "1d-5s", "1d+5s", "d", "5 s", "2d1w", "5m1d", "1.5d", "1d1d",
		"36501d", "2200000h", "99999999999999999999d", "1e3s", "٣s"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", day: "1d", 90 * time.Minute: "1h30m", 4 * time.Hour: "4h",
		26 * time.Hour: "1d2h", time.Minute + time.Second: "1m1s", 10 * time.Hour: "10h", 20 * time.Minute: "20m"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is shown as %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "10B": 10, "1KB": 1000, "1kB": 1000, "1KiB": 1024, "35MB": 35e6, "35MiB": 35 << 20,
		"1.5GB": 15e8,
		"2GiB":  2 << 30, "0.5KiB": 512, "1TB": 1e12, "9223372036854775807": math.MaxInt64, "1.000B": 1, "0.25KiB": 256,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1MB", "+1MB", "35 MB", "35Mb", "35mb", "35M", "1.B", ".5MB", "1.5B",
		"0.3KiB", "0." + strings.Repeat("0", 99) + "MB", "1.2.3MB", "1e3", "9223372036854775808", "9223372036854776KB",
		"10000000TB", "1,5MB", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	for z, want := range map[Size]string{0: "0B", 999: "999B", 1000: "1KB", 1024: "1KiB", 35e6: "35MB", 10e9: "10GB",
		1 << 30: "1GiB"} {
		if got := z.String(); got != want {
			t.Errorf("%d is shown as %q, want %q", int64(z), got, want)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{"0/s": 0, "1KB/s": 1000, "1KiB/s": 1024} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "/s", "1KB", "1KB/m", "1KB/s/s", "KB/s"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

func TestNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.0/24": "192.0.2.0/24", "2001:db8::1": "2001:db8::1/128",
		"2001:db8::/32":    "2001:db8::/32",
		"::ffff:192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.0/120": "192.0.2.0/24", "::ffff:0:0/96": "0.0.0.0/0",
	} {
		if got, err := ParseNetwork(text); err != nil || got.String() != want {
			t.Errorf("%q is %v (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "lan", "192.0.2.7/24", "192.0.2.0/33", "192.0.2", "fe80::1%eth0",
		"::ffff:192.0.2.0/24", "192.0.2.0-192.0.2.9"} {
		if got, err := ParseNetwork(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestMayDialPlain(t *testing.T) {
	n, _ := ParseNetwork("10.0.0.0/24")
	u := Upstream{Networks: Networks{n}}
	for text, want := range map[string]bool{"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "10.0.0.9": true,
		"::ffff:10.0.0.9": true, "10.0.1.9": false, "192.0.2.1": false} {
		if got := u.MayDialPlain(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	const password = "hunter2"
	s := Secret{&secretText{ref: password, value: password}}
	holder := struct {
		Name   string
		Secret Secret
		List   []Secret
		Map    map[string]Secret
		Ptr    *Secret
	}{"n", s, []Secret{s}, map[string]Secret{"k": s}, &s}
	var log strings.Builder
	handlers := []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)}
	for _, h := range handlers {
		slog.New(h).Info("m", "secret", s, "holder", holder, "pointer", &s, slog.Group("g", "s", s))
	}
	out := []string{log.String(), s.String(), s.GoString(), s.LogValue().String(), fmt.Sprint(s, &s, holder, &holder)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t", "%U", "%p", "%10s"} {
		out = append(out, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, []Secret{s}))
	}
	j, err := json.Marshal(holder)
	text, err2 := s.MarshalText()
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	out = append(out, string(j), string(text), fmt.Sprint(fmt.Errorf("login: %v", s)))
	for _, o := range out {
		for _, shape := range []string{password, "hunter", fmt.Sprintf("%x", password), fmt.Sprintf("%X", password),
			fmt.Sprint([]byte(password))} {
			if strings.Contains(o, shape) {
				t.Errorf("shown in %q", o)
			}
		}
	}
	if s.Value() != password || !s.IsSet() || (Secret{}).IsSet() {
		t.Error("the value is lost")
	}
}

func TestSecretSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		writeMode(t, path, content, mode)
		return path
	}
	write("unix", "one\n", 0o600)
	write("windows", "two\r\n", 0o640)
	absolutePath := write("spaces", " three ", 0o400)
	write("big", strings.Repeat("x", maxSecret+1), 0o600)
	t.Setenv("POSTERN_TEST", "four")
	for ref, want := range map[string]string{
		"five": "five", "env:POSTERN_TEST": "four", "file:unix": "one", "file:windows": "two", "file:" +
			absolutePath: " three ",
		"file:big": "", "env:POSTERN_TEST ": "", "file:unix/x": "", "a\nb": "", "a\x00": "",
	} {
		s := Secret{&secretText{ref: ref}}
		err := s.resolve(dir, "password")
		if (err != nil) != (want == "") || s.Value() != want {
			t.Errorf("%q is %q (%v), want %q", ref, s.Value(), err, want)
		}
	}
}
