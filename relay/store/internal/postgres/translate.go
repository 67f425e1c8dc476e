package postgres

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Translate turns SQL in the dialect of SQLite, as the store writes it, into that of PostgreSQL:
//
//   - ? and ?1 are $1; INDEXED BY and NOT INDEXED are dropped, LIMIT -1 is LIMIT ALL, and user is "user"
//   - texts and blobs are bytea, literals as well, so that order and octets are the same; INTEGER is bigint and REAL
//     double precision; STRICT and WITHOUT ROWID are dropped
//   - max and min of several values are greatest and least; instr, lower (of ASCII, as in SQLite) and
//     strftime('%s', 'now') have their equals
//   - INSERT OR IGNORE is ON CONFLICT DO NOTHING; after DO UPDATE SET, names without a table are those of the row that
//     is there; a query after FROM has a name
//   - BEGIN reads one snapshot, and BEGIN IMMEDIATE is PostgreSQL's BEGIN
//
// Keywords are in upper case and names in lower case. What is PostgreSQL's own, such as $1::bigint, 'text'::text or
// E'text', stays. INSERT OR REPLACE and COLLATE NOCASE have no equal: PostgreSQL refuses them.
func Translate(query string) string {
	t := translator{in: lex(query)}
	for t.at < len(t.in) {
		t.one()
	}
	t.endStatement()
	return strings.Join(t.out, "")
}

// translator walks over tokens. What it writes are pieces, so that it can come back to one.
type translator struct {
	in     []token
	at     int
	out    []string
	params int // the largest number so far
	names  int // of queries after FROM
	stmt   statement
}

// statement is what is known of the one that is read.
type statement struct {
	first  string // keyword
	second string // keyword
	prev   string // token, without spaces
	last   int    // pieces up to the end of prev
	frames []frame
	into   string // table
	ignore bool   // INSERT OR IGNORE
	update bool   // after DO UPDATE SET
	target bool   // the next name is of a column to set
}

// frame is an open parenthesis.
type frame struct {
	call   string // function
	piece  int    // of its name
	open   int    // piece of the parenthesis
	commas []int  // pieces
	from   bool   // a query after FROM
	query  bool
}

func (t *translator) one() {
	tok := t.in[t.at]
	if tok.kind == space {
		t.out = append(t.out, tok.text)
		t.at++
		return
	}
	t.at++
	if t.stmt.first == "" && tok.kind == word {
		t.stmt.first = tok.text
	} else if t.stmt.second == "" && tok.kind == word {
		t.stmt.second = tok.text
	}
	switch tok.kind {
	case word:
		t.word(tok.text)
	case literal:
		t.emit(t.literal(tok.text))
	case blob:
		t.emit(octets(tok.text))
	case param:
		t.emit(t.param(tok.text))
	case punct:
		t.punct(tok.text)
	default:
		t.emit(tok.text)
	}
	t.stmt.prev = tok.text
}

func (t *translator) emit(text string) {
	if n := len(t.out); n > 0 && text != "" && joins(t.out[n-1], text) {
		t.out = append(t.out, " ")
	}
	t.out = append(t.out, text)
	t.stmt.last = len(t.out)
}

// joins reports whether two pieces become another token without a space. Those of the query do not, but what is written
// for one, or what stays when one is dropped, may.
func joins(a, b string) bool {
	if a == "" {
		return false
	}
	last, first := a[len(a)-1], b[0]
	return isName(last) && (isName(first) || first == '\'' || first == '"') || last == '-' && first == '-' ||
		last == '/' && first == '*'
}

// peek is the n-th next token that is no space, from 0.
func (t *translator) peek(n int) token {
	for i := t.at; i < len(t.in); i++ {
		if t.in[i].kind == space {
			continue
		}
		if n == 0 {
			return t.in[i]
		}
		n--
	}
	return token{}
}

// drop passes over so many tokens with what is between them, but for comments, and the blank after them.
func (t *translator) drop(n int) {
	for ; n > 0 && t.at < len(t.in); t.at++ {
		switch tok := t.in[t.at]; {
		case tok.kind != space:
			n--
		case isComment(tok.text):
			t.out = append(t.out, tok.text)
		}
	}
	if t.at < len(t.in) && t.in[t.at].text == " " {
		t.at++
	}
}

func isComment(s string) bool { return strings.HasPrefix(s, "--") || strings.HasPrefix(s, "/*") }

func (t *translator) top() *frame {
	if n := len(t.stmt.frames); n > 0 {
		return &t.stmt.frames[n-1]
	}
	return &frame{}
}

var types = map[string]string{"TEXT": "bytea", "BLOB": "bytea", "INTEGER": "bigint", "REAL": "double precision"}

func (t *translator) word(w string) {
	s, next := &t.stmt, t.peek(0).text
	switch {
	case w == "INDEXED" && next == "BY":
		t.drop(2)
	case w == "NOT" && next == "INDEXED":
		t.drop(1)
	case w == "OR" && next == "IGNORE" && s.prev == "INSERT":
		t.drop(1)
		s.ignore = true
	case w == "LIMIT" && next == "-" && t.peek(1).text == "1":
		t.emit("LIMIT ALL")
		t.drop(2)
		if n := t.peek(0); n.text != "" && n.kind != punct {
			t.out = append(t.out, " ")
		}
	case w == "BEGIN" && s.first == w && s.second == "":
		t.begin(next)
	case types[w] != "" && (s.first == "CREATE" || s.first == "ALTER" || t.top().call == "CAST" && s.prev == "AS"):
		t.emit(types[w])
	case s.first == "CREATE" && s.second == "TABLE" && len(s.frames) == 0 && w == "STRICT":
	case s.first == "CREATE" && len(s.frames) == 0 && w == "WITHOUT" && next == "ROWID":
		t.drop(1)
	case w == "RETURNING" && len(s.frames) == 0:
		t.conflict()
		s.update = false
		t.emit(w)
	case w == "SET" && s.prev == "UPDATE" && s.into != "":
		s.update, s.target = true, true
		t.emit(w)
	default:
		t.name(w, next)
	}
	if s.prev == "INTO" && s.first == "INSERT" && s.into == "" {
		s.into = name(w)
	}
}

// begin is of a transaction: what SQLite reads within one is one snapshot.
func (t *translator) begin(next string) {
	switch next {
	case "IMMEDIATE", "EXCLUSIVE":
		t.emit("BEGIN")
		t.drop(1)
	case "", ";":
		t.emit("BEGIN ISOLATION LEVEL REPEATABLE READ")
	default:
		t.emit("BEGIN")
	}
}

func name(w string) string {
	if w == "user" {
		return `"user"`
	}
	return w
}

// name writes a name or a keyword. PostgreSQL takes a name after DO UPDATE SET for that of two rows.
func (t *translator) name(w, next string) {
	s := &t.stmt
	plain := w != strings.ToUpper(w) && next != "(" && next != "." && s.prev != "." && s.prev != ":" &&
		w != "true" && w != "false" && w != "null"
	if !s.update || s.target || !plain || t.inQuery() || s.prev == "AS" {
		t.emit(name(w))
		return
	}
	t.emit(s.into + "." + name(w))
}

func (t *translator) inQuery() bool {
	for _, f := range t.stmt.frames {
		if f.query {
			return true
		}
	}
	return false
}

func (t *translator) punct(c string) {
	s := &t.stmt
	switch c {
	case "(":
		f := frame{piece: -1, open: len(t.out)}
		if t.at >= 2 && t.in[t.at-2].kind == word { // the name and its parenthesis are neighbours
			f.call, f.piece = s.prev, s.last-1
		}
		next := t.peek(0).text
		f.query = next == "SELECT" || next == "WITH" || next == "VALUES"
		f.from = f.query && (s.prev == "FROM" || s.prev == "JOIN")
		t.emit(c)
		s.frames = append(s.frames, f)
	case ")":
		t.close()
	case ",":
		if n := len(s.frames); n > 0 {
			s.frames[n-1].commas = append(s.frames[n-1].commas, len(t.out))
		} else if s.first == "CREATE" && s.second == "TABLE" { // between STRICT and WITHOUT ROWID
			return
		} else if s.update {
			s.target = true
		}
		t.emit(c)
	case "=":
		if len(s.frames) == 0 {
			s.target = false
		}
		t.emit(c)
	case ";":
		if len(s.frames) == 0 {
			t.endStatement()
		}
		t.out = append(t.out, c)
	default:
		t.emit(c)
	}
}

const upper, lower = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "'abcdefghijklmnopqrstuvwxyz'"

func (t *translator) close() {
	s := &t.stmt
	n := len(s.frames)
	if n == 0 {
		t.emit(")")
		return
	}
	f := s.frames[n-1]
	s.frames = s.frames[:n-1]
	args := t.out[f.open+1:]
	switch {
	case f.call == "max" && len(f.commas) > 0:
		t.out[f.piece] = "greatest"
	case f.call == "min" && len(f.commas) > 0:
		t.out[f.piece] = "least"
	case f.call == "lower" && len(f.commas) == 0: // octets of any encoding
		t.out[f.piece] = "decode(translate(encode"
		t.out = append(t.out, ", 'escape'), ", upper, ", ", lower, "), 'escape'")
	case f.call == "instr" && len(f.commas) == 1:
		in, of := strings.Join(t.out[f.open+1:f.commas[0]], ""), strings.Join(t.out[f.commas[0]+1:], "")
		of = strings.TrimLeft(of, " ")
		t.out = append(t.out[:f.piece], "position", "(", "("+line(of)+") IN ("+line(in)+")")
	case f.call == "strftime" && strings.Join(args, "") == "'%s'::bytea, 'now'::bytea":
		t.out = append(t.out[:f.piece], "floor", "(", "extract(epoch FROM now())")
	}
	t.emit(")")
	next := t.peek(0)
	if f.from && next.text != "AS" && (next.kind != word || next.text == strings.ToUpper(next.text)) {
		t.names++
		t.emit(fmt.Sprintf(" AS query_%d", t.names))
	}
}

// line makes sure that a comment up to the end of its line hides nothing that follows.
func line(s string) string {
	if strings.Contains(s, "--") {
		return s + "\n"
	}
	return s
}

// conflict completes INSERT OR IGNORE.
func (t *translator) conflict() {
	if !t.stmt.ignore {
		return
	}
	t.stmt.ignore = false
	rest := append([]string{" ON CONFLICT DO NOTHING"}, t.out[t.stmt.last:]...)
	t.out = append(t.out[:t.stmt.last], rest...)
}

func (t *translator) endStatement() {
	t.conflict()
	t.stmt = statement{}
}

func (t *translator) param(text string) string {
	n, err := strconv.Atoi(text[1:])
	switch {
	case text == "?":
		n = t.params + 1
	case err != nil || n < 1 || n > 1<<16-1:
		return text
	}
	t.params = max(t.params, n)
	return "$" + strconv.Itoa(n)
}

// literal is of type bytea, unless the statement says what it is.
func (t *translator) literal(text string) string {
	if t.peek(0).text == ":" && t.peek(1).text == ":" || !closed(text) {
		return text
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '\\' {
			value := strings.ReplaceAll(text[1:len(text)-1], "''", "'")
			return `'\x` + hex.EncodeToString([]byte(value)) + "'::bytea"
		}
	}
	return text + "::bytea"
}

// closed reports whether a literal has an end. A quote within is two.
func closed(text string) bool { return strings.Count(text, "'")%2 == 0 }

// octets is the literal x'…' in PostgreSQL, where that is a bit string.
func octets(text string) string {
	if b, err := hex.DecodeString(strings.Trim(text[1:], "'")); err == nil && closed(text) {
		return `'\x` + hex.EncodeToString(b) + "'::bytea"
	}
	return text
}
