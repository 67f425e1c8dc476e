package store

import "strings"

// upsert is the statement that puts a row into a table, in place of one with the same key, which is its first columns.
// The arguments of the statement are the columns, all that the table has.
func upsert(table string, key int, columns ...string) string {
	var set []string
	for _, c := range columns[key:] {
		set = append(set, c+" = excluded."+c)
	}
	return "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES (?" +
		strings.Repeat(", ?", len(columns)-1) + ") ON CONFLICT (" + strings.Join(columns[:key], ", ") +
		") DO UPDATE SET " + strings.Join(set, ", ")
}
