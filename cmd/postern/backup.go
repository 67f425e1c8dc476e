package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/auth"
	"postern/internal/textfile"
	"postern/relay/backup"
	relaystore "postern/relay/store"
)

// secretFlags say where the passphrase of a backup comes from.
type secretFlags struct {
	file string // --passphrase-file
	ask  bool   // --passphrase
}

const backupHelp = `Write one file with queue, accounts, keys, consents and trace, as they are at one moment, while
Postern runs. The copy is read back before the file gets its name. - writes to standard output.

With a passphrase all of it is encrypted (age), and it also has what is as good as a password: seal.key, the keys of the
self-signed certificate, and relay.toml. Keep the passphrase elsewhere.

Without one it has none of these. What is sealed in data_dir stays sealed: copy seal.key from there once, to another
place than the backups. Without it DKIM keys, consents and passwords cannot be restored. The file still has mail and
hashes of passwords in clear; only its owner may read it.

Meanwhile there is FILE.part beside FILE, and a copy of the store in data_dir/backup.part. Files of secrets that
relay.toml names and certificates of your own are not in it. See docs/disaster.md.`

func (a *app) backupCommand() *cobra.Command {
	o, by := backup.Options{Work: a.work}, secretFlags{}
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup while Postern runs",
		Long:  backupHelp,
		Example: `  postern backup /mnt/backup/postern-$(date +%F) --passphrase-file /root/backup.pw
  postern backup - --passphrase-file /root/backup.pw | ssh backup.example.com 'umask 077; cat > postern.new'
  postern backup accounts.backup --without-mail`,
		Args: exactly(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch o.File = args[0]; {
		case o.File == "":
			return usage(cmd, errors.New("FILE is empty"))
		case o.File == backup.Standard && asJSON(cmd):
			return usage(cmd, errors.New("--json would be written into the backup: name a file"))
		}
		if err := by.check(cmd); err != nil {
			return err
		}
		defer endOnHangup(cmd)()
		return a.makeBackup(cmd, o, &by)
	}
	cmd.Flags().BoolVar(&o.WithoutMail, "without-mail", false, "leave out queued messages")
	cmd.Flags().BoolVar(&o.Overwrite, "overwrite", false, "replace FILE, once the new backup is whole")
	by.add(cmd, "encrypt with")
	return withJSON(cmd)
}

// endOnHangup ends a command also when its terminal or the reader of its output goes away, so that what it has beside
// itself in clear is removed.
func endOnHangup(cmd *cobra.Command) (stop func()) {
	signals := []os.Signal{syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), signals...)
	cmd.SetContext(ctx)
	return stop
}

func (a *app) makeBackup(cmd *cobra.Command, o backup.Options, by *secretFlags) error {
	c, err := a.read()
	if err != nil {
		return err
	}
	// To make a store where there is none would be a backup of nothing.
	from := relaystore.Of(c)
	if there, err := from.There(cmd.Context()); err == nil && !there && !from.URL.Server() {
		return fmt.Errorf("there is no store at %s: is data_dir right?", from.Place())
	}
	s, err := openStoreOf(cmd.Context(), c)
	if errors.Is(err, relaystore.ErrOlder) {
		return fmt.Errorf("%w, with the program that has used it; this one makes backups after its first start", err)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if o.Passphrase, err = by.forBackup(cmd); err != nil {
		return err
	}
	o.Out, o.Progress = cmd.OutOrStdout(), progressTo(cmd.ErrOrStderr())
	made, err := a.operationsOn(c, s).Backups.Make(cmd.Context(), me(), o)
	switch {
	case err != nil:
		return err
	case asJSON(cmd):
		return writeJSON(cmd.OutOrStdout(), made)
	case o.File == backup.Standard:
		return printMade(cmd.ErrOrStderr(), made)
	}
	return printMade(cmd.OutOrStdout(), made)
}

func (f *secretFlags) add(cmd *cobra.Command, verb string) {
	cmd.Flags().StringVar(&f.file, "passphrase-file", "", verb+" the passphrase in the first line of this `file`")
	cmd.Flags().BoolVar(&f.ask, "passphrase", false, verb+" a passphrase that is asked for on the terminal")
}

// check refuses both.
func (f *secretFlags) check(cmd *cobra.Command) error {
	if f.ask && f.file != "" {
		return usage(cmd, errors.New("--passphrase and --passphrase-file exclude each other"))
	}
	return nil
}

// given reports whether there is to be a passphrase.
func (f *secretFlags) given() bool { return f.ask || f.file != "" }

// forBackup is the passphrase to encrypt with; "": none.
func (f *secretFlags) forBackup(cmd *cobra.Command) (auth.Secret, error) {
	if !f.ask {
		return f.fromFile()
	}
	secret, err := askPassphrase(cmd, "Passphrase: ")
	if err != nil {
		return "", err
	}
	again, err := askPassphrase(cmd, "Once more: ")
	if err == nil && secret != again {
		err = errors.New("these were two different passphrases")
	}
	return secret, err
}

// forRestore is the passphrase of a backup that is encrypted.
func (f *secretFlags) forRestore(cmd *cobra.Command, from string) (auth.Secret, error) {
	if f.file != "" {
		return f.fromFile()
	}
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !term.IsTerminal(int(in.Fd())) || from == backup.Standard {
		return "", errors.New("it is encrypted: name a file that has the passphrase with --passphrase-file")
	}
	return askPassphrase(cmd, "Passphrase of the backup: ")
}

// maxPassphrase bounds the file of a passphrase, in octets.
const maxPassphrase = 4096

func (f *secretFlags) fromFile() (auth.Secret, error) {
	if f.file == "" {
		return "", nil
	}
	text, err := textfile.Bounded(f.file, maxPassphrase)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: its first line is empty, and should be the passphrase", f.file)
	}
	return auth.Secret(line), nil
}

func askPassphrase(cmd *cobra.Command, prompt string) (auth.Secret, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errors.New("there is no terminal to ask for a passphrase: name a file that has it with " +
			"--passphrase-file")
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	switch {
	case err != nil:
		return "", fmt.Errorf("read the passphrase: %w", err)
	case len(b) == 0:
		return "", errors.New("the passphrase is empty")
	}
	return auth.Secret(b), nil
}

// progressTo tells what begins, from the second on that work takes.
func progressTo(w io.Writer) func(what string) {
	began := time.Now()
	return func(what string) {
		if time.Since(began) > 2*time.Second {
			fmt.Fprintln(w, time.Now().Format(time.TimeOnly), what)
		}
	}
}

func printMade(w io.Writer, m backup.Made) error {
	name, total := m.File, int64(0)
	if name == backup.Standard {
		name = "the backup"
	}
	for _, p := range m.Parts {
		total += p.Size
	}
	mail := fmt.Sprintf("%s (%s) in the queue", plural(m.Messages, "message"), size(m.Octets))
	if !m.Mail {
		mail = "no queue: " + plural(m.LeftOut, "message") + " in it were left out"
	}
	if _, err := fmt.Fprintf(w, "Wrote %s: %s, with %s.\n", name, size(total), mail); err != nil {
		return err
	}
	if m.Key != "" {
		_, err := fmt.Fprintf(w, "What is sealed in it stays so: a restore needs %s too. Keep a copy elsewhere.\n",
			m.Key)
		return err
	}
	_, err := fmt.Fprintln(w, "It is encrypted, and needs nothing but the passphrase. Keep that elsewhere.")
	return err
}
