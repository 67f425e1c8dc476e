package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Editors put byte order marks in front, or save UTF-16.
func TestByteOrderMarks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("secret", "\ufeffs3cret word\r\n")
	text := "hostname = \"relay.example.com\"\n[[upstream]]\nname = \"office\"\nhost = " +
		"\"smtp.example.net\"\nusername = \"a\"\npassword = \"file:secret\"\n"
	c, err := Load(write("relay.toml", "\ufeff"+text))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Upstreams[0].Password.Value(); got != "s3cret word" {
		t.Errorf("password %q", got)
	}
	t.Setenv("BOM_PASSWORD", "\ufeffs3cret word")
	c, err = Load(write("relay.toml", strings.Replace(text, "file:secret", "env:BOM_PASSWORD", 1)))
	if err != nil || c.Upstreams[0].Password.Value() != "s3cret word" {
		t.Errorf("%v", err)
	}
	wide := "\xff\xfe"
	for _, r := range text {
		wide += string([]byte{byte(r), 0})
	}
	if _, err := Load(write("relay.toml", wide)); err == nil || !strings.Contains(err.Error(), "save it as UTF-8") {
		t.Errorf("UTF-16: %v", err)
	}
	write("secret", wide)
	if _, err := Load(write("relay.toml", text)); err == nil || !strings.Contains(err.Error(), "save it as UTF-8") {
		t.Errorf("a secret in UTF-16: %v", err)
	}
}
