package config

import (
	"fmt"
	"reflect"
	"strings"

	"postern/mail"
)

// Setting is a key of relay.toml as it is in force.
type Setting struct {
	Key     string `json:"key"`               // listener[2].address; of the block behind the policies: policy[default].limits
	Value   string `json:"value"`             // as text, lists with commas; "": empty, or left to something else
	Written bool   `json:"written"`           // in the file; else it is the default
	Line    int    `json:"line,omitempty"`    // of the file; 0 where it is not written
	Secret  bool   `json:"secret,omitempty"`  // Value says where it comes from, never what it is
	Default string `json:"default,omitempty"` // what it would be without being written, where that is known
}

// defaultPolicy is the number of the block that stands behind those of the file.
const defaultPolicy = "policy[default]"

// Effective lists what is in force, in the order of the documentation: each key with its value and where it was
// written. Secrets are not in it.
func Effective(c *Config) []Setting {
	l := lister{doc: c.doc}
	l.table(reflect.ValueOf(c).Elem(), "")
	return l.all
}

// lister gathers settings.
type lister struct {
	doc *document
	all []Setting
}

// table lists the keys of a table. What is no key of the file has no name there.
func (l *lister) table(v reflect.Value, path string) {
	for i := range v.NumField() {
		field, fv := v.Type().Field(i), v.Field(i)
		name := field.Tag.Get("toml")
		if name == "" {
			continue
		}
		key := join(path, name)
		switch {
		case fv.Kind() == reflect.Pointer && fv.IsNil():
		case isTable(fv.Type()):
			l.table(tableOf(fv), key)
		case fv.Kind() == reflect.Slice && isTable(fv.Type().Elem()):
			for j := range fv.Len() {
				l.table(fv.Index(j), element(key, j))
			}
			if key == "policy" {
				l.table(reflect.ValueOf(DefaultPolicy()), defaultPolicy)
			}
		default:
			l.add(key, field.Tag.Get("default"), fv)
		}
	}
}

func (l *lister) add(key, usual string, v reflect.Value) {
	s := Setting{Key: key, Written: l.doc.has(key), Default: strings.ReplaceAll(usual, ",", ", ")}
	if s.Written {
		s.Line = l.doc.lineOf(key)
	}
	if secret, ok := v.Interface().(Secret); ok {
		s.Secret, s.Value = true, secret.origin()
	} else {
		s.Value = mail.Printable(text(v))
	}
	l.all = append(l.all, s)
}

// origin says where a secret comes from.
func (s Secret) origin() string {
	switch {
	case !s.IsSet():
		return ""
	case s.literal():
		return redacted
	}
	return redacted + " " + mail.Printable(s.ref())
}

// text is a value as a person reads it.
func text(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = text(v.Index(i))
		}
		return strings.Join(parts, ", ")
	}
	if d, ok := v.Interface().(Date); ok {
		if d.IsZero() {
			return ""
		}
		return d.Format("2006-01-02")
	}
	return fmt.Sprint(v.Interface())
}
