package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/errno"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/monitor"
	"postern/relay/status"
	relaystore "postern/relay/store"
)

func (a *app) statusCommand() *cobra.Command {
	onlyReady, onlyAlive := false, false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "One page: can mail leave, listeners, sources of logins, upstreams, queue, certificates, disk",
		Long: `Ask the running daemon how it is. The first line says whether mail can leave. Exit code 1: none can, no
new mail is taken, or the daemon does not run; then what the store and the configuration say is shown.

Upstreams are tried by mail: one that nothing was sent to yet counts as working. "postern upstream test" tries it now.

With --ready the answer is that of /readyz at [admin] address, for health checks of containers: exit code 0 if new mail
is taken, else 1 with the reason. That all upstreams are down is no such reason, since mail is taken and kept.
--alive asks /healthz, whether the daemon answers at all, for whoever restarts what is not healthy.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if onlyReady {
				return a.sayProbe(cmd, readyPath)
			}
			if onlyAlive {
				return a.sayProbe(cmd, alivePath)
			}
			return a.sayStatus(cmd)
		},
	}
	cmd.Flags().BoolVar(&onlyReady, "ready", false, "only whether new mail is taken, for health checks")
	cmd.Flags().BoolVar(&onlyAlive, "alive", false, "only whether the daemon answers, for checks that restart it")
	withJSON(cmd)
	cmd.MarkFlagsMutuallyExclusive("ready", "alive", "json")
	return cmd
}

// sayStatus prints the page.
func (a *app) sayStatus(cmd *cobra.Command) error {
	c, err := a.read()
	if err != nil {
		return err
	}
	r, err := askStatus(cmd.Context(), c)
	if err != nil {
		return err
	}
	if asJSON(cmd) {
		err = writeJSON(cmd.OutOrStdout(), r)
	} else {
		err = writeStatus(cmd.OutOrStdout(), r)
	}
	if err == nil && !r.OK {
		err = errSilent
	}
	return err
}

// askStatus asks the daemon; where none runs, it looks itself.
func askStatus(ctx context.Context, c *config.Config) (*status.Report, error) {
	r, err := status.Ask(ctx, c.DataDir)
	if err == nil {
		return r, nil
	}
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, errno.Refused)
	switch {
	case gone && !relaystore.Serving(relaystore.Of(c)):
		return monitor.StatusAlone(ctx, c), nil
	case gone:
		return nil, fmt.Errorf("postern runs in %s, but does not answer there yet (%w); its log says why", c.DataDir,
			err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run it as the user that postern runs as, or as root", err)
	}
	return nil, fmt.Errorf("postern runs in %s, but does not answer: %w", c.DataDir, err)
}

// page is a status on its way to the terminal. What came from outside is made printable.
type page struct {
	w   io.Writer
	now time.Time
	err error
}

func (p *page) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, strings.TrimRight(mail.Printable(fmt.Sprintf(format, args...)), " "))
	}
}

// rows prints a table with an empty line above; nothing without rows.
func (p *page) rows(heading []string, rows [][]string) {
	if len(rows) == 0 || p.err != nil {
		return
	}
	p.line("")
	p.err = table(p.w, heading, rows)
}

func writeStatus(w io.Writer, r *status.Report) error {
	p := &page{w: w, now: r.Time}
	p.line("%s", r.Summary)
	if r.Running {
		p.line("")
		p.line("postern %s on %s, process %d, up for %s, with %s", r.Version, r.Hostname, r.PID,
			status.Span(p.now.Sub(r.Since)), r.Config)
	}
	if r.Refused != "" {
		p.line("The last change of the configuration is not in force: %s", r.Refused)
	}
	p.listeners(r)
	p.sources(r)
	p.upstreams(r)
	p.queue(&r.Queue)
	p.endings(r)
	p.disk(&r.Disk)
	p.nodes(r.Nodes)
	return p.err
}

func (p *page) listeners(r *status.Report) {
	var rows [][]string
	for _, l := range r.Listeners {
		connections := "-"
		if r.Running {
			connections = fmt.Sprint(l.Connections)
		}
		rows = append(rows, []string{l.Name, l.Address, l.TLS, l.Auth, connections, orDash(l.Certificate)})
	}
	p.rows([]string{"LISTENER", "ADDRESS", "TLS", "LOGIN", "CONNECTIONS", "CERTIFICATE"}, rows)
	for _, l := range r.Learning {
		p.line("Learning: devices of %s may send to listener %s without login until %s, to be held (%s).", l.Network,
			l.Listener, when(l.Until, p.now), l.By)
	}
}

// sources lists the sources of logins that others run.
func (p *page) sources(r *status.Report) {
	var rows [][]string
	for _, s := range r.Sources {
		since := ""
		if !s.Since.IsZero() {
			since = when(s.Since, p.now)
		}
		rows = append(rows, []string{s.Name, s.Type, orDash(s.State), orDash(since), orDash(mail.Printable(s.Problem))})
	}
	p.rows([]string{"SOURCE OF LOGINS", "TYPE", "STATE", "SINCE", "PROBLEM"}, rows)
}

func (p *page) upstreams(r *status.Report) {
	var rows [][]string
	for i := range r.Upstreams {
		u := &r.Upstreams[i]
		state, since, next := string(u.State), "", ""
		if len(u.Identities) > 0 {
			since, next = p.times(&u.Identities[0])
		}
		rows = append(rows, []string{u.Name, fmt.Sprintf("%s:%d", u.Host, u.Port), orDash(state), orDash(since),
			orDash(next),
			fmt.Sprint(u.Connection)})
	}
	p.rows([]string{"UPSTREAM", "HOST", "STATE", "SINCE", "NEXT TRY", "CONNECTIONS"}, rows)
	for i := range r.Upstreams {
		p.troubles(&r.Upstreams[i])
	}
}

func (p *page) times(id *status.Identity) (since, next string) {
	if id.Ready() {
		return "", ""
	}
	next = "with the next message"
	if id.Trying {
		next = "now"
	} else if id.NextTry.After(p.now) {
		next = in(id.NextTry, p.now)
	}
	return when(id.Since, p.now), next
}

// troubles say what an upstream refuses, why, and what to do. Advice that holds for several stands once.
func (p *page) troubles(u *status.Upstream) {
	given := map[string]bool{}
	advise := func(cause, fix string) {
		if cause != "" && !given[cause] {
			given[cause] = true
			p.line("    %s What to do: %s", cause, strings.ReplaceAll(fix, "\n", " "))
		}
	}
	begun := false
	begin := func() {
		if !begun {
			p.line("")
			p.line("%s:", u.Name)
		}
		begun = true
	}
	shown := 0
	for i := range u.Identities {
		id := &u.Identities[i]
		if id.Ready() || id.Instead != "" {
			continue
		}
		begin()
		shown++
		since, next := p.times(id)
		p.line("  %s %s since %s, next try %s: %s", orDash(id.Identity), id.Status, since, next, id.Reply)
		advise(id.Cause, id.Fix)
	}
	if more := u.Waiting - shown; more > 0 {
		p.line("  and %d more of %d identities wait", more, u.Total)
	}
	for i := range u.Senders {
		s := &u.Senders[i]
		begin()
		p.line("  sender %s is not taken, next try %s: %s", s.Sender, in(s.NextTry, p.now), s.Reply)
		advise(s.Cause, s.Fix)
	}
	if more := u.Denied - len(u.Senders); more > 0 {
		p.line("  and %d more senders are not taken", more)
	}
	for _, s := range u.Storms {
		begin()
		of := ""
		if s.Sender != "" {
			of = " of " + s.Sender
		}
		p.line("  refusals of mail%s are not believed since %s, %d so far: %s", of, when(s.Since, p.now), s.Kept,
			s.Reply)
	}
}

func (p *page) queue(q *status.Queue) {
	p.line("")
	text := fmt.Sprintf("QUEUE  %d wait, %d held, %d being sent, %s", q.Waiting, q.Held, q.Sending, size(q.Octets))
	if !q.Oldest.IsZero() {
		text += fmt.Sprintf("; the oldest for %s", status.Span(p.now.Sub(q.Oldest)))
	}
	p.line("%s", text)
	for _, w := range q.Sleeping {
		p.line("  %d for %s to work again", w.Messages, w.Upstream)
	}
	if q.Problem != "" {
		p.line("  %s", q.Problem)
	}
}

// endings are the certificates and secrets, with the days that they have left.
func (p *page) endings(r *status.Report) {
	var rows [][]string
	for _, c := range r.Certificates {
		left := "-"
		if !c.Ends.IsZero() {
			left = daysLeft(c.DaysLeft)
		}
		rows = append(rows, []string{c.File, c.UsedBy, left, orDash(c.Problem)})
	}
	p.rows([]string{"CERTIFICATE", "USED BY", "LEFT", "TROUBLE"}, rows)
	rows = nil
	for _, s := range r.Secrets {
		left := daysLeft(s.DaysLeft)
		if s.Estimated {
			left = "about " + left
		}
		rows = append(rows, []string{s.What, "upstream " + s.Upstream, left})
	}
	p.rows([]string{"SECRET", "USED BY", "LEFT"}, rows)
}

func daysLeft(days int) string {
	if days < 0 {
		return "ended"
	}
	return plural(int64(days), "day")
}

func (p *page) disk(d *status.Disk) {
	if d.File == 0 && d.Problem == "" { // there is no store yet
		return
	}
	p.line("")
	bound := "no bound"
	if d.MaxSize > 0 {
		bound = size(d.MaxSize)
	}
	switch {
	case d.Server != "" && d.File > 0:
		p.line("STORE  at %s; queued mail has %s of %s; the database has %s", d.Server, size(d.Queued), bound,
			size(d.File))
	case d.Free > 0:
		p.line("DISK  %s free at %s, %s must stay; queued mail has %s of %s; the store has %s",
			size(d.Free), d.Dir, size(d.MinFree), size(d.Queued), bound, size(d.File))
	}
	if d.Problem != "" {
		p.line("  %s", d.Problem)
	}
}

// nodes lists them where there are several, or the only one is drained.
func (p *page) nodes(nodes []status.Node) {
	if (len(nodes) > 1 || len(nodes) == 1 && nodes[0].Drained) && p.err == nil {
		p.line("")
		p.err = printNodes(p.w, nodes, p.now)
	}
}
