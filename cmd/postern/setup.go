package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/certs"
	"postern/internal/howto"
	"postern/internal/places"
	"postern/internal/rights"
	"postern/operate"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/setup"
	"postern/relay/sign"
)

func (a *app) setupCommand() *cobra.Command {
	answers, given := &setup.Answers{}, map[string]*string{}
	var yes bool
	var dns dnsFlags
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Ask a few questions, write a first relay.toml, make what it needs, and test the provider",
		Long: `Ask which provider takes the mail, which domain it is from, and who logs in first; flags
answer too. Then write relay.toml, make what it needs (data_dir, a certificate, a DKIM key where the provider lets
us sign, the first account), check it, test the provider without sending anything, look at this machine and at the DNS
of the domain as "postern doctor" does, and say what is left to do.

Nothing is ever overwritten: where there is a relay.toml, it stops.`,
		Example: `  postern setup
  postern setup --yes --provider sendgrid --password file:/etc/postern/key --domain example.com`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := map[string]string{}
			for name, value := range given {
				if cmd.Flags().Changed(name) {
					flags[name] = *value
				}
			}
			if _, err := dns.options(a); err != nil {
				return usage(cmd, err)
			}
			s := setupRun{a, cmd, answers, dns.resolver}
			return s.run(flags, yes)
		},
	}
	for i := range setup.Questions {
		q := &setup.Questions[i]
		what := strings.ToLower(q.Ask[:1]) + q.Ask[1:]
		if q.Secret {
			what += ", as file:PATH or env:NAME"
		}
		given[q.Flag] = new(string)
		cmd.Flags().Var((*commaList)(given[q.Flag]), q.Flag, what)
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "ask nothing: what no flag gives has its default")
	cmd.Flags().StringVar(&answers.DataDir, "data-dir", "", "`directory` for queue, accounts and keys")
	cmd.Flags().StringVar(&answers.CertFile, "cert", "", "certificate `file` of this server (default: self-signed)")
	cmd.Flags().StringVar(&answers.KeyFile, "key", "", "its key `file`")
	cmd.Flags().StringVar(&answers.Address, "address", "", "listen on this `address` only")
	dns.add(cmd)
	return cmd
}

// commaList is a flag whose values, where it is given more than once, count together.
type commaList string

func (l *commaList) String() string { return string(*l) }
func (l *commaList) Type() string   { return "string" }

func (l *commaList) Set(value string) error {
	if *l != "" {
		value = string(*l) + "," + value
	}
	*l = commaList(value)
	return nil
}

// setupRun is one run of the command.
type setupRun struct {
	*app
	cmd      *cobra.Command
	answers  *setup.Answers
	resolver string // --resolver
}

func (s setupRun) run(given map[string]string, yes bool) error {
	path, err := s.newConfig()
	if err != nil {
		return err
	}
	s.answers.DataDir = dataDirFor(path, s.answers.DataDir)
	s.answers.Hostname = fullHostname()
	ask, err := s.asker(s.cmd, yes)
	if err != nil {
		return err
	}
	if err := setup.Ask(s.answers, given, ask); err != nil {
		return usage(s.cmd, err)
	}
	if err := secretsExist(filepath.Dir(path), s.answers.Password, s.answers.Secret); err != nil {
		return err
	}
	if err := writeSetup(path, s.answers); err != nil {
		return err
	}
	s.configPath = path
	return s.finish(path)
}

// newConfig is where the configuration will be: where other commands will look for it.
func (a *app) newConfig() (string, error) {
	path, err := a.path()
	switch {
	case err != nil && rights.Administrator() && isDir(a.etc):
		path = filepath.Join(a.etc, "relay.toml")
	case err != nil:
		path = "relay.toml"
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("there is a %s already, and setup overwrites nothing; for another one: --config", path)
	}
	return path, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// dataDirFor is the directory of the service for the configuration of the service, else one beside the file.
func dataDirFor(path, given string) string {
	switch {
	case given != "":
		return given
	case filepath.Dir(path) == places.Etc():
		return places.DataDir()
	}
	return "data"
}

// fullHostname is the name of this machine, "" if it has no domain.
func fullHostname() string {
	name, err := os.Hostname()
	if err != nil || !strings.Contains(name, ".") || strings.HasSuffix(name, ".local") {
		return ""
	}
	return name
}

// asker asks on the terminal. Without one, and with --yes, nobody is asked.
func (a *app) asker(cmd *cobra.Command, yes bool) (func(*setup.Question, string, error) (string, error), error) {
	in, isFile := cmd.InOrStdin().(*os.File)
	terminal := isFile && term.IsTerminal(int(in.Fd()))
	switch {
	case yes:
		return nil, nil
	case isFile && !terminal:
		return nil, usage(cmd, errors.New("there is no terminal to ask on: answer with flags, and --yes for the rest"))
	}
	lines := bufio.NewReader(cmd.InOrStdin())
	return func(q *setup.Question, standard string, wrong error) (string, error) {
		out := cmd.OutOrStdout()
		if wrong != nil {
			fmt.Fprintf(out, "  %v\n", wrong)
		} else {
			describe(out, q)
		}
		fmt.Fprintf(out, "%s%s: ", q.Ask, bracketed(standard))
		if q.Secret && terminal {
			text, err := term.ReadPassword(int(in.Fd()))
			fmt.Fprintln(out)
			return string(text), err
		}
		text, err := lines.ReadString('\n')
		if err == io.EOF && text == "" {
			return "", errors.New("the input ended before the last question; nothing was written")
		}
		return text, nil
	}, nil
}

func describe(w io.Writer, q *setup.Question) {
	fmt.Fprintln(w)
	if len(q.Choices) > 0 {
		fmt.Fprintf(w, "  %s\n", strings.Join(q.Choices, "  "))
	}
	if q.Help != "" {
		fmt.Fprintf(w, "  %s\n", q.Help)
	}
}

func bracketed(standard string) string {
	if standard == "" {
		return ""
	}
	return " [" + standard + "]"
}

// secretsExist looks whether what refers to a secret finds one, before anything is written.
func secretsExist(dir string, references ...string) error {
	for _, ref := range references {
		if name, is := strings.CutPrefix(ref, "env:"); is && os.Getenv(name) == "" {
			return fmt.Errorf("the environment variable %s is not set", name)
		}
		if name, is := strings.CutPrefix(ref, "file:"); is {
			if !filepath.IsAbs(name) {
				name = filepath.Join(dir, name)
			}
			if _, err := os.ReadFile(name); err != nil {
				return fmt.Errorf("the secret cannot be read: %w", err)
			}
		}
	}
	return nil
}

// writeSetup writes the secrets, then relay.toml: files that are not there yet, for their owner alone. When one cannot
// be written, those before it are removed.
func writeSetup(path string, answers *setup.Answers) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files := answers.Secrets()
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	files[filepath.Base(path)] = answers.Text(time.Now())
	var written []string
	defer func() {
		if err != nil {
			for _, name := range written {
				os.Remove(name)
			}
		}
	}()
	for _, name := range append(names, filepath.Base(path)) {
		full := filepath.Join(dir, name)
		if err := writeNew(full, files[name]); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("there is a %s already, and setup overwrites nothing: move it away first", full)
			}
			return err
		}
		written = append(written, full)
	}
	return nil
}

func writeNew(path, text string) error {
	f, err := rights.Create(path)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, f.Sync(), f.Close(), shareWithService(path)); err != nil {
		os.Remove(path)
	}
	return err
}

// finish makes what the configuration needs, tests it, and says what is left to do.
func (s setupRun) finish(path string) error {
	out := s.cmd.OutOrStdout()
	fmt.Fprintf(out, "\nWrote %s.\n", path)
	c, problems := check.Config(s.cmd.Context(), path)
	for _, p := range problems {
		fmt.Fprintf(out, "  %s\n", p)
	}
	if c == nil {
		return errors.New("mend these in the file, then: postern check; postern user add LOGIN")
	}
	card, keys, err := s.makeFirst(s.cmd.Context(), c, s.answers)
	if err != nil {
		return err
	}
	for _, w := range check.Warnings(c, time.Now()) {
		fmt.Fprintf(out, "  note: %s\n", w.Message)
	}
	upstream := c.Upstreams[0].Name
	tested := s.answers.Consents()
	if !tested {
		fmt.Fprintf(out, "\nThe provider, without sending anything (postern upstream test %s):\n\n", upstream)
		tested = s.rerun(s.cmd, "upstream", "test", upstream)
	}
	fmt.Fprintf(out, "\nThis machine and the DNS of the domain (postern doctor):\n\n")
	healthy := s.rerun(s.cmd, s.doctorArgs()...)
	fmt.Fprintf(out, "\nThe first login:\n\n  SMTP server  %s\n  Encryption   %s\n  Login        %s\n  "+
		"Password     %s\n"+
		"  Sends as     %s\n\nThe password is shown this once.\n", card.Server, card.Encryption, card.Login,
		card.Password, s.answers.Sender)
	fmt.Fprintf(out, "\nLeft to do:\n\n")
	left := leftToDo(c, s.answers, keys, tested, healthy)
	if len(problems) > 0 {
		left = slices.Insert(left, 0, "Mend what is said of relay.toml above, then: postern check")
	}
	for i, l := range left {
		fmt.Fprintf(out, "  %d. %s\n", i+1, l)
	}
	if !tested || len(problems) > 0 {
		return errSilent
	}
	return nil
}

// doctorArgs examine what can be examined before Postern runs, and was not just tested.
func (s setupRun) doctorArgs() []string {
	args := []string{"doctor"}
	for _, name := range []string{"certificates", "clock", "disk", "files", "store", "dns"} {
		args = append(args, "--only", name)
	}
	if s.resolver != "" {
		args = append(args, "--resolver", s.resolver)
	}
	return args
}

// makeFirst makes the data directory, the certificate, the first account, and keys where we may sign.
func (a *app) makeFirst(ctx context.Context, c *config.Config, answers *setup.Answers) (
	card operate.DeviceCard, keys []operate.Key, err error) {
	if err := rights.MkdirAll(c.DataDir); err != nil {
		return card, nil, err
	}
	if _, err := certs.New(c.CertOptions(slog.New(slog.DiscardHandler))); err != nil {
		return card, nil, err
	}
	s, err := openStoreOf(ctx, c)
	if err != nil {
		return card, nil, err
	}
	defer s.Close()
	ops := a.operationsOn(c, s)
	card.Server, card.Encryption = operate.DeviceServer(c)
	card.Credential, err = ops.Accounts.Add(ctx, me(), operate.NewAccount{Login: answers.Login,
		Device: answers.Device(), Senders: []string{answers.Sender}, Networks: answers.Networks, Note: "made by setup"})
	if err != nil || !c.Signs() {
		return card, nil, err
	}
	keys, err = ops.Keys.Add(ctx, me(), answers.Domain, "", []string{sign.RSA2048, sign.Ed25519})
	return card, keys, err
}

// leftToDo is what only a person can do.
func leftToDo(c *config.Config, answers *setup.Answers, keys []operate.Key, tested, healthy bool) (
	left []string) {
	add := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	upstream := c.Upstreams[0].Name
	switch {
	case answers.Consents():
		add("Let the mailbox's owner consent: postern upstream login %s", upstream)
	case !tested:
		add("Mend what the test of the provider found, then: postern upstream test %s", upstream)
	}
	add("Let %s lead to this machine in the office's DNS; it is what clients type.", c.Hostname)
	if answers.CertFile == "" {
		add("Give it a certificate that clients trust: [tls.acme] gets one, docs/certificates.md. Until then they " +
			"warn: it is self-signed.")
	}
	if len(keys) > 0 {
		add("Publish the DKIM records: postern dkim dns %s", answers.Domain)
	}
	if !healthy {
		add("Mend what the examination above calls a danger, the DNS of the domain with the records that this shows: "+
			"postern dns %s", answers.Domain)
	}
	add("Start it: postern serve, or as a service: " + howto.Enable)
	add("When it runs: postern doctor, and postern console invite NAME --role admin")
	return left
}

// rerun runs another command with the configuration that was written, and reports whether it succeeded.
func (a *app) rerun(cmd *cobra.Command, args ...string) bool {
	root := rootCommandOf(&app{etc: a.etc, poll: a.poll, wide: a.wide, dns: a.dns, authorityPort: a.authorityPort})
	root.SetOut(cmd.OutOrStdout())
	root.SetErr(cmd.ErrOrStderr())
	root.SetArgs(append(args, "--config", a.configPath))
	err := root.ExecuteContext(cmd.Context())
	if err != nil && !errors.Is(err, errSilent) {
		fmt.Fprintf(cmd.OutOrStdout(), "  %v\n", err)
	}
	return err == nil
}
