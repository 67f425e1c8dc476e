package access

import (
	"database/sql"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"postern/operate"
	"postern/relay/store"
)

// TestOwnWithoutItsRecord: where the audit cannot be written, nothing of one's own account is changed.
func TestOwnWithoutItsRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := newRigIn(t, dir)
	ctx := t.Context()
	secret, _ := r.join("anna", operate.Viewer)
	r.clock.pass(time.Minute)
	cookie, err := r.login("anna", secret)
	refused(t, "login", err, "")
	s := r.session("", cookie, "")
	before, err := r.store.ConsoleUser(ctx, "anna")
	refused(t, "before", err, "")
	r.clock.pass(time.Minute) // another code
	db, err := sql.Open("sqlite", filepath.Join(dir, store.FileName)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec("CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit'); END")
	refused(t, "trigger", err, "")
	for what, f := range map[string]func() error{
		"password": func() error { _, err := r.Own.SetPassword(ctx, s, password, another, client); return err },
		"app":      func() error { _, err := r.Own.SetApp(ctx, s, r.code(r.Own.App(s).Secret), client); return err },
		"sessions": func() error { return r.Own.EndOthers(ctx, s, client) },
	} {
		if err := f(); err == nil {
			t.Errorf("%s is changed without a record", what)
		}
	}
	if after, err := r.store.ConsoleUser(ctx, "anna"); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("the user was %+v, is %+v", before, after)
	}
	if list, err := r.Own.Sessions(ctx, s); err != nil || len(list) != 2 {
		t.Errorf("%d sessions are left, %v", len(list), err)
	}
}
