package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"postern/internal/textfile"
)

// loadEnv reads the file that the service has its environment from, so that commands find the secrets named env:NAME,
// too: the one of --env-file, or /etc/postern/env beside /etc/postern/relay.toml. Variables that are set already
// stay.
func (a *app) loadEnv(cmd *cobra.Command) error {
	path := a.envFile
	if path == "" {
		config, err := a.path()
		if err != nil || config != filepath.Join(a.etc, "relay.toml") {
			return nil
		}
		path = filepath.Join(a.etc, "env")
		if err := ownEnv(path); err != nil {
			return err
		}
	}
	text, err := textfile.Read(path)
	if a.envFile == "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
		return nil // it is root's, and most commands need no secret
	}
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	variables, ignored := parseEnv(string(text))
	for _, line := range ignored {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s:%d: this is no NAME=value, and ignored, as systemd does\n", path,
			line)
	}
	for _, v := range variables {
		if _, set := os.LookupEnv(v.name); set {
			continue
		}
		if err := os.Setenv(v.name, v.value); err != nil {
			return fmt.Errorf("%s: %s: %w", path, v.name, err)
		}
	}
	return nil
}

type envVariable struct{ name, value string }

// envParser reads an EnvironmentFile as systemd does (systemd.exec(5), parse_env_file in src/basic/env-file.c).
type envParser struct {
	text string
	at   int
	line int // of what is at
}

// parseEnv returns the variables of an EnvironmentFile, the last of each name, and the lines that are none.
func parseEnv(text string) (variables []envVariable, ignored []int) {
	p := &envParser{text: strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), line: 1}
	for p.at < len(p.text) {
		began := p.line
		line := strings.TrimLeft(p.rest(), " \t")
		switch {
		case line == "":
			p.at = len(p.text)
			continue
		case strings.ContainsRune("#;\n", rune(line[0])):
			p.skipLine()
			continue
		}
		name, ok := p.name()
		if !ok {
			ignored = append(ignored, began)
			p.skipLine()
			continue
		}
		value := p.value()
		if !validName(name) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			ignored = append(ignored, began)
			continue
		}
		variables = set(variables, envVariable{name, value})
	}
	return variables, ignored
}

func set(variables []envVariable, v envVariable) []envVariable {
	for i := range variables {
		if variables[i].name == v.name {
			variables[i] = v
			return variables
		}
	}
	return append(variables, v)
}

func (p *envParser) rest() string { return p.text[p.at:] }

func (p *envParser) next() byte {
	c := p.text[p.at]
	p.at++
	if c == '\n' {
		p.line++
	}
	return c
}

func (p *envParser) skipLine() {
	for p.at < len(p.text) && p.next() != '\n' {
	}
}

// name reads up to the equals sign of this line.
func (p *envParser) name() (string, bool) {
	line, _, _ := strings.Cut(p.rest(), "\n")
	name, _, found := strings.Cut(line, "=")
	if !found {
		return "", false
	}
	p.at += len(name) + 1
	return strings.Trim(name, " \t"), true
}

// value reads a value, which ends with its line: plain and quoted pieces one after the other, blanks around them not
// counted.
func (p *envParser) value() string {
	var b strings.Builder
	blanks := 0 // that end b and are plain
	plain := false
	for p.at < len(p.text) {
		c := p.next()
		switch {
		case c == '\n':
			return strip(b.String(), blanks)
		case c == '\\':
			plain, blanks = true, 0
			if p.at < len(p.text) {
				if escaped := p.next(); escaped != '\n' {
					b.WriteByte(escaped)
				}
			}
		case !plain && (c == '\'' || c == '"'):
			p.quoted(&b, c)
			blanks = 0
		case c == ' ' || c == '\t':
			if plain {
				b.WriteByte(c)
				blanks++
			}
		default:
			plain, blanks = true, 0
			b.WriteByte(c)
		}
	}
	return strip(b.String(), blanks)
}

func strip(s string, n int) string { return s[:len(s)-n] }

// quoted reads up to the closing quote. Within double quotes a backslash escapes what it would escape in a shell, and
// is itself before anything else.
func (p *envParser) quoted(b *strings.Builder, quote byte) {
	for p.at < len(p.text) {
		c := p.next()
		switch {
		case c == quote:
			return
		case c == '\\' && quote == '"' && p.at < len(p.text):
			escaped := p.next()
			switch {
			case strings.IndexByte("\"\\`$", escaped) >= 0:
				b.WriteByte(escaped)
			case escaped != '\n':
				b.WriteByte('\\')
				b.WriteByte(escaped)
			}
		default:
			b.WriteByte(c)
		}
	}
}

func validName(name string) bool {
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for _, c := range []byte(name) {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
