package console

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/operate"
	"postern/relay/config"
	"postern/relay/status"
	"postern/relay/upstream"
)

// nowPage says whether mail can leave, and what keeps it.
var nowPage = page{path: "/", title: "Now", menu: true, needs: operate.SeeStatus, sheet: "now", show: showNow,
	actions: nodeActions}

// nowView is the body of the page.
type nowView struct {
	*status.Report
	Verdict   verdict
	Traffic   *chart // nil: the trace cannot be read
	Upstreams []upstreamView
	Ends      []ending
	Listeners []listener
	Concerns  []concern
	CanQueue  bool // the numbers lead to the queue
	Nodes     []nodeView
	MayDrain  bool
}

// Title implements titled: the sentence is read in the browser's list of pages, too.
func (n nowView) Title() string { return n.Verdict.Text }

// verdict is the sentence on top.
type verdict struct {
	Icon, Text string
	More       []string // what there is to add, a line each
	Path       string   // of the setting that it is about; "": none
}

// upstreamView is one upstream.
type upstreamView struct {
	*status.Upstream
	Icon, Word string
	Last       time.Time // delivery within a day; zero: none
	Waiting    int       // messages
	Oldest     time.Time // of them
	Identities []identityView
	Others     int // identities that are not named
	Troubles   []trouble
	Storming   []status.Storm
	Place      string // its id on the page
}

// identityView is one identity of an upstream.
type identityView struct {
	*status.Identity
	Icon, Word string
}

// trouble is what an upstream refuses, why, and what to do about it.
type trouble struct {
	Who         string
	Sender      bool // it is about a sender
	Since, Next time.Time
	Trying      bool
	Reply       string
	Cause, Fix  string
	Steps       []way // of Fix
	Any         bool  // one of them is enough
	AsAbove     bool  // cause and fix stand above already
}

// Queue is where the mail stands that waits because of it.
func (t trouble) Queue() string {
	if t.Sender {
		return "/queue?" + url.Values{"from": {t.Who}}.Encode()
	}
	return "/queue"
}

func showNow(v *visit) (any, error) {
	r, err := v.console.Operations.Status.Report(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	view := nowView{Report: r, Verdict: verdictOn(v, r), Ends: endingsOf(v, r),
		Listeners: listenersOf(v, r), CanQueue: v.may(operate.SeeQueue), Nodes: nodesOf(v, r),
		MayDrain: v.may(operate.DrainNode)}
	last := map[string]time.Time{}
	// The page is there for trouble: a trace or queue that cannot be read takes its own numbers away, no more.
	if t, err := v.console.traffic.get(v.Context(), v.now, func(context.Context) (traffic, error) {
		return trafficOf(v)
	}); err == nil {
		c := t.chart()
		view.Traffic, last = &c, t.Last
	} else {
		v.console.Logger.Warn("the console cannot read the trace", "error", err)
	}
	shape, err := v.shape()
	if err != nil {
		v.console.Logger.Warn("the console cannot read the queue", "error", err)
	}
	if view.Concerns = concernsOf(v, r, &shape, view.Ends); len(view.Concerns) > 0 && view.Verdict.Icon == "ok" {
		view.Verdict.Icon = "warn" // the sentence stays true: mail can leave
	}
	for i := range r.Upstreams {
		view.Upstreams = append(view.Upstreams, upstreamOf(v, &r.Upstreams[i], last, &shape))
	}
	return view, nil
}

// shape is how old what waits is, some seconds ago.
func (v *visit) shape() (operate.Shape, error) {
	return v.console.shape.get(v.Context(), v.now, func(ctx context.Context) (operate.Shape, error) {
		return v.console.Operations.Queue.Shape(ctx, v.actor, v.now)
	})
}

// listener is a listener in words.
type listener struct {
	status.Listener
	Encryption, Login string
}

func listenersOf(v *visit, r *status.Report) (all []listener) {
	for _, l := range r.Listeners {
		e := listener{l, plain(40, l.TLS), plain(40, l.Auth)}
		switch l.TLS {
		case config.StartTLS:
			e.Encryption = "STARTTLS"
		case config.Implicit:
			e.Encryption = v.t("TLS from the beginning")
		case config.Auto:
			e.Encryption = v.t("TLS from the beginning, or STARTTLS")
		case config.NoTLS:
			e.Encryption = v.t("none")
		}
		switch l.Auth {
		case config.AuthRequired:
			e.Login = v.t("needed")
		default:
			e.Login = v.t("not needed in its networks")
		}
		all = append(all, e)
	}
	return all
}

// verdictOn says in a sentence whether mail can leave.
func verdictOn(v *visit, r *status.Report) verdict {
	works := func(u status.Upstream) bool { return u.Works() }
	whole := func(u status.Upstream) bool { return u.State == status.Works && u.Denied == 0 }
	more := obstacles(v, r)
	switch {
	case !r.Running:
		return verdict{Icon: "bad", Text: v.t("No mail can leave: Postern does not run."),
			More: []string{v.t("Start it with: postern serve")}}
	case r.Phase == status.Starting:
		return verdict{Icon: "wait", Text: v.t("Postern is starting. Mail cannot be taken yet.")}
	case r.Phase == status.Stopping:
		return verdict{Icon: "warn", Text: v.t("Postern is shutting down. No mail is taken any more.")}
	case r.Drained():
		return verdict{Icon: "bad", Text: v.t("No mail can leave, and no new mail is taken."),
			More: []string{v.t("Every node is drained.")}}
	case r.Disk.Refuses && (r.Disk.Away || !slices.ContainsFunc(r.Upstreams, works)):
		return verdict{Icon: "bad", Text: v.t("No mail can leave, and no new mail is taken."), More: more}
	case !slices.ContainsFunc(r.Upstreams, works):
		return verdict{Icon: "bad", Text: v.t("No mail can leave. New mail is accepted and waits."), More: more}
	case r.Disk.Refuses:
		return verdict{Icon: "bad", Text: v.t("No new mail is taken. What waits can leave."), More: more}
	case len(r.Unreachable) > 0 || slices.ContainsFunc(r.Upstreams, func(u status.Upstream) bool { return !whole(u) }):
		return verdict{Icon: "warn", Text: v.t("Mail can leave, but not all of it."), More: more}
	}
	return verdict{Icon: "ok", Text: v.t("Mail can leave.")}
}

// obstacles are what keeps mail, a line each, at most status.Most.
func obstacles(v *visit, r *status.Report) (lines []string) {
	if r.Disk.Refuses {
		lines = append(lines, plain(400, r.Disk.Problem))
	}
	for i := range r.Upstreams {
		lines = append(lines, obstaclesOf(v, &r.Upstreams[i])...)
	}
	for _, route := range r.Unreachable {
		lines = append(lines, v.t("No provider of %s works.", plain(80, route)))
	}
	if n := len(lines) - status.Most; n > 0 {
		lines = append(lines[:status.Most], v.t("and %d more", n))
	}
	return lines
}

// obstaclesOf are those that an upstream is.
func obstaclesOf(v *visit, u *status.Upstream) (lines []string) {
	name := plain(80, u.Name)
	_, word := stateOf(v, u.State)
	switch {
	case !u.Works() && len(u.Identities) > 0 && !u.Identities[0].Since.IsZero():
		id := &u.Identities[0]
		line := v.t("%s: %s for %s", name, word, v.span(v.now.Sub(id.Since)))
		if id.NextTry.After(v.now) {
			line += v.t(", next try in %s", v.span(id.NextTry.Sub(v.now)))
		}
		lines = append(lines, strings.TrimSuffix(line, ".")+".") // "Min." ends it already
	case !u.Works():
		lines = append(lines, name+": "+word+".")
	case u.State == status.Partly:
		lines = append(lines, v.t("%s: %d of %d accounts cannot send.", name, u.Waiting, u.Total))
	}
	if u.Denied > 0 {
		lines = append(lines, v.t("%d senders are not taken by %s.", u.Denied, name))
	}
	return lines
}

// stateOf is the state of an upstream, as an icon and a word.
func stateOf(v *visit, s status.State) (icon, word string) {
	switch s {
	case status.Works:
		return "ok", v.t("working")
	case status.Partly:
		return "warn", v.t("partly working")
	case status.Paused:
		return "bad", v.t("paused")
	case status.Unreachable:
		return "bad", v.t("unreachable")
	case status.BackingOff:
		return "wait", v.t("asks us to wait")
	}
	return "info", v.t("not known")
}

func upstreamOf(v *visit, u *status.Upstream, last map[string]time.Time, shape *operate.Shape) upstreamView {
	view := upstreamView{Upstream: u, Place: upstreamID(u.Name), Last: last[u.Name],
		Others: u.Total - len(u.Identities), Troubles: troubles(v, u), Storming: u.Storms}
	view.Icon, view.Word = stateOf(v, u.State)
	for i := range u.Identities {
		id := &u.Identities[i]
		each := identityView{id, "ok", v.t("working")}
		switch {
		case id.Instead != "":
			each.Icon, each.Word = "info", v.t("its mail goes as %s", plain(100, id.Instead))
		case id.Status == upstream.Paused:
			each.Icon, each.Word = "bad", v.t("paused")
		case id.Status == upstream.BackingOff:
			each.Icon, each.Word = "wait", v.t("asks us to wait")
		}
		view.Identities = append(view.Identities, each)
	}
	if i := slices.IndexFunc(shape.Upstreams, func(s operate.ShapeRow) bool { return s.Name == u.Name }); i >= 0 {
		view.Waiting, view.Oldest = shape.Upstreams[i].Total, shape.Upstreams[i].Oldest
	}
	return view
}

// troubles are those of identities, then those of senders. Advice that holds for several stands once.
func troubles(v *visit, u *status.Upstream) (all []trouble) {
	given := map[string]bool{}
	add := func(t trouble) {
		t.AsAbove = t.Cause != "" && given[t.Cause]
		given[t.Cause] = true
		t.Steps, t.Any = waysIn(v, strings.Split(t.Fix, "\n"))
		all = append(all, t)
	}
	for i := range u.Identities {
		if id := &u.Identities[i]; !id.Ready() && id.Instead == "" {
			add(trouble{Who: id.Identity, Since: id.Since, Next: id.NextTry, Trying: id.Trying, Reply: id.Reply,
				Cause: id.Cause, Fix: id.Fix})
		}
	}
	for i := range u.Senders {
		s := &u.Senders[i]
		add(trouble{Who: s.Sender, Sender: true, Next: s.NextTry, Reply: s.Reply, Cause: s.Cause, Fix: s.Fix})
	}
	return all
}

// ending is something that runs out: a certificate, a token or a secret.
type ending struct {
	What, Of   string
	Names      []string
	Ends       time.Time
	Days       int
	Estimated  bool
	Ahead      int // days left from which on it is trouble, where that is not endsTooSoon
	Icon, Word string
	Problem    string
	Fix        string
	words      string // that settings are searched for
	Setting    string // where it is named; "" while there is time
}

// Days left from which on something that runs out is shown as a warning, and as trouble.
const (
	endsSoon    = 30
	endsTooSoon = 7
)

func endingsOf(v *visit, r *status.Report) (all []ending) {
	for _, c := range r.Certificates {
		e := ending{What: c.File, Of: c.UsedBy, Names: c.Names, Ends: c.Ends, Days: c.DaysLeft, Problem: c.Problem,
			words: certificateWords}
		all = append(all, e.judged(v))
	}
	for _, s := range r.Secrets {
		e := ending{What: s.What, Of: s.Upstream, Ends: s.Ends, Days: s.DaysLeft, Estimated: s.Estimated,
			words: "upstream"}
		if e.Ahead = s.Ahead; s.DaysLeft <= max(endsSoon, s.Ahead) {
			e.Fix = s.Fix
		}
		all = append(all, e.judged(v))
	}
	slices.SortStableFunc(all, func(a, b ending) int { return a.Ends.Compare(b.Ends) })
	return all
}

func (e ending) judged(v *visit) ending {
	switch {
	case e.Ends.IsZero():
		e.Icon, e.Word = "bad", v.t("cannot be read")
	case e.Days < 0:
		e.Icon, e.Word = "bad", v.t("has ended")
	case e.Days <= max(endsTooSoon, e.Ahead):
		e.Icon, e.Word = "bad", v.t("%d days left", e.Days)
	case e.Days <= endsSoon:
		e.Icon, e.Word = "warn", v.t("%d days left", e.Days)
	default:
		e.Icon, e.Word = "ok", v.t("%d days left", e.Days)
	}
	if e.Icon != "ok" {
		e.Setting = "/settings?q=" + e.words
	}
	return e
}
