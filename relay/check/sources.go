package check

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"postern/auth"
	"postern/internal/rights"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/sources"
)

// checkSources makes the sources of [[auth.source]], which reads password files and connects to nothing.
func checkSources(c *config.Config) (problems []config.Problem) {
	for i := range c.Auth.Sources {
		block := &c.Auth.Sources[i]
		if block.Type == config.SourceStore {
			continue
		}
		s, err := sources.One(block, nil)
		if err == nil {
			sources.Close([]auth.Source{s}, nil)
			continue
		}
		key := fmt.Sprintf("auth.source[%d]", i+1)
		if bad, ok := errors.AsType[*mail.KeyError](err); ok {
			key, err = key+"."+bad.Key, errors.New(bad.Msg)
		}
		problems = append(problems, c.Problem(key, "%s", err))
	}
	return problems
}

// unwiseSources warns of password files that others may write, and of claims that anybody may set.
func unwiseSources(c *config.Config) (warnings []config.Problem) {
	for i, s := range c.Auth.Sources {
		if r, err := rights.Of(s.Path); s.Type == config.SourceFile && err == nil && r.OthersWrite {
			warnings = append(warnings, c.Problem(fmt.Sprintf("auth.source[%d].path", i+1), "%s can be written by "+
				"others than its owner (%s), who could give themselves an account; run: %s", s.Path, r,
				r.Command("go-w", s.Path)))
		}
		if s.Type == config.SourceOIDC && s.LoginClaim == "email" && isEntra(s.Issuer) {
			warnings = append(warnings, c.Problem(fmt.Sprintf("auth.source[%d].login_claim", i+1), "is \"email\", "+
				"which at Entra ID nobody verifies: whoever may edit a user's address there logs in as its owner; "+
				"write \"preferred_username\" or \"upn\" for people, \"azp\" or \"appid\" for applications"))
		}
	}
	return warnings
}

// isEntra reports whether an issuer is Entra ID.
func isEntra(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && slices.Contains([]string{"login.microsoftonline.com", "sts.windows.net",
		"login.microsoftonline.us", "login.partner.microsoftonline.cn"}, u.Hostname())
}

// sourceTime bounds the look at one source.
const sourceTime = 10 * time.Second

// SourceTrouble is a remote source of [[auth.source]] that cannot answer.
type SourceTrouble struct {
	Number int // of its block, from one
	Block  *config.AuthSource
	Err    error // nil: it answers
}

// Reach asks the remote sources whether they could answer, all at once. Config has found nothing wrong with c.
func Reach(ctx context.Context, c *config.Config) []SourceTrouble {
	var list []SourceTrouble
	for i := range c.Auth.Sources {
		if c.Auth.Sources[i].Remote() {
			list = append(list, SourceTrouble{Number: i + 1, Block: &c.Auth.Sources[i]})
		}
	}
	var asking sync.WaitGroup
	for i := range list {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, sourceTime)
			defer cancel()
			list[i].Err = reach(ctx, list[i].Block)
		})
	}
	asking.Wait()
	return list
}

func reach(ctx context.Context, block *config.AuthSource) error {
	s, err := sources.One(block, nil)
	if err != nil {
		return err
	}
	defer sources.Close([]auth.Source{s}, nil)
	r, remote := s.(auth.Remote)
	if !remote {
		return nil
	}
	return r.Probe(ctx)
}

// Unreachable is Reach as warnings.
func Unreachable(ctx context.Context, c *config.Config) (warnings []config.Problem) {
	for _, s := range Reach(ctx, c) {
		if s.Err != nil {
			warnings = append(warnings, c.Problem(fmt.Sprintf("auth.source[%d]", s.Number), "cannot answer now, and "+
				"its logins would get 454: %s", mail.Printable(mail.Cut(s.Err.Error(), 500))))
		}
	}
	return warnings
}
