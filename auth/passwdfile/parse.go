package passwdfile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"postern/auth"
	"postern/auth/internal/fields"
	"postern/mail"
)

const (
	maxLine    = 8192    // octets
	maxEntries = 100_000 // logins
)

// LineError is a line that is not understood.
type LineError struct {
	Path string
	Line int    // from one
	Msg  string // what is wrong and what to write; never a hash or a password
}

// Error returns "path:line: message".
func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Msg) }

// entry is one login of a file.
type entry struct {
	identity auth.Identity
	hash     auth.Secret // without the name of its scheme; "": no password is right
	verify   func(password string) bool
	locked   string // why; "": it is not
}

// parse reads a file. The error is a *LineError without a path.
func parse(data []byte) (*table, error) {
	t := &table{entries: map[string]*entry{}}
	lines := map[string]int{}
	n := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		n++
		text := strings.TrimSuffix(string(line), "\r")
		if strings.TrimSpace(text) == "" || text[0] == '#' {
			continue
		}
		e, err := parseLine(text)
		if err != nil {
			return nil, &LineError{Line: n, Msg: err.Error()}
		}
		login := e.identity.Login
		if first, twice := lines[login]; twice {
			return nil, &LineError{Line: n, Msg: fmt.Sprintf("the login %q stands in line %d too (capitals do not "+
				"count), remove one", login, first)}
		}
		if len(lines) == maxEntries {
			return nil, &LineError{Line: n, Msg: fmt.Sprintf("more than %d logins; keep them in a directory, which "+
				"an ldap source asks", maxEntries)}
		}
		lines[login], t.entries[login] = n, e
		if e.hash != "" {
			t.list = append(t.list, e)
		}
		if k := e.scramKeys(); !k.IsZero() {
			shape := auth.ScramShape{Iterations: k.Iterations, Salt: len(k.Salt)}
			if !slices.Contains(t.shapes, shape) {
				t.shapes = append(t.shapes, shape)
			}
		}
	}
	return t, nil
}

// parseLine reads login:hash, or a line of a passwd-file: user:password:uid:gid:gecos:home:shell:extra fields.
func parseLine(line string) (*entry, error) {
	if len(line) > maxLine {
		return nil, fmt.Errorf("longer than %d octets", maxLine)
	}
	parts := strings.SplitN(line, ":", 8)
	if len(parts) < 2 {
		return nil, fmt.Errorf("there is no colon in it, write login:hash")
	}
	login, ok := auth.NormalizeLogin(parts[0])
	if !ok {
		return nil, fmt.Errorf("the login before the colon is empty, longer than %d octets or not printable",
			auth.MaxLength)
	}
	e := &entry{identity: auth.Identity{Login: login}}
	if err := e.setPassword(parts[1]); err != nil {
		return nil, fmt.Errorf("login %q: %w", login, err)
	}
	if len(parts) == 8 {
		if err := e.setExtra(parts[7]); err != nil {
			return nil, fmt.Errorf("login %q: %w", login, err)
		}
	}
	return e, nil
}

// setPassword reads the second field. "!" or "*" in front lock the login, as in shadow(5).
func (e *entry) setPassword(field string) error {
	if rest := strings.TrimLeft(field, "!*"); rest != field {
		e.locked = `its password begins with "!" or "*" in the file`
		if field = rest; field == "" {
			return nil
		}
	}
	hash, verify, err := parseHash(field)
	if err != nil {
		return err
	}
	e.hash, e.verify = hash, verify
	return nil
}

// setExtra reads the extra fields of Dovecot's that mean something here, and ours. Those of a userdb have userdb_ in
// front.
func (e *entry) setExtra(text string) error {
	for _, field := range strings.Fields(text) {
		key, value, _ := strings.Cut(field, "=")
		var err error
		switch strings.TrimPrefix(key, "userdb_") {
		case "nologin":
			if value != "no" && value != "n" {
				e.locked = "it has nologin in the file"
			}
		case "allow_nets":
			e.identity.Networks, err = listOf(value, fields.Networks)
		case "postern_groups":
			e.identity.Groups, err = listOf(value, checked(fields.Groups))
		case "postern_senders":
			e.identity.Senders, err = listOf(value, checked(fields.Senders))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", mail.Printable(mail.Cut(key, 64)), err)
		}
	}
	return nil
}

// listOf reads a list with commas.
func listOf[T any](value string, read func([]string) ([]T, error)) ([]T, error) {
	list, err := fields.Split(value)
	if err != nil {
		return nil, err
	}
	return read(list)
}

func checked(check func([]string) error) func([]string) ([]string, error) {
	return func(list []string) ([]string, error) { return list, check(list) }
}
