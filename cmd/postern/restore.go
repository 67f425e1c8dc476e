package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"postern/auth"
	"postern/internal/howto"
	"postern/mail"
	"postern/operate"
	"postern/relay/backup"
)

// restoreFlags are those of `postern restore`.
type restoreFlags struct {
	queue       string
	sealKey     string
	check       bool
	printConfig bool
	configOut   string
	by          secretFlags
}

const restoreHelp = `Bring back what postern backup has written, into the data_dir of relay.toml, which has to be empty.
Everything is verified before anything gets its place. One that is broken off is begun anew by calling it again, and
until it has ended well nothing starts there. - reads standard input.

What was in the queue when the backup was made may have been sent since, and is sent again. So where there is any, say
what becomes of it:

  --queue hold   All of it is held. Look, and let go what is to be sent: postern queue list, postern queue release ID
  --queue keep   All of it is sent. What the backup knew as sent is not; what was sent since then is sent twice.
  --queue drop   Nothing of it is sent, ever. The trace names each recipient.

Take hold where the old relay may still run, or has run for long since the backup.

Everybody has to log in anew to the console and the page of app passwords, and invitations are withdrawn. Everything
else is as it was: accounts, app passwords and tokens that were locked or revoked since the backup are valid again.

FILE is not changed. See docs/disaster.md.`

func (a *app) restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring a backup back into an empty data_dir",
		Long:  restoreHelp,
		Example: `  postern restore postern.backup --check
  postern restore postern.backup --config-out /etc/postern/relay.toml
  postern restore postern.backup --queue hold --passphrase-file backup.pw
  postern restore plain.backup --queue keep --seal-key seal.key`,
		Args: exactly(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch operate.Fate(f.queue) {
		case "", operate.KeepQueue, operate.HoldQueue, operate.DropQueue:
		default:
			return usage(cmd, fmt.Errorf("--queue is %q, and may be keep, hold or drop", f.queue))
		}
		if f.check && f.printConfig || f.check && f.configOut != "" || f.printConfig && f.configOut != "" {
			return usage(cmd, errors.New("--check, --print-config and --config-out exclude each other"))
		}
		if err := f.by.check(cmd); err != nil {
			return err
		}
		defer endOnHangup(cmd)()
		return a.restore(cmd, args[0], &f)
	}
	cmd.Flags().StringVar(&f.queue, "queue", "", "`what` becomes of mail that is in its queue: keep, hold or drop")
	fates := []string{string(operate.KeepQueue), string(operate.HoldQueue), string(operate.DropQueue)}
	_ = cmd.RegisterFlagCompletionFunc("queue", cobra.FixedCompletions(fates, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&f.sealKey, "seal-key", "", "`file` seal.key of the old data_dir, for a backup without "+
		"passphrase")
	cmd.Flags().BoolVar(&f.check, "check", false, "verify the backup, and bring nothing back")
	cmd.Flags().BoolVar(&f.printConfig, "print-config", false, "print the relay.toml that is in it, do nothing else")
	cmd.Flags().StringVar(&f.configOut, "config-out", "", "write the relay.toml that is in it to this new `file`, "+
		"which others may not read, do nothing else")
	f.by.add(cmd, "decrypt with")
	return withJSON(cmd)
}

func (a *app) restore(cmd *cobra.Command, name string, f *restoreFlags) error {
	from, done, err := backupFrom(cmd, name)
	if err != nil {
		return err
	}
	defer done()
	passphrase := backup.Passphrase{Given: f.by.given(),
		Ask: func() (auth.Secret, error) { return f.by.forRestore(cmd, name) }}
	if f.printConfig || f.configOut != "" {
		text, err := backup.Configuration(from, passphrase)
		switch {
		case err != nil:
			return err
		case f.configOut != "":
			if err = writeNew(f.configOut, string(text)); errors.Is(err, os.ErrExist) {
				err = fmt.Errorf("%s is there already: move it away, or name another file", f.configOut)
			}
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	o := backup.RestoreOptions{SealKey: f.sealKey, Passphrase: passphrase, Progress: progressTo(cmd.ErrOrStderr())}
	if f.check {
		return checkBackup(cmd, from, name, o)
	}
	return a.bringBack(cmd, from, f, o)
}

// bringBack restores into the data_dir of relay.toml.
func (a *app) bringBack(cmd *cobra.Command, from io.Reader, f *restoreFlags, o backup.RestoreOptions) error {
	c, err := a.read()
	if err != nil {
		return fmt.Errorf("%w; postern restore FILE --config-out relay.toml writes the relay.toml of an "+
			"encrypted backup", err)
	}
	r, err := operate.Restore(cmd.Context(), me(), c, from, operate.Fate(f.queue), o)
	switch {
	case errors.Is(err, operate.ErrFate):
		return usage(cmd, fmt.Errorf("%w, which may have been sent since: say with --queue what becomes of it; "+
			"nothing was changed", err))
	case err != nil && r.Made.IsZero():
		return err
	case err != nil:
		return fmt.Errorf("%w (of the backup made %s)", err, r.Made.Local().Format("2006-01-02 15:04:05Z07:00"))
	case asJSON(cmd):
		return writeJSON(cmd.OutOrStdout(), r)
	}
	return printRestored(cmd.OutOrStdout(), r)
}

// backupFrom opens a backup.
func backupFrom(cmd *cobra.Command, name string) (from io.Reader, done func(), err error) {
	if name == backup.Standard {
		return cmd.InOrStdin(), func() {}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if info, err := file.Stat(); err != nil || info.IsDir() {
		file.Close()
		return nil, nil, errors.Join(err, fmt.Errorf("%s is no file", name))
	}
	return file, func() { file.Close() }, nil
}

func checkBackup(cmd *cobra.Command, from io.Reader, name string, o backup.RestoreOptions) error {
	m, err := backup.Check(cmd.Context(), from, o)
	switch {
	case err != nil:
		return err
	case asJSON(cmd):
		return writeJSON(cmd.OutOrStdout(), m)
	}
	key := "It has the key that opens what is sealed in it."
	if !m.HasKey() && o.SealKey == "" {
		key = "Its seal.key is elsewhere; --seal-key FILE looks whether that is the right one."
	} else if !m.HasKey() {
		key = o.SealKey + " opens what is sealed in it."
	}
	queued := plural(m.Messages, "message") + " in the queue"
	if !m.Mail {
		queued = "no queue (" + plural(m.LeftOut, "message") + " left out)"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is whole: of %s, made %s, with %s. %s\n", name,
		mail.Printable(m.Hostname), m.Made.Local().Format("2006-01-02 15:04:05Z07:00"), queued, key)
	return err
}

func printRestored(w io.Writer, r operate.Restored) error {
	became := "Its queue was empty."
	switch of := plural(r.Messages, "message"); {
	case !r.Mail:
		became = "It has no queue: " + plural(r.LeftOut, "message") + " waited when it was made, and were left out."
	case r.Messages == 0 && r.Held == 0 && r.Dropped == 0:
	case r.Queue == operate.HoldQueue:
		became = of + " in the queue are held: postern queue list, then postern queue release ID or --all"
	case r.Queue == operate.DropQueue:
		became = of + " of its queue were dropped; postern trace has them."
	case r.Queue == operate.KeepQueue:
		became = of + " in the queue are sent as soon as it is started."
	}
	_, err := fmt.Fprintf(w, `Restored the backup made %s into %s.
%s
What was locked, revoked or removed since then is valid again: look, before people use it.

Next:
  postern check
  %s
`, r.Made.Local().Format("2006-01-02 15:04:05Z07:00"), r.Dir, became, howto.Start)
	return err
}
