package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"postern/internal/places"
	"postern/internal/suggest"
)

// document is the text of a relay.toml while it becomes a Config. go-toml's own decoder stops at the
// first wrong value and forgets where the right ones stood; this one walks go-toml's syntax tree, so
// that every problem is found at once and every key keeps its line for the checks that come later.
type document struct {
	file   string
	lines  map[string]int // key, as in Problem.Key, to its line
	parsed bool           // the text is TOML
	list
	newlines []int // offsets
}

// decode fills root from data and notes what is wrong. It returns false when the text is not TOML.
func (d *document) decode(data []byte, root reflect.Value) bool {
	for i, c := range data {
		if c == '\n' {
			d.newlines = append(d.newlines, i)
		}
	}
	if d.parsed = d.wellFormed(data); !d.parsed {
		return false
	}
	var parser unstable.Parser
	parser.Reset(data)
	table, path := root, ""
	for parser.NextExpression() {
		switch e := parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, path = d.enter(root, e)
		case unstable.KeyValue:
			d.keyValue(table, path, e)
		}
	}
	return true
}

// wellFormed lets go-toml check syntax, duplicate keys and tables defined twice.
func (d *document) wellFormed(data []byte) bool {
	var tree map[string]any
	err := toml.Unmarshal(data, &tree)
	if err == nil {
		return true
	}
	p := Problem{File: d.file, Line: 1, Message: strings.TrimPrefix(err.Error(), "toml: ")}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		p.Line, _ = de.Position()
		p.Key = strings.Join(de.Key(), ".")
	}
	p.Message = "not valid TOML: " + p.Message
	if strings.HasSuffix(p.Message, "at start of value") {
		p.Message += "; texts, durations and sizes stand in quotes"
	}
	if line, message := pasted(data, p.Line); line > 0 && line >= p.Line-1 {
		p.Line, p.Key, p.Message = line, "", "not valid TOML: "+message
	}
	d.add(p)
	return false
}

// enter returns the table that a [header] or [[header]] opens, and its path; the zero Value when it
// is unknown or of the wrong kind, so that what stands below it is passed over.
func (d *document) enter(root reflect.Value, e *unstable.Node) (reflect.Value, string) {
	v, path := root, ""
	for it := e.Key(); it.Next(); {
		last := it.IsLast()
		v, path = d.child(v, path, it.Node())
		if !v.IsValid() {
			return v, path
		}
		isList, wantList := v.Kind() == reflect.Slice && isTable(v.Type().Elem()), last && e.Kind == unstable.ArrayTable
		switch {
		case isList && wantList:
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
			path = element(path, v.Len()-1)
			v = v.Index(v.Len() - 1)
		case isList && !last && v.Len() > 0:
			path = element(path, v.Len()-1)
			v = v.Index(v.Len() - 1)
		case isList || !isTable(v.Type()):
			d.notTable(v.Type(), path, it.Node())
			return reflect.Value{}, path
		case wantList:
			d.report(path, it.Node(), "stands once, write [%s]", path)
			return reflect.Value{}, path
		}
		d.mark(path, it.Node())
		v = tableOf(v)
	}
	return v, path
}

// keyValue stores one `key = value`, where key may be dotted.
func (d *document) keyValue(table reflect.Value, path string, e *unstable.Node) {
	v := table
	for it := e.Key(); it.Next(); {
		if !v.IsValid() {
			return
		}
		if !isTable(v.Type()) {
			d.notTable(v.Type(), path, it.Node())
			return
		}
		v, path = d.child(tableOf(v), path, it.Node())
		if v.IsValid() {
			d.mark(path, it.Node())
		}
		if it.IsLast() && v.IsValid() {
			d.assign(v, path, it.Node(), e.Value())
		}
	}
}

// child returns the field of table that a key names, and its path.
func (d *document) child(table reflect.Value, path string, key *unstable.Node) (reflect.Value, string) {
	name := string(key.Data)
	path = join(path, name)
	var names []string
	for i := range table.NumField() {
		tag := table.Type().Field(i).Tag.Get("toml")
		if tag == name && tag != "" {
			return table.Field(i), path
		}
		names = append(names, tag)
	}
	message := "unknown key, remove it"
	if near := suggest.Nearest(name, names); near != "" {
		message = "unknown key, did you mean " + near + "?"
	}
	d.report(path, key, "%s", message)
	return reflect.Value{}, path
}

// assign stores a value; at is the node whose line names it where the value has none.
func (d *document) assign(v reflect.Value, path string, at, value *unstable.Node) {
	switch {
	case isTable(v.Type()) && value.Kind == unstable.InlineTable:
		d.inlineTable(tableOf(v), path, value)
	case v.Kind() == reflect.Slice && value.Kind == unstable.Array:
		d.array(v, path, at, value)
	default:
		d.scalar(v, path, at, value)
	}
}

func (d *document) inlineTable(v reflect.Value, path string, value *unstable.Node) {
	for it := value.Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			d.keyValue(v, path, it.Node())
		}
	}
}

func (d *document) array(v reflect.Value, path string, at, value *unstable.Node) {
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	for it := value.Children(); it.Next(); {
		if it.Node().Kind == unstable.Comment {
			continue
		}
		i := v.Len()
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		if it.Node().Raw.Length > 0 {
			at = it.Node()
		}
		d.mark(element(path, i), at)
		d.assign(v.Index(i), element(path, i), at, it.Node())
	}
}

// scalar stores a text, number or truth value and reports one of the wrong kind.
func (d *document) scalar(v reflect.Value, path string, at, value *unstable.Node) {
	text, isText := "", value.Kind == unstable.String
	if isText {
		text = string(value.Data)
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && isText {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			d.report(path, at, "%s", err)
		}
		return
	}
	switch {
	case v.Kind() == reflect.String && isText:
		v.SetString(text)
	case v.Kind() == reflect.Bool && value.Kind == unstable.Bool:
		v.SetBool(string(value.Data) == "true")
	case v.Kind() == reflect.Int && value.Kind == unstable.Integer:
		n, err := strconv.ParseInt(strings.ReplaceAll(string(value.Data), "_", ""), 0, 32)
		if err != nil {
			d.report(path, at, "is out of range, write a whole number such as 100")
		}
		v.SetInt(n)
	default:
		d.report(path, at, "has the wrong type, write %s", want(v.Type()))
	}
}

// notTable reports a key that was written as a table and is none.
func (d *document) notTable(t reflect.Type, path string, at *unstable.Node) {
	if t.Kind() == reflect.Slice && isTable(t.Elem()) {
		d.report(path, at, "is a list of tables, write [[%s]]", path)
		return
	}
	d.report(path, at, "is not a table, write %s = and %s", path, want(t))
}

func (d *document) mark(path string, at *unstable.Node) {
	if _, ok := d.lines[path]; !ok {
		d.lines[path] = d.line(at)
	}
}

func (d *document) report(path string, at *unstable.Node, format string, args ...any) {
	d.add(Problem{File: d.file, Line: d.line(at), Key: path, Message: fmt.Sprintf(format, args...)})
}

// line returns the line on which a node begins.
func (d *document) line(n *unstable.Node) int {
	offset, low, high := int(n.Raw.Offset), 0, len(d.newlines)
	for low < high {
		if mid := (low + high) / 2; d.newlines[mid] < offset {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low + 1
}

// has reports whether a key was written.
func (d *document) has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

// lineOf returns the line of a key or, where it was not written, of the table it belongs to.
func (d *document) lineOf(path string) int {
	for path != "" {
		if line, ok := d.lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 1
}

// fill gives every key below v that was not written its default.
func (d *document) fill(v reflect.Value, path string) {
	eachKey(v, path, func(key string, field reflect.StructField, fv reflect.Value) {
		if value, ok := field.Tag.Lookup("default"); ok && !d.has(key) && fv.IsZero() {
			setText(fv, here(value))
		}
	})
}

// here is a default on this system: that of data_dir is another one on Windows.
func here(standard string) string {
	if standard == "/var/lib/postern" {
		return places.DataDir()
	}
	return standard
}

// eachKey visits the keys of a table and of those below it, which are no keys themselves, in the order of their fields.
func eachKey(v reflect.Value, path string, visit func(key string, field reflect.StructField, value reflect.Value)) {
	for i := range v.NumField() {
		field, fv := v.Type().Field(i), v.Field(i)
		name := field.Tag.Get("toml")
		key := join(path, name)
		switch {
		case name == "" || fv.Kind() == reflect.Pointer && fv.IsNil():
		case isTable(fv.Type()):
			eachKey(tableOf(fv), key, visit)
		case fv.Kind() == reflect.Slice && isTable(fv.Type().Elem()):
			for j := range fv.Len() {
				eachKey(fv.Index(j), element(key, j), visit)
			}
		default:
			visit(key, field, fv)
		}
	}
}

// setText stores a default. A default that does not parse is a mistake in this package, which any test finds.
func setText(v reflect.Value, text string) {
	var err error
	u, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case ok:
		err = u.UnmarshalText([]byte(text))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		v.SetBool(text == "true")
	case v.Kind() == reflect.Int:
		var n int
		n, err = strconv.Atoi(text)
		v.SetInt(int64(n))
	case v.Kind() == reflect.Slice:
		for part := range strings.SplitSeq(text, ",") {
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
			setText(v.Index(v.Len()-1), part)
		}
	}
	if err != nil {
		panic(fmt.Sprintf("config: default %q: %v", text, err))
	}
}

var unmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func isUnmarshaler(t reflect.Type) bool { return reflect.PointerTo(t).Implements(unmarshaler) }

// isTable reports whether values of t are written as tables.
func isTable(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct && !isUnmarshaler(t)
}

// tableOf returns the struct of a table field, allocated where the field is a pointer.
func tableOf(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Pointer {
		return v
	}
	if v.IsNil() {
		v.Set(reflect.New(v.Type().Elem()))
	}
	return v.Elem()
}

// want says what to write for a value of t.
func want(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return `a duration in quotes such as "5m"`
	case reflect.TypeFor[Size]():
		return `a size in quotes such as "35MB"`
	case reflect.TypeFor[Rate]():
		return `a rate in quotes such as "1KB/s"`
	case reflect.TypeFor[Network]():
		return `an address range in quotes such as "192.0.2.0/24"`
	case reflect.TypeFor[Date]():
		return `a day in quotes such as "2027-03-31"`
	case reflect.TypeFor[TLSVersion]():
		return `"1.2" or "1.3", in quotes`
	}
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false, without quotes"
	case t.Kind() == reflect.Int:
		return "a whole number such as 100, without quotes"
	case t.Kind() == reflect.Slice && isTable(t.Elem()):
		return "a list of tables"
	case t.Kind() == reflect.Slice:
		return "a list in brackets, each element " + want(t.Elem())
	case isTable(t):
		return "a table"
	}
	return "a text in quotes"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// element names the element with index i, counted from one for people.
func element(path string, i int) string { return path + "[" + strconv.Itoa(i+1) + "]" }
