package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"postern/auth"
	"postern/relay/trace"
)

// importFlags are those of `user import`.
type importFlags struct {
	update, dryRun, json bool
	result               string
}

func (a *app) userImport() *cobra.Command {
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import CSV",
		Short: "Add accounts from a table, all of them or none; passwords that are generated are printed once",
		Long: `Add accounts from a CSV file ("-" reads standard input). Its first line names the columns, in any order:

  login     required
  password  where it is empty, or the column is not there, a password is generated
  senders   addresses it may send as, or *@domain; several are separated by blanks or commas
  networks  from which it may log in; several likewise
  groups    for [[policy]] and [[route]]; several likewise
  note      a word for those who list the accounts
  kind      user, or device; empty is user

Commas, semicolons or tabs between cells are recognised. The whole file is checked first; what is wrong is told with
its line, and nothing is changed then. Logins that exist are refused; with --update they are changed: a column that
is there replaces what the account has (an empty cell clears it), one that is not there leaves it as it is, and so
does an empty password.

What was generated is printed as CSV (login,password), or written to the file that --result names.`,
		Example: `  postern user import office.csv --dry-run
  postern user import office.csv --result passwords.csv`,
		SuggestFor: []string{"load"},
		Args:       exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.importAccounts(cmd, args[0], flags)
		},
	}
	cmd.Flags().BoolVar(&flags.update, "update", false, "change logins that exist")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "check the file and say what would be done")
	cmd.Flags().StringVar(&flags.result, "result", "",
		"write generated passwords to this new `file`, for its owner alone")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

// importView is what an import did, as --json prints it.
type importView struct {
	DryRun    bool             `json:"dry_run"`
	Added     int              `json:"added"`
	Changed   int              `json:"changed"`
	Passwords []newAccountView `json:"passwords"` // those that were generated
}

func (a *app) importAccounts(cmd *cobra.Command, name string, flags importFlags) error {
	data, err := readTable(cmd.InOrStdin(), name)
	if err != nil {
		return err
	}
	rows, problems := parseAccounts(data)
	s, err := a.openStore(cmd.Context())
	if err != nil {
		return err
	}
	defer s.Close()
	existing, err := existingOf(cmd, s, rows)
	if err != nil {
		return err
	}
	if !flags.update {
		for i := range rows {
			if existing[rows[i].user.Login] {
				problems.add(rows[i].line, "login %s exists already; with --update it is changed", rows[i].user.Login)
			}
		}
	}
	if len(problems.lines) > 0 {
		return problems.print(cmd.ErrOrStderr(), name)
	}
	for i := range rows {
		if advice := auth.AdviseOn(rows[i].user.Login, rows[i].password); advice != "" && rows[i].password != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: warning: %s\n", name, rows[i].line, advice)
		}
	}
	if flags.dryRun {
		return sayImported(cmd, flags, viewOfImport(rows, existing, true))
	}
	if err := setCredentials(cmd, s, rows, existing); err != nil {
		return err
	}
	return commitImport(cmd, s, flags, rows, existing)
}

// maxTable bounds a file of accounts, in octets.
const maxTable = 16_000_000

func readTable(in io.Reader, name string) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxTable+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxTable {
		return nil, fmt.Errorf("%s is longer than %s: import it in parts", name, size(maxTable))
	}
	return data, nil
}

// existingOf returns which of the logins there are.
func existingOf(cmd *cobra.Command, s store, rows []importRow) (map[string]bool, error) {
	users, err := s.Users(cmd.Context())
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

// slowImport is after how long an import says that it works.
const slowImport = 2 * time.Second

// setCredentials makes the hash of each row that needs one: a password that was chosen takes some 20 ms of a processor.
func setCredentials(cmd *cobra.Command, s store, rows []importRow, existing map[string]bool) error {
	pepper, err := s.Secret(cmd.Context(), auth.PepperName, auth.PepperSize)
	if err != nil {
		return err
	}
	began, said := time.Now(), time.Now()
	group, ctx := errgroup.WithContext(cmd.Context())
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range rows {
		r := &rows[i]
		if ctx.Err() != nil {
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
		if now := time.Now(); now.Sub(began) > slowImport && now.Sub(said) > slowImport {
			said = now
			fmt.Fprintf(cmd.ErrOrStderr(), "passwords are hashed: %d of %d\n", i, len(rows))
		}
	}
	return errors.Join(group.Wait(), cmd.Context().Err())
}

// commitImport stores all rows in one transaction. A file for passwords is complete before: they cannot be read back.
func commitImport(cmd *cobra.Command, s store, flags importFlags, rows []importRow, existing map[string]bool) error {
	view := viewOfImport(rows, existing, false)
	if flags.result != "" {
		if err := writeResult(flags.result, view.Passwords); err != nil {
			return err
		}
	}
	byLogin, logins := make(map[string]*importRow, len(rows)), make([]string, len(rows))
	for i := range rows {
		logins[i] = rows[i].user.Login
		byLogin[logins[i]] = &rows[i]
	}
	now := time.Now()
	err := s.ChangeUsers(cmd.Context(), logins, func(u *auth.User, exists bool) error {
		switch {
		case exists && !existing[u.Login]:
			return fmt.Errorf("login %s was added meanwhile: run the import again", u.Login)
		case !exists && existing[u.Login]:
			return fmt.Errorf("login %s was removed meanwhile: run the import again", u.Login)
		}
		byLogin[u.Login].apply(u, exists, now)
		return nil
	})
	if err != nil {
		if flags.result != "" {
			err = errors.Join(err, os.Remove(flags.result))
		}
		return fmt.Errorf("nothing was imported: %w", err)
	}
	return errors.Join(sayImported(cmd, flags, view), noteImport(cmd, s, logins, existing))
}

// noteImport traces an import at each of its accounts, in small transactions that leave the daemon room.
func noteImport(cmd *cobra.Command, s store, logins []string, existing map[string]bool) error {
	for some := range slices.Chunk(logins, 500) {
		var events []trace.Event
		for _, login := range some {
			what := "account added by an import"
			if existing[login] {
				what = "account changed by an import"
			}
			events = append(events, accountEvent(login, what))
		}
		if err := s.AppendEventsNow(cmd.Context(), events); err != nil {
			return err
		}
	}
	return nil
}

func viewOfImport(rows []importRow, existing map[string]bool, dry bool) importView {
	v := importView{DryRun: dry, Passwords: []newAccountView{}}
	for i := range rows {
		r := &rows[i]
		if existing[r.user.Login] {
			v.Changed++
		} else {
			v.Added++
		}
		if r.credential != nil && r.credential.generated != "" {
			v.Passwords = append(v.Passwords, newAccountView{r.user.Login, r.credential.generated})
		}
	}
	return v
}

func sayImported(cmd *cobra.Command, flags importFlags, v importView) error {
	if flags.result != "" {
		v.Passwords = []newAccountView{} // they are in the file
	}
	if flags.json {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	if len(v.Passwords) > 0 {
		if err := writePasswords(cmd.OutOrStdout(), v.Passwords); err != nil {
			return err
		}
	}
	format := "Added %s, changed %d.\n"
	if v.DryRun {
		format = "The file is right. It would add %s and change %d.\n"
	}
	fmt.Fprintf(cmd.ErrOrStderr(), format, plural(int64(v.Added), "account"), v.Changed)
	if flags.result != "" && !v.DryRun {
		fmt.Fprintf(cmd.ErrOrStderr(), "The passwords are in %s; delete it when they are handed out.\n", flags.result)
	}
	return nil
}

func writePasswords(w io.Writer, passwords []newAccountView) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"login", "password"})
	for _, p := range passwords {
		_ = c.Write([]string{p.Login, p.Password})
	}
	c.Flush()
	return c.Error()
}

// writeResult writes passwords to a file that was not there, for its owner alone.
func writeResult(path string, passwords []newAccountView) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists already: passwords are written to a new file", path)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(writePasswords(f, passwords), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// importProblems are what is wrong in a file, by line.
type importProblems struct{ lines []string }

func (p *importProblems) add(line int, format string, args ...any) {
	p.lines = append(p.lines, fmt.Sprintf("%d: ", line)+fmt.Sprintf(format, args...))
}

// maxProblems is how many problems are shown.
const maxProblems = 50

func (p *importProblems) print(w io.Writer, name string) error {
	for i, line := range p.lines {
		if i == maxProblems {
			fmt.Fprintf(w, "and %d more\n", len(p.lines)-i)
			break
		}
		fmt.Fprintf(w, "%s:%s\n", name, strings.TrimSpace(line))
	}
	return errors.New("nothing was imported")
}
