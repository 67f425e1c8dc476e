package testkit

import (
	"slices"
	"testing"
)

func TestPostgreSQL(t *testing.T) {
	pg := PostgreSQL(t)
	sql := func(sql string) [][]string {
		t.Helper()
		return SQL(t, pg.URL(), sql)
	}
	want := func(values ...string) {
		t.Helper()
		var got []string
		for _, row := range sql("SELECT v FROM kept ORDER BY v") {
			got = append(got, row[0])
		}
		if !slices.Equal(got, values) {
			t.Errorf("has %q, want %q", got, values)
		}
	}
	sql("CREATE TABLE kept (v text); INSERT INTO kept VALUES ('a')")
	pg.Restart()
	want("a")
	sql("INSERT INTO kept VALUES ('b')")
	pg.Kill()
	pg.Start()
	want("a", "b")
}

func TestSharedPostgreSQL(t *testing.T) {
	pg := SharedPostgreSQL(t)
	SQL(t, pg.NewDatabase(t), "CREATE TABLE x (y int)")
	SQL(t, pg.NewDatabase(t), "CREATE TABLE x (y int)")
}
