package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/finding"
	"postern/relay/monitor"
	"postern/relay/outbound"
	"postern/relay/status"
	relaystore "postern/relay/store"
	"postern/relay/trial"
	"postern/relay/upstream"
	"postern/relay/upstream/oauth"
)

// upstreamExam looks at upstreams.
type upstreamExam struct{ *exam }

// Bounds of the test of upstreams. A way to a login has trialTime, and each sender may be one.
const (
	trialTime     = 15 * time.Second
	upstreamsTime = 3 * time.Minute
	trialsAtOnce  = 3
)

// upstreams tries each upstream as a delivery would, and says what the daemon knows of it.
func (x upstreamExam) upstreams(ctx context.Context) (list []finding.Finding) {
	if !x.complete {
		return []finding.Finding{skipped("upstreams", "No upstream was tried, since relay.toml is wrong elsewhere.",
			"Mend it, and run postern doctor again.")}
	}
	reports := x.try(ctx)
	broken := map[string]bool{} // none of its senders can send
	for i, u := range x.c.Upstreams {
		broken[u.Name] = reports[i].report == nil || !someWay(reports[i].report)
	}
	for i, u := range x.c.Upstreams {
		list = append(list, x.tried(&u, reports[i], broken)...)
		list = append(list, x.known(&u, reports[i].report != nil && reports[i].report.OK)...)
	}
	return append(append(list, x.secrets()...), x.quotas(ctx)...)
}

// attempt is the test of one upstream.
type attempt struct {
	report *trial.Report
	err    error
}

func (x upstreamExam) try(ctx context.Context) []attempt {
	all := make([]attempt, len(x.c.Upstreams))
	slots := make(chan struct{}, trialsAtOnce)
	var tests sync.WaitGroup
	for i, u := range x.c.Upstreams {
		tests.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, upstreamsTime-usualTime)
			defer cancel()
			all[i].report, all[i].err = trial.Whole(ctx, x.c, u, trialTime)
		})
	}
	tests.Wait()
	return all
}

// someWay reports that mail of some sender can leave.
func someWay(r *trial.Report) bool {
	taken, refused := false, false
	for i := range r.Steps {
		switch s := &r.Steps[i]; {
		case s.Sender == (mail.Address{}).Path(), s.Name == "large-mail":
		case !s.OK && s.Sender == "":
			return false
		case !s.OK:
			refused = true
		case s.Name == "mail", s.Name == "permission":
			taken = true
		}
	}
	return taken || !refused
}

// otherWay reports that the mail of a sender is taken with another login than its own.
func otherWay(r *trial.Report, s *trial.Step) bool {
	return s.Sender != "" && slices.ContainsFunc(r.Steps, func(t trial.Step) bool {
		return t.OK && t.Sender == s.Sender && t.Identity != s.Identity && (t.Name == "mail" || t.Name == "permission")
	})
}

// tried says what a test came to.
func (x upstreamExam) tried(u *config.Upstream, a attempt, broken map[string]bool) (list []finding.Finding) {
	switch {
	case errors.Is(a.err, relaystore.ErrOlder): // storeExam says so
		return nil
	case a.err != nil:
		return []finding.Finding{found(codeUpstreamUntested, finding.Fault, u.Name, "Upstream "+u.Name+" could not be "+
			"tried: "+sentence(said(a.err.Error())), "It is not known whether mail can leave there.",
			"postern upstream test "+u.Name)}
	}
	w := finding.Fault
	if broken[u.Name] && x.noOther(u.Name, broken) {
		w = finding.Danger
	}
	seen := map[string]bool{}
	for i := range a.report.Steps {
		s := &a.report.Steps[i]
		if s.OK {
			continue
		}
		f := x.step(u, s, w)
		if otherWay(a.report, s) {
			f.Weight, f.Why = finding.Fault,
				"Its mail leaves as "+said(u.Username)+" meanwhile, which needs the right to "+
					"send for it, and shares the limits of that mailbox."
		}
		if key := f.Code + f.What; !seen[key] {
			seen[key] = true
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		list = append(list, fine(codeUpstreamOK, u.Name, "It lets us in, and takes mail from what was tried: "+
			"%s. Whether receivers take that mail for genuine is for DNS to say.", count(senders(a.report), "sender")))
	}
	return list
}

// senders counts those that an upstream took.
func senders(r *trial.Report) int {
	seen := map[string]bool{}
	for _, s := range r.Steps {
		if s.OK && s.Sender != "" && s.Sender != (mail.Address{}).Path() {
			seen[strings.ToLower(s.Sender)] = true
		}
	}
	return len(seen)
}

// noOther reports that some route has no upstream left that works.
func (x upstreamExam) noOther(name string, broken map[string]bool) bool {
	if len(x.c.Routes) == 0 {
		return !slices.ContainsFunc(x.c.Upstreams, func(u config.Upstream) bool { return !broken[u.Name] })
	}
	return slices.ContainsFunc(x.c.Routes, func(r config.Route) bool {
		return slices.Contains(r.Upstreams, name) &&
			!slices.ContainsFunc(r.Upstreams, func(n string) bool { return !broken[n] })
	})
}

// stepCodes are what the steps of a test are called here.
var stepCodes = map[string]struct{ code, what string }{
	"resolve":    {codeUpstreamResolve, "the name of its server has no address"},
	"connect":    {codeUpstreamConnect, "no connection to it is possible"},
	"tls":        {codeUpstreamTLS, "no encrypted connection to it is possible"},
	"starttls":   {codeUpstreamTLS, "no encrypted connection to it is possible"},
	"greeting":   {codeUpstreamGreeting, "its server does not greet us"},
	"ehlo":       {codeUpstreamGreeting, "its server does not greet us"},
	"token":      {codeUpstreamToken, "its login service gives us no token"},
	"auth":       {codeUpstreamLogin, "it does not let us in"},
	"permission": {codeUpstreamSender, "it does not let us send"},
	"large-mail": {codeUpstreamLarge, "it does not take large mail"},
}

// step makes a finding of a step that failed.
func (x upstreamExam) step(u *config.Upstream, s *trial.Step, w finding.Weight) finding.Finding {
	known, ok := stepCodes[s.Name]
	why := "Mail that goes there waits, and is given up after " + x.c.Delivery.Expire.String() + "."
	null := mail.Address{}
	switch {
	case s.Name == "mail" && s.Sender == null.Path():
		known.code, known.what = codeUpstreamNull, "it takes no reports (mail with an empty sender)"
		w, why = finding.Fault, "Senders do not hear when their mail could not be delivered."
	case s.Name == "mail", s.Name == "permission" && s.Sender != "":
		known.code, known.what = codeUpstreamSender, "it does not take mail from "+said(s.Sender)
		w, why = finding.Danger, "Mail of this sender does not leave there."
	case s.Name == "large-mail":
		w, why = finding.Fault, "Mail with large attachments does not leave there."
	case !ok:
		known.code, known.what = codeUpstreamLogin, "its test fails at "+said(s.Name)
	}
	subject := u.Name
	if s.Identity != "" {
		known.what += ", logged in as " + said(s.Identity)
	}
	cause, fix := s.Cause, "postern upstream test "+u.Name+" shows all steps."
	if s.Advice != nil {
		cause = s.Advice.Cause
		fix = strings.Join(s.Advice.Fix, "\n") + "\nSee " + s.Advice.Source + "\nThen: postern upstream test " + u.Name
	} else if known.code == codeUpstreamNull {
		fix = "Write bounce_from in [delivery] of " + x.Path + ", with an address that the provider lets us send from."
	}
	what := "Upstream " + u.Name + ": " + known.what + ". " + sentence(said(cause))
	if reply := s.Reply.String(); s.Reply.Code != 0 && !s.Ours && !strings.Contains(cause, reply) {
		what += " It said: \"" + reported(reply) + "\"."
	}
	return found(known.code, w, subject, what, why, saidLines(fix))
}

// reported is said for what stands between quotation marks, so that it is known where it ends.
func reported(text string) string {
	return strings.TrimRight(strings.ReplaceAll(said(text), `"`, "'"), ".")
}

// saidLines is said for text that has lines.
func saidLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = said(lines[i])
	}
	return strings.Join(lines, "\n")
}

// known says what the daemon knows of an upstream beyond the test.
func (x upstreamExam) known(u *config.Upstream, works bool) (list []finding.Finding) {
	if x.report == nil {
		return nil
	}
	i := slices.IndexFunc(x.report.Upstreams, func(r status.Upstream) bool { return r.Name == u.Name })
	if i < 0 {
		return nil // the daemon has another configuration
	}
	r := &x.report.Upstreams[i]
	for j := range r.Identities {
		id := &r.Identities[j]
		if id.Ready() || id.Instead != "" {
			continue
		}
		list = append(list, x.waits(r, id, works))
	}
	for _, s := range r.Senders {
		fix := "When the permission is given: postern queue retry, for what waits."
		if s.Fix != "" {
			fix = s.Fix + "\n" + fix
		}
		list = append(list, found(codeSenderDenied, finding.Fault, u.Name,
			fmt.Sprintf("%s refused mail from %s: \"%s\".",
				u.Name, said(s.Sender), reported(s.Reply))+" "+said(s.Cause),
			"Mail of this sender waits; it is tried again "+
				"at "+s.NextTry.Local().Format("2006-01-02 15:04")+".", saidLines(fix)))
	}
	for _, s := range r.Storms {
		list = append(list, found(codeStorm, finding.Fault, u.Name,
			fmt.Sprintf("%s refused mail of many with the same "+
				"words, and Postern does not believe it: %s", u.Name, sentence(said(s.Reply))),
			fmt.Sprintf("%d messages were kept instead of being given up. Usually the provider has a fault, "+
				"or blocks us.",
				s.Kept), "Look at the provider's status page. If the refusal is meant, postern queue bounce ends "+
				"what waits."))
	}
	return list
}

// waits says that an identity is paused or backs off.
func (x upstreamExam) waits(u *status.Upstream, id *status.Identity, works bool) finding.Finding {
	code, state := codeUpstreamBackoff, "makes a pause after faults of the provider"
	w := finding.Fault
	if id.Status == upstream.Paused {
		code, state = codeUpstreamPaused, "is paused, since the provider refuses us"
		if u.State == status.Paused && !works {
			w = finding.Danger
		}
	}
	what := fmt.Sprintf("Upstream %s, logged in as %s, %s, since %s: \"%s\".", u.Name, said(id.Identity), state,
		id.Since.Local().Format("2006-01-02 15:04"), reported(id.Reply))
	if id.Cause != "" {
		what += " " + sentence(said(id.Cause))
	}
	next := "with the next message"
	if id.NextTry.After(x.now) {
		next = "at " + id.NextTry.Local().Format("2006-01-02 15:04")
	}
	fix := saidLines(id.Fix)
	if works {
		fix = strings.TrimSpace(fix +
			"\nThe test works now, so it ends by itself. To send at once: postern queue retry")
	} else if fix == "" {
		fix = "postern upstream test " + u.Name
	}
	return found(code, w, u.Name, what, "Its mail waits; it is tried again "+next+".", fix)
}

// secrets says which secrets, certificates and consents end.
func (x upstreamExam) secrets() (list []finding.Finding) {
	look := func(name, what string, end time.Time, estimated bool, fix string, ahead int) {
		subject := name + ", " + what
		about := ""
		if estimated {
			about = " (as far as is known)"
		}
		about = "The " + said(what) + " that upstream " + name + " is logged in with" + about
		f, soon := x.ends(codeSecretEnds, subject, about, end, "Without it no mail leaves there.", saidLines(fix))
		if left := end.Sub(x.now); ahead > 0 && left <= time.Duration(ahead)*24*time.Hour {
			f.Weight = finding.Danger
			if !soon {
				f, soon = x.ended(codeSecretEnds, subject, about, end, "Without it no mail leaves there.",
					saidLines(fix)), true
			}
		}
		if !soon {
			f = fine(codeSecretOK, subject, "It ends %s.", days(status.Days(end, x.now)))
		}
		list = append(list, f)
	}
	if x.report != nil { // which knows consents too
		for _, s := range x.report.Secrets {
			look(s.Upstream, s.What, s.Ends, s.Estimated, s.Fix, s.Ahead)
		}
		return list
	}
	for _, u := range x.c.Upstreams {
		var all []oauth.Expiry
		all, _ = outbound.Expiries(u, x.now) // config has said so
		for _, e := range all {
			look(u.Name, e.What, e.At, e.Estimated, e.Fix, 0)
		}
		for _, e := range monitor.EndsOf(&u) {
			look(u.Name, e.What, e.At(), false, e.Fix, e.Ahead)
		}
	}
	return list
}

// A quota that is used so far is worth a word; those of less than an hour free themselves.
const (
	quotaPercent = 90
	quotaLeast   = time.Hour
)

// quotas says which quotas are used up, or nearly.
func (x upstreamExam) quotas(ctx context.Context) (list []finding.Finding) {
	s, err := x.openStore(ctx)
	if err != nil || s == nil {
		return nil // store says so
	}
	defer s.Close()
	for _, u := range x.c.Upstreams {
		quotas, err := s.LoadQuotas(ctx, u.Name)
		if err != nil {
			continue
		}
		rates, _ := u.Rates() // config has said so
		for _, q := range quotas {
			list = append(list, x.quotaOf(u.Name, q, rates)...)
		}
	}
	return list
}

func (x upstreamExam) quotaOf(name string, q upstream.Quota, rates []upstream.Rate) (list []finding.Finding) {
	who := fmt.Sprintf("%s, logged in as %s", name, said(q.Identity))
	if q.Until.After(x.now) {
		list = append(list, found(codeQuotaUsed, finding.Fault, name,
			fmt.Sprintf("The provider takes no more mail now by "+
				"%s: %s", who, sentence(said(q.Reply.String()))),
			"Mail waits until "+q.Until.Local().Format("2006-01-02 15:04")+
				", and then leaves by itself.",
			"If it comes again, spread mail over more mailboxes, or use a service that is made for much mail. "+
				"See who sends "+
				"so much: postern trace"))
	}
	for _, r := range rates {
		var used int64
		for _, c := range q.Counts {
			if c.Unit == r.Unit && c.Per == r.Per && c.Leaves.After(x.now) {
				used += c.Count
			}
		}
		if r.Per < quotaLeast || used*100 < r.Count*quotaPercent {
			continue
		}
		list = append(list, found(codeQuotaNear, finding.Advice, name,
			fmt.Sprintf("%d of %d %s within %s are used by %s.",
				used, r.Count, r.Unit, config.Duration(r.Per), who),
			"When all are used, mail waits until the first of them are "+
				"older than that.", "See who sends so much: postern trace"))
	}
	return list
}
