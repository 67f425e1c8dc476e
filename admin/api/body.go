package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// Bounds of a body.
const (
	maxBody   = 1 << 20 // octets
	bodyTime  = 15 * time.Second
	tableTime = 2 * time.Minute // of a table of accounts
	maxDepth  = 16              // of nested lists and objects
)

// jsonFormat writes JSON that is harmless in HTML too, and reads it.
var jsonFormat = huma.Format{
	Marshal:   func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
	Unmarshal: json.Unmarshal,
}

// readBody returns the body of a request that changes something. Its type must be named: a page of another site can
// make a browser send forms and plain text, but neither JSON nor CSV.
func readBody(w http.ResponseWriter, r *http.Request, to *route) ([]byte, *Problem) {
	if r.Method == http.MethodDelete {
		if r.ContentLength != 0 {
			return nil, malformed.problem("DELETE takes no body.")
		}
		return nil, nil
	}
	want := "application/json"
	if to.table {
		want = "text/csv"
	}
	if p := checkType(r, want); p != nil {
		return nil, p
	}
	r.Header.Set("Content-Type", want) // as huma compares it
	most, within := int64(maxBody), bodyTime
	if to.table {
		most, within = maxTable, tableTime
	}
	large := tooLarge.problem(fmt.Sprintf("At most %d octets are taken.", most))
	if r.ContentLength > most {
		return nil, large
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(within)) // the server's own deadline stays
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	switch slow, isNet := errors.AsType[net.Error](err); {
	case isNet && slow.Timeout():
		return nil, slowBody.problem(fmt.Sprintf("It may take %v.", within))
	case err != nil:
		if _, is := errors.AsType[*http.MaxBytesError](err); is {
			return nil, large
		}
		return nil, malformed.problem("The body ended early.")
	}
	if to.table {
		return body, nil
	}
	if err := checkJSON(body); err != nil {
		return nil, malformed.problem(err.Error())
	}
	return body, nil
}

// checkType refuses a body of another type, or one that is packed.
func checkType(r *http.Request, want string) *Problem {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	set := strings.ToLower(params["charset"])
	switch {
	case err != nil || kind != want || len(r.Header.Values("Content-Type")) != 1:
		return wrongType.problem("Send Content-Type: " + want + ".")
	case want == "application/json" && set != "" && set != "utf-8":
		return wrongType.problem("JSON is UTF-8.")
	case r.Header.Get("Content-Encoding") != "":
		return wrongType.problem("Send the body as it is, without Content-Encoding.")
	}
	return nil
}

// checkJSON refuses what readers of JSON understand differently: names that are there twice or differ in case only,
// text that is no UTF-8, more than one value, and nesting beyond maxDepth. It wants an object.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	first, err := d.Token()
	switch {
	case err != nil:
		return errors.New("the body is not JSON; without anything to say it is {}")
	case first != json.Delim('{'):
		return errors.New("the body must be a JSON object")
	}
	if err := checkObject(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF { //nolint:errorlint // it is a value
		return errors.New("something follows the JSON object")
	}
	return nil
}

func checkObject(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return notJSON(d)
		}
		name := t.(string) // what else would be no JSON
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || seen[name] {
			return fmt.Errorf("the name %.60q is there twice, or none of ours", name)
		}
		seen[name] = true
		if err := checkValue(d, depth); err != nil {
			return err
		}
	}
	return closed(d)
}

func checkValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	delim, opens := t.(json.Delim)
	switch {
	case err != nil:
		return notJSON(d)
	case !opens:
		return nil
	case depth == maxDepth:
		return fmt.Errorf("the body is nested more than %d deep", maxDepth)
	case delim == '{':
		return checkObject(d, depth+1)
	}
	for d.More() {
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	return closed(d)
}

// closed reads the end of an object or list.
func closed(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return notJSON(d)
	}
	return nil
}

func notJSON(d *json.Decoder) error {
	return fmt.Errorf("the body is not JSON at octet %d", d.InputOffset())
}
