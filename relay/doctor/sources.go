package doctor

import (
	"context"
	"fmt"

	"postern/auth/passwdfile"
	"postern/internal/rights"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/finding"
)

// sourceExam looks at the sources of logins beside the store.
type sourceExam struct{ *exam }

// sources asks the remote sources whether they answer, and reads password files.
func (x sourceExam) sources(ctx context.Context) (list []finding.Finding) {
	if len(x.c.Auth.Sources) == 1 && x.c.Auth.Sources[0].Type == config.SourceStore {
		return nil // accounts looks at it
	}
	for i := range x.c.Auth.Sources {
		if block := &x.c.Auth.Sources[i]; block.Type == config.SourceFile {
			list = append(list, x.file(i+1, block)...)
		}
	}
	if !x.complete {
		return append(list, skipped("sources", "No source of logins was asked, since relay.toml is wrong elsewhere.",
			"Mend it, and run postern doctor again."))
	}
	for _, s := range check.Reach(ctx, x.c) {
		subject := fmt.Sprintf("auth.source[%d] (%s)", s.Number, said(s.Block.Name))
		if s.Err == nil {
			list = append(list, fine(codeSourceOK, subject, "It answers."))
			continue
		}
		list = append(list, found(codeSourceDown, finding.Fault, subject, "It cannot answer: "+
			sentence(said(s.Err.Error())), "Its logins get 454, and what they send waits in their programs.",
			sourceFix(s.Block)+"\nThen try a login: postern auth test LOGIN"))
	}
	return list
}

func sourceFix(s *config.AuthSource) string {
	switch s.Type {
	case config.SourceLDAP:
		return "Look whether the servers in urls run, whether this machine may connect there (ports 636 and 389), " +
			"whether their certificate has the names in urls and comes from an authority in ca_file, and whether " +
			"bind_dn and bind_password are right. docs/accounts says how to see each."
	case config.SourceDovecot:
		return "Look whether Dovecot runs, and whether its service auth has a unix_listener " + said(s.Socket) +
			" that Postern's user may open."
	}
	return "Look whether the program at url runs and answers as docs/accounts/http.md says."
}

func (x sourceExam) file(n int, block *config.AuthSource) []finding.Finding {
	subject := fmt.Sprintf("auth.source[%d] (%s)", n, said(block.Name))
	f, err := passwdfile.New(block.Name, block.Path)
	if err != nil {
		why := "Postern does not start with it."
		if x.serving {
			why = "What Postern read before stays in force; after a restart it would not start."
		}
		return []finding.Finding{found(codeSourceFile, finding.Fault, subject, sentence(said(err.Error())), why,
			"Mend that line; the file is read again by itself.")}
	}
	if r, err := rights.Of(block.Path); err == nil && r.OthersWrite {
		return []finding.Finding{found(codeSourceFile, finding.Fault, subject,
			fmt.Sprintf("%s can be written by others than its owner (%s).", said(block.Path), r),
			"Whoever may write there can give themselves an account.", r.Command("go-w", said(block.Path)))}
	}
	return []finding.Finding{fine(codeSourceOK, subject, "It was read: %s.", count(f.Len(), "login"))}
}
