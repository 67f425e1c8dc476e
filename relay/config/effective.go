package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"postern/mail"
)

// Setting is a key of relay.toml as it is in force.
type Setting struct {
	Key     string `json:"key"`               // listener[2].address, policy[default].limits
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
	all := c.doc.settings(reflect.ValueOf(c).Elem(), "")
	behind := 0 // where the policies end, or what stands before them
	for i, s := range all {
		if strings.HasPrefix(s.Key, "policy[") || strings.HasPrefix(s.Key, "auth.") {
			behind = i + 1
		}
	}
	return slices.Insert(all, behind, c.doc.settings(reflect.ValueOf(DefaultPolicy()), defaultPolicy)...)
}

// settings lists the keys of a table.
func (d *document) settings(table reflect.Value, path string) (all []Setting) {
	eachKey(table, path, func(key string, field reflect.StructField, v reflect.Value) {
		s := Setting{Key: key, Written: d.has(key),
			Default: strings.ReplaceAll(here(field.Tag.Get("default")), ",", ", ")}
		if s.Written {
			s.Line = d.lineOf(key)
		}
		if secret, ok := v.Interface().(Secret); ok {
			s.Secret, s.Value = true, secret.origin()
		} else {
			s.Value = mail.Printable(text(v))
		}
		all = append(all, s)
	})
	return all
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
