package operate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/auth"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/trace"
)

// MaxTable bounds a table of accounts, in octets.
const MaxTable = 16_000_000

// Import is how a table of accounts is taken in.
type Import struct {
	Update bool // logins that exist are changed
	DryRun bool // nothing is changed
	// WithoutSender adds accounts even if they may send as nobody yet.
	WithoutSender bool

	Progress func(done, total int)              // unless nil, called while passwords are hashed
	Keep     func(passwords []Credential) error // unless nil, before anything is changed: nobody can read them back
	Drop     func() error                       // unless nil, called when it came to nothing behind Keep
	Warn     func(line int, text string)        // unless nil, told of passwords that are easy to guess
}

// Imported is what an import did.
type Imported struct {
	DryRun    bool         `json:"dry_run"`
	Added     int          `json:"added"`
	Changed   int          `json:"changed"`
	Passwords []Credential `json:"passwords"`         // those that were generated
	Warning   string       `json:"warning,omitempty"` // what went wrong once the accounts were stored
	Notes     []string     `json:"notes,omitempty"`   // what cannot be used yet
}

// TableError is everything that is wrong in a table of accounts, a text "LINE: what" for each.
type TableError struct {
	Lines    []string
	Existing bool // some logins exist, and Update would change them
}

func (e *TableError) Error() string {
	if len(e.Lines) == 1 {
		return "nothing was imported: 1 line is wrong"
	}
	return fmt.Sprintf("nothing was imported: %d lines are wrong", len(e.Lines))
}

// Import takes in a table of accounts, all of them or none.
func (a Accounts) Import(ctx context.Context, by Actor, data []byte, o Import) (done Imported, err error) {
	err = a.act(ctx, by, ImportAccounts, "", func(ctx context.Context, detail *string) error {
		done, err = a.importTable(ctx, by, data, o, detail)
		return err
	})
	if err != nil {
		return Imported{}, err // passwords are not shown beside an error
	}
	return done, nil
}

func (a Accounts) importTable(ctx context.Context, by Actor, data []byte, o Import, detail *string) (done Imported,
	err error) {
	rows, problems := parseAccounts(data)
	existing, err := a.existingOf(ctx, rows)
	if err != nil {
		return done, err
	}
	wrong := &TableError{}
	for i := range rows {
		if login := rows[i].user.Login; existing[login] && !o.Update {
			problems.add(rows[i].line, "login %s exists already", login)
			wrong.Existing = true
		}
	}
	if !o.WithoutSender {
		checkSendAll(a.Config(), rows, existing, &problems)
	}
	if wrong.Lines = problems.lines; len(wrong.Lines) > 0 {
		return done, wrong
	}
	for i := range rows {
		advice := auth.AdviseOn(rows[i].user.Login, rows[i].password)
		if advice != "" && rows[i].password != "" && o.Warn != nil {
			o.Warn(rows[i].line, advice)
		}
	}
	if o.DryRun {
		done = imported(rows, existing)
		done.DryRun, *detail = true, "a dry run"
		return done, nil
	}
	if err := a.setCredentials(ctx, rows, existing, o.Progress); err != nil {
		return done, err
	}
	done = imported(rows, existing)
	*detail = fmt.Sprintf("%d added, %d changed", done.Added, done.Changed)
	if err := a.commitImport(ctx, o, rows, existing); err != nil {
		return done, err
	}
	done.Notes = keysLater(a.Config(), rows)
	if err := a.noteImport(ctx, by, rows, existing); err != nil { // an error would take the passwords with it
		done.Warning = err.Error()
	}
	return done, nil
}

// keysLater says which mechanisms the passwords of an import cannot be used with yet: it would take too long to make
// keys of a whole office at once.
func keysLater(c *config.Config, rows []importRow) (notes []string) {
	given := func(r importRow) bool { return r.credential != nil }
	device := func(r importRow) bool { return given(r) && r.credential.generated != "" && r.user.Device }
	if len(c.OfferedAt(auth.ScramSHA256)) > 0 && slices.ContainsFunc(rows, given) {
		notes = append(notes, "SCRAM is offered, and passwords of an import have no keys for it yet: each gets them "+
			"at its first login with PLAIN or LOGIN. Until then a program that picks SCRAM gets 535.")
	}
	if len(c.OfferedAt(auth.CramMD5)) > 0 && slices.ContainsFunc(rows, device) {
		notes = append(notes, "CRAM-MD5 is switched on, and devices of an import have no keys for it yet: each gets "+
			"them at its first login with PLAIN or LOGIN, or from postern device password LOGIN.")
	}
	return notes
}

// checkSendAll refuses the new accounts of a table that could send as nobody, as Add does.
func checkSendAll(c *config.Config, rows []importRow, existing map[string]bool, problems *tableProblems) {
	if len(c.Listeners) == 0 {
		return
	}
	var added []auth.User
	lines := map[string]int{}
	for i := range rows {
		if u := rows[i].user; u.Login != "" && !existing[u.Login] {
			added, lines[u.Login] = append(added, u), rows[i].line
		}
	}
	for _, login := range check.SilentLogins(c, added) {
		problems.add(lines[login], "login %s could send as nobody: give it a sender, such as %s", login,
			SuggestedSender(c, login))
	}
}

// existingOf returns which of the logins there are.
func (d *desk) existingOf(ctx context.Context, rows []importRow) (map[string]bool, error) {
	users, err := d.Store.Users(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]bool, len(users))
	for _, u := range users {
		all[u.Login] = true
	}
	existing := map[string]bool{}
	for i := range rows {
		if all[rows[i].user.Login] {
			existing[rows[i].user.Login] = true
		}
	}
	return existing, nil
}

// setCredentials makes the hash of each row that needs one: a password that was chosen takes some 20 ms of a processor.
func (a Accounts) setCredentials(ctx context.Context, rows []importRow, existing map[string]bool,
	progress func(done, total int)) error {
	pepper, err := a.Store.Secret(ctx, auth.PepperName, auth.PepperSize)
	if err != nil {
		return err
	}
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range rows {
		r := &rows[i]
		if within.Err() != nil {
			break
		}
		if r.password == "" {
			if !existing[r.user.Login] {
				c := generate(pepper, r.user.Device)
				r.credential = &c
			}
			continue
		}
		group.Go(func() (err error) {
			r.credential = new(credential)
			r.credential.hash, err = auth.HashChosen(r.password)
			return err
		})
		if progress != nil {
			progress(i, len(rows))
		}
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// commitImport stores all rows in one transaction.
func (a Accounts) commitImport(ctx context.Context, o Import, rows []importRow, existing map[string]bool) error {
	if o.Keep != nil {
		if err := o.Keep(imported(rows, existing).Passwords); err != nil {
			return err
		}
	}
	byLogin, logins := make(map[string]*importRow, len(rows)), make([]string, len(rows))
	for i := range rows {
		logins[i] = rows[i].user.Login
		byLogin[logins[i]] = &rows[i]
	}
	now := time.Now()
	err := a.Store.ChangeUsers(ctx, logins, func(u *auth.User, exists bool) error {
		switch {
		case exists && !existing[u.Login]:
			return fault(Conflict, "login %s was added meanwhile: run the import again", u.Login)
		case !exists && existing[u.Login]:
			return fault(Conflict, "login %s was removed meanwhile: run the import again", u.Login)
		}
		byLogin[u.Login].apply(u, exists, now)
		return nil
	})
	if err != nil {
		if o.Drop != nil {
			err = errors.Join(err, o.Drop())
		}
		return fmt.Errorf("nothing was imported: %w", err)
	}
	return nil
}

// noteImport traces an import at each of its accounts, in small transactions that leave the daemon room.
func (d *desk) noteImport(ctx context.Context, by Actor, rows []importRow, existing map[string]bool) error {
	for some := range slices.Chunk(rows, 500) {
		var events []trace.Event
		for i := range some {
			what := "account added by an import"
			if existing[some[i].user.Login] {
				what = "account changed by an import"
			}
			events = append(events, event(by, some[i].user.Login, what))
		}
		if err := d.note(ctx, events...); err != nil {
			return err
		}
	}
	return nil
}

func imported(rows []importRow, existing map[string]bool) Imported {
	v := Imported{Passwords: []Credential{}}
	for i := range rows {
		r := &rows[i]
		if existing[r.user.Login] {
			v.Changed++
		} else {
			v.Added++
		}
		if r.credential != nil && r.credential.generated != "" {
			v.Passwords = append(v.Passwords, r.credential.shown(r.user.Login))
		}
	}
	return v
}

// tableProblems are what is wrong in a table, by line.
type tableProblems struct{ lines []string }

func (p *tableProblems) add(line int, format string, args ...any) {
	p.lines = append(p.lines, strings.TrimSpace(fmt.Sprintf("%d: ", line)+fmt.Sprintf(format, args...)))
}
