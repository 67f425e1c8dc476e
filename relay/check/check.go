// Package check says what is wrong or unwise about a configuration and about the machine that is to run it, without
// starting or creating anything. It calls a problem exactly what relay.New refuses.
package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"postern/certs"
	"postern/internal/rights"
	"postern/mail"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/monitor"
	"postern/relay/outbound"
	relaystore "postern/relay/store"
)

// Config says what relay.New would refuse about a configuration, without starting or making anything. The
// Config is nil only when the file could not be read.
func Config(ctx context.Context, path string) (*config.Config, []config.Problem) {
	c, problems := ButAddresses(ctx, path)
	if c == nil {
		return nil, problems
	}
	taken, _ := checkAddresses(c)
	return c, append(problems, taken...)
}

// ButAddresses is Config without a look at whether addresses can be bound: during a restart systemd keeps their sockets
// open, and nobody can tell them from those of another program.
func ButAddresses(ctx context.Context, path string) (*config.Config, []config.Problem) {
	c, err := config.Load(path)
	if err != nil {
		return nil, append(problemsOf(path, err), certificatesBeside(path)...)
	}
	var problems []config.Problem
	add := func(key string, err error) {
		if err != nil {
			problems = append(problems, c.Problem(key, "%s", err))
		}
	}
	addBelow := func(key string, err error) { // the error may know which key below it is
		if bad, ok := errors.AsType[*mail.KeyError](err); ok {
			key, err = key+"."+bad.Key, errors.New(bad.Msg)
		}
		add(key, err)
	}
	problems = append(problems, checkCertificates(c)...)
	_, err = policy.New(c.Rules())
	add("policy", err)
	for i, d := range c.DKIM {
		_, err := outbound.ConfiguredKey(d)
		add(fmt.Sprintf("dkim[%d].key_file", i+1), err)
	}
	for i, u := range c.Upstreams {
		key := fmt.Sprintf("upstream[%d]", i+1)
		addBelow(key, outbound.CheckUpstream(c.Hostname, u))
		addBelow(key+".oauth", outbound.CheckTokens(u))
	}
	problems = append(problems, checkSources(c)...)
	add(storeKey(c), checkStore(ctx, c))
	return c, problems
}

// Warnings says what relay.New takes though it is unwise, and what it logs in with or presents that ends soon, or has
// ended. Config has found nothing wrong with c.
func Warnings(c *config.Config, now time.Time) []config.Problem {
	warnings, known := unwise(context.Background(), c)
	add := func(key, format string, args ...any) { warnings = append(warnings, c.Problem(key, format, args...)) }
	if infos, err := certs.Check(c.CertOptions(slog.New(slog.DiscardHandler)), now); err == nil &&
		c.TLS.CertFile != "" {
		for _, info := range infos {
			for _, w := range info.Warnings {
				add("tls.cert_file", "%s", w)
			}
		}
	}
	if r, err := rights.Of(c.DataDir); err == nil && r.Open {
		add("data_dir", "%s is open to other users of this machine (%s); run: %s", c.DataDir, r,
			r.Command("700", c.DataDir))
	}
	warnings = slices.Concat(warnings, checkAutoconfig(c, now), checkRoom(c), silentLogins(c, known))
	for i, u := range c.Upstreams {
		key := fmt.Sprintf("upstream[%d]", i+1)
		if end, err := outbound.CertificateEnd(u.CertFile); u.CertFile != "" && err == nil &&
			end.Sub(now) <= monitor.ExpiryAhead {
			add(key+".cert_file", "%s %s, and the provider takes no mail with it then; renew it", u.CertFile,
				monitor.EndsInWords(end, now))
		}
		expiries, _ := outbound.Expiries(u, now) // Check has seen the error
		for _, e := range expiries {
			if e.Soon {
				add(key+".oauth", "the %s %s, and without it no mail leaves there; %s", e.What,
					monitor.EndsInWords(e.At, now), e.Fix)
			}
		}
	}
	return warnings
}

// Unwise is what Warnings says of the text of relay.toml, and of what does not fit between it, the rights of this
// process and the groups and keys of the store. Certificates, accounts, what ends and the disk are not among it.
func Unwise(ctx context.Context, c *config.Config) []config.Problem {
	all, _ := unwise(ctx, c)
	return all
}

func unwise(ctx context.Context, c *config.Config) ([]config.Problem, logins) {
	_, rights := checkAddresses(c)
	stored, known := checkStored(ctx, c)
	return slices.Concat(c.Warnings(), rights, leftBehind(c), stored, weakFiles(c), unwiseSources(c),
		unwiseMechanisms(c), unwiseCram(c), scramFiles(c)), known
}

func problemsOf(path string, err error) []config.Problem {
	if e, ok := err.(*config.Error); ok {
		return e.Problems
	}
	return []config.Problem{{File: path, Message: err.Error()}}
}

// storeKey is the key that says where the store is.
func storeKey(c *config.Config) string {
	if c.Store.URL.Server() {
		return "store.url"
	}
	return "data_dir"
}

// checkStore reads what the store holds. A store that does not exist yet is right: the first start
// makes it.
func checkStore(ctx context.Context, c *config.Config) error {
	s, err := relaystore.OpenThere(ctx, relaystore.Of(c))
	if errors.Is(err, relaystore.ErrOlder) { // which checkStored says
		return nil
	}
	if err != nil {
		return err
	}
	if s == nil {
		return checkParent(c.DataDir)
	}
	defer s.Close()
	_, err = outbound.StoredKeys(ctx, s)
	return err
}

// checkParent says what would keep the first start from making the data directory.
func checkParent(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		return nil
	}
	if _, err := os.Stat(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("%s does not exist; make it, the first start makes only the last part of the path",
			filepath.Dir(dir))
	}
	return nil
}
