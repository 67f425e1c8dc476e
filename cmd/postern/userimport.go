package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/rights"
	"postern/operate"
)

// importFlags are those of `user import`.
type importFlags struct {
	update, dryRun, json, withoutSender bool

	result string
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
	cmd.Flags().BoolVar(&flags.withoutSender, "without-sender", false,
		"add accounts even if they may send as nobody until they get a sender")
	cmd.Flags().StringVar(&flags.result, "result", "",
		"write generated passwords to this new `file`, for its owner alone")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

// slowImport is after how long an import says that it works.
const slowImport = 2 * time.Second

func (a *app) importAccounts(cmd *cobra.Command, name string, flags importFlags) error {
	data, err := readTable(cmd.InOrStdin(), name)
	if err != nil {
		return err
	}
	open := toWrite
	if flags.dryRun {
		open = toLook
	}
	ops, done, err := a.operations(cmd, open)
	if err != nil {
		return err
	}
	defer done()
	imported, err := ops.Accounts.Import(cmd.Context(), me(), data, flags.options(cmd.ErrOrStderr(), name))
	if wrong, is := errors.AsType[*operate.TableError](err); is {
		return printProblems(cmd.ErrOrStderr(), name, wrong)
	}
	if err != nil {
		return err
	}
	return sayImported(cmd, flags, imported)
}

// options are those of an import that tells on w what it does.
func (f importFlags) options(w io.Writer, name string) operate.Import {
	said := time.Now()
	o := operate.Import{Update: f.update, DryRun: f.dryRun, WithoutSender: f.withoutSender,
		Warn: func(line int, text string) { fmt.Fprintf(w, "%s:%d: warning: %s\n", name, line, text) },
		Progress: func(done, total int) {
			if now := time.Now(); now.Sub(said) > slowImport {
				said = now
				fmt.Fprintf(w, "passwords are hashed: %d of %d\n", done, total)
			}
		},
	}
	if f.result != "" {
		o.Keep = func(passwords []operate.Credential) error { return writeResult(f.result, passwords) }
		o.Drop = func() error { return os.Remove(f.result) }
	}
	return o
}

func readTable(in io.Reader, name string) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, operate.MaxTable+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > operate.MaxTable {
		return nil, fmt.Errorf("%s is longer than %s: import it in parts", name, size(operate.MaxTable))
	}
	return data, nil
}

func sayImported(cmd *cobra.Command, flags importFlags, v operate.Imported) error {
	warn(cmd, v.Warning)
	if flags.result != "" {
		v.Passwords = []operate.Credential{} // they are in the file
	}
	if flags.json {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	if len(v.Passwords) > 0 {
		if err := operate.WritePasswords(cmd.OutOrStdout(), v.Passwords); err != nil {
			return err
		}
	}
	format := "Added %s, changed %d.\n"
	if v.DryRun {
		format = "The file is right. It would add %s and change %d.\n"
	}
	fmt.Fprintf(cmd.ErrOrStderr(), format, plural(int64(v.Added), "account"), v.Changed)
	for _, note := range v.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), note)
	}
	if flags.result != "" && !v.DryRun {
		fmt.Fprintf(cmd.ErrOrStderr(), "The passwords are in %s; delete it when they are handed out.\n", flags.result)
	}
	return nil
}

// writeResult writes passwords to a file that was not there, for its owner alone.
func writeResult(path string, passwords []operate.Credential) error {
	f, err := rights.Create(path)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists already: passwords are written to a new file", path)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(operate.WritePasswords(f, passwords), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// maxProblems is how many problems of a table are shown.
const maxProblems = 50

func printProblems(w io.Writer, name string, wrong *operate.TableError) error {
	for i, line := range wrong.Lines {
		if i == maxProblems {
			fmt.Fprintf(w, "and %d more\n", len(wrong.Lines)-i)
			break
		}
		fmt.Fprintf(w, "%s:%s\n", name, line)
	}
	if wrong.Existing {
		fmt.Fprintln(w, "to change logins that exist: --update")
	}
	return errors.New("nothing was imported")
}
