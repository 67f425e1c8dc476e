package api

import (
	"encoding/base64"
	"strings"

	"postern/mail"
)

// maxCursor bounds a cursor, in octets.
const maxCursor = 1024

// cursor is where a page of a list ends: the list's name and a place in it. Callers see it as one opaque text.
type cursor struct{ list, at string }

// String returns what parseCursor reads; "" for no place.
func (c cursor) String() string {
	if c.at == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(c.list + ":" + c.at))
}

// parseCursor reads where the page before ended; "" is the beginning. A cursor of another list is refused.
func parseCursor(list, text string) (at string, err error) {
	if text == "" {
		return "", nil
	}
	refused := invalid.problem("The cursor is not one of this list: take it from next of the page before, unchanged.")
	if len(text) > maxCursor {
		return "", refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", refused
	}
	of, at, ok := strings.Cut(string(b), ":")
	if !ok || of != list || at == "" || mail.Printable(at) != at || (cursor{of, at}).String() != text {
		return "", refused
	}
	return at, nil
}

// Page is how a part of a list is asked for.
type Page struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"Rows of one answer."`
	Cursor string `query:"cursor" maxLength:"1024" doc:"next of the page before; without it, the first page."`
}

// pageOf returns the part of a list behind a key, and the key of its last row if there is more. Keys rise.
func pageOf[T any](all []T, key func(T) string, after string, limit int) (rows []T, last string) {
	for _, row := range all {
		if key(row) <= after && after != "" {
			continue
		}
		if len(rows) == limit {
			return rows, key(rows[limit-1])
		}
		rows = append(rows, row)
	}
	return rows, ""
}
