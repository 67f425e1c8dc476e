package operate

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postern/auth"
	"postern/internal/suggest"
	"postern/internal/textfile"
	"postern/mail"
)

// importColumns are what a table of accounts may have.
var importColumns = []string{"login", "password", "senders", "networks", "groups", "note", "kind"}

// importRow is one account of a table.
type importRow struct {
	line       int
	user       auth.User
	password   string          // "" is none
	has        map[string]bool // columns of the table
	credential *credential     // nil: the password stays
}

// apply makes an account of the row, or changes one to it.
func (r *importRow) apply(u *auth.User, exists bool, now time.Time) {
	if r.has["senders"] {
		u.Senders = r.user.Senders
	}
	if r.has["networks"] {
		u.Networks = r.user.Networks
	}
	if r.has["groups"] {
		u.Groups = r.user.Groups
	}
	if r.has["note"] {
		u.Note = r.user.Note
	}
	if r.has["kind"] {
		u.Device = r.user.Device
	}
	if r.credential != nil {
		r.credential.set(u, now)
	}
	if !exists {
		u.Created = now
		return
	}
	u.Edited = now
}

// maxRows bounds a table: all its accounts are written in one transaction.
const maxRows = 100_000

// parseAccounts reads a table of accounts and finds everything that is wrong with it.
func parseAccounts(data []byte) (rows []importRow, problems tableProblems) {
	data, err := textfile.Text(data)
	if err != nil {
		problems.add(1, "the file %v", err)
		return nil, problems
	}
	if at := invalidUTF8(data); at >= 0 {
		line := 1 + bytes.Count(data[:at], []byte("\n"))
		problems.add(line, `a letter is not UTF-8: save the table as "CSV UTF-8", or choose the character set UTF-8`)
		return nil, problems
	}
	r, skipped := newTableReader(data)
	columns := map[string]int{}
	lines := map[string]int{}
	for header := true; ; {
		cells, err := r.Read()
		if err == io.EOF {
			break
		}
		if parse, ok := errors.AsType[*csv.ParseError](err); ok {
			problems.add(parse.Line+skipped, "this is no CSV: %v", parse.Err)
			return nil, problems
		}
		line, _ := r.FieldPos(0)
		line += skipped
		switch {
		case strings.TrimSpace(strings.Join(cells, "")) == "": // what Excel leaves of a deleted row
		case header:
			header = false
			if columns = parseHeader(cells, line, &problems); len(problems.lines) > 0 {
				return nil, problems
			}
		case len(rows) == maxRows:
			problems.add(line, "there are more than %d accounts: import them in parts", maxRows)
			return nil, problems
		default:
			row := parseRow(cells, columns, line, &problems)
			if first := lines[row.user.Login]; first > 0 && row.user.Login != "" {
				problems.add(line, "login %s is in line %d already", row.user.Login, first)
			}
			lines[row.user.Login] = line
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		problems.add(1, "there are no accounts in it: the first line names the columns, each further one is an account")
	}
	return rows, problems
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// newTableReader finds out what separates cells: Excel writes semicolons where the comma is a decimal point, and
// sometimes says so in a line of its own, which is skipped.
func newTableReader(data []byte) (r *csv.Reader, skipped int) {
	separator := rune(0)
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	sep, ok := bytes.CutPrefix(bytes.TrimRight(first, "\r"), []byte("sep="))
	if ok && len(sep) == 1 && bytes.ContainsAny(sep, ",;\t|") {
		separator, data, skipped = rune(sep[0]), rest, 1
	}
	if separator == 0 {
		separator = ','
		head, _, _ := bytes.Cut(bytes.TrimLeft(data, "\r\n"), []byte("\n"))
		for _, s := range []string{";", "\t"} {
			if bytes.Count(head, []byte(s)) > bytes.Count(head, []byte(string(separator))) {
				separator = rune(s[0])
			}
		}
	}
	r = csv.NewReader(bytes.NewReader(data))
	r.Comma, r.FieldsPerRecord = separator, -1
	return r, skipped
}

// parseHeader returns which column is where.
func parseHeader(cells []string, line int, problems *tableProblems) map[string]int {
	columns := map[string]int{}
	var unknown []string
	for i, cell := range cells {
		name := strings.ToLower(strings.TrimSpace(cell))
		_, twice := columns[name]
		switch {
		case name == "":
		case twice:
			problems.add(line, "the column %s is there twice", name)
		case slices.Contains(importColumns, name):
			columns[name] = i
		case slices.Contains(importColumns, name+"s"): // sender, network, group
			columns[name+"s"] = i
		default:
			unknown = append(unknown, name)
		}
	}
	known := strings.Join(importColumns, ", ")
	if _, ok := columns["login"]; !ok && suggest.Nearest("login", unknown) == "" {
		problems.add(line, "the first line does not name a column login; there are %s", known)
		return columns
	}
	for _, name := range unknown {
		near := suggest.Question(name, importColumns)
		problems.add(line, "there is no column %q%s; there are %s", mail.Printable(mail.Cut(name, 60)), near, known)
	}
	return columns
}

func parseRow(cells []string, columns map[string]int, line int, problems *tableProblems) importRow {
	row := importRow{line: line, has: map[string]bool{}}
	cell := func(name string) string {
		i, ok := columns[name]
		row.has[name] = ok
		if !ok || i >= len(cells) {
			return ""
		}
		return cells[i]
	}
	fail := func(column string, err error) {
		if err != nil {
			problems.add(line, "%s: %v", column, err)
		}
	}
	if at := stray(cells, columns); at > 0 {
		problems.add(line, "cell %d belongs to no column: is a text with a separator not in quotes?", at)
	}
	var err error
	row.user.Login, err = auth.CheckLogin(strings.TrimSpace(cell("login")))
	fail("login", err)
	if row.password = cell("password"); row.password != "" {
		fail("password", auth.CheckPassword(auth.Prepare(row.password)))
		if len(row.password) > auth.MaxLength {
			fail("password", errors.New("it is longer than a client may send"))
		}
	}
	row.user.Senders, err = checkedSenders(values(cell("senders")))
	fail("senders", err)
	row.user.Networks, err = ParseNetworks(values(cell("networks")))
	fail("networks", err)
	row.user.Groups, err = checkedGroups(values(cell("groups")))
	fail("groups", err)
	row.user.Note = mail.Printable(strings.TrimSpace(cell("note")))
	fail("note", checkNote(row.user.Note))
	switch kind := strings.ToLower(strings.TrimSpace(cell("kind"))); kind {
	case "", "user":
	case "device":
		row.user.Device = true
	default:
		fail("kind", errors.New(`write user or device`))
	}
	return row
}

// stray is the number of a cell that belongs to no column, or 0.
func stray(cells []string, columns map[string]int) int {
	known := map[int]bool{}
	for _, at := range columns {
		known[at] = true
	}
	for i, c := range cells {
		if strings.TrimSpace(c) != "" && !known[i] {
			return i + 1
		}
	}
	return 0
}

// values splits a cell that holds a list.
func values(cell string) []string {
	return strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune(" \t\r\n,;|\u00a0", r) })
}
