package operate

import (
	"encoding/csv"
	"io"
	"strings"

	"postern/mail"
)

// writeCSV writes rows for a spreadsheet, which must take no cell for a formula (OWASP, CSV injection) and show nothing
// that is invisible.
func writeCSV(w io.Writer, rows [][]string) error {
	out := csv.NewWriter(w)
	for _, row := range rows {
		safe := make([]string, len(row))
		for i, cell := range row {
			safe[i] = csvSafe(cell)
		}
		if err := out.Write(safe); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// csvFormula begins a formula; the last four are the wide forms, which Excel takes too in some languages.
const csvFormula = "=+-@\uff1d\uff0b\uff0d\uff20"

// csvSafe puts an apostrophe before what begins like a formula: at the beginning of a cell, and behind what begins a
// new one where the list separator of the country is another one (";" in Germany). A lone "-" is none.
func csvSafe(s string) string {
	if s = mail.Printable(s); s == "-" || !strings.ContainsAny(s, csvFormula) {
		return s
	}
	var b strings.Builder
	begins := true
	for _, r := range s {
		if begins && strings.ContainsRune(csvFormula, r) {
			b.WriteByte('\'')
		}
		b.WriteRune(r)
		begins = strings.ContainsRune(";,|", r) || begins && strings.ContainsRune(" \"", r)
	}
	return b.String()
}

// WritePasswords writes passwords that were generated as CSV. They consist of letters, digits and hyphens within.
func WritePasswords(w io.Writer, all []Credential) error {
	rows := [][]string{{"login", "password"}}
	for _, c := range all {
		rows = append(rows, []string{c.Login, c.Password})
	}
	return writeCSV(w, rows)
}
