// Package status reports the state of the daemon: a Report, its one-sentence summary, and the socket in the data
// directory through which the command line asks for it (decision 0020).
//
// Failure semantics: asking never touches mail. A daemon that cannot create its socket logs that and works on; one that
// does not answer in time is reported as silent, not as down. A Report contains no secret, and no list in it grows with
// what outsiders do.
package status

import (
	"fmt"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/devices"
	"postern/relay/upstream"
)

// Most is how many identities, senders, refusals and routes of the queue a Report names; the others are counted.
const Most = 20

// Report is the state of a relay. Its keys stay; further ones may come.
type Report struct {
	OK       bool      `json:"ok"`      // new mail is taken, and some upstream takes it from us
	Summary  string    `json:"summary"` // the same in one sentence
	Running  bool      `json:"running"` // false: what follows is what the store and relay.toml say
	Phase    Phase     `json:"phase,omitempty"`
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Config   string    `json:"config"`
	Refused  string    `json:"config_refused,omitempty"` // why the last reload changed nothing
	Version  string    `json:"version,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since,omitzero"` // of the process

	Listeners    []Listener         `json:"listeners"`
	Sources      []Source           `json:"sources,omitempty"`  // of logins, that others run
	Learning     []devices.Learning `json:"learning,omitempty"` // under way
	Upstreams    []Upstream         `json:"upstreams"`
	Unreachable  []string           `json:"unreachable_routes,omitempty"` // routes none of whose upstreams work
	Queue        Queue              `json:"queue"`
	Certificates []Certificate      `json:"certificates"`
	Secrets      []Secret           `json:"secrets"`
	Disk         Disk               `json:"disk"`
	Nodes        []Node             `json:"nodes,omitempty"` // at the same database, those that live first
}

// Phase is what the daemon is doing.
type Phase string

// The phases.
const (
	Starting Phase = "starting"
	Serving  Phase = "serving"
	Stopping Phase = "stopping"
)

// Listener is one [[listener]].
type Listener struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	TLS         string `json:"tls"`
	Auth        string `json:"auth"`
	Connections int    `json:"connections"`
	Certificate string `json:"certificate,omitempty"` // the file that it presents
}

// Source is an [[auth.source]] that must be asked over a connection.
type Source struct {
	Name    string    `json:"name"`
	Type    string    `json:"type"`
	State   string    `json:"state,omitempty"` // SourceUp or SourceDown; "": nobody knows while the daemon does not run
	Since   time.Time `json:"since,omitzero"`  // when it went down, or up again; absent: it was up from the start
	Problem string    `json:"problem,omitempty"`
}

// The states of a source.
const (
	SourceUp   = "up"
	SourceDown = "down" // its logins get 454
)

// State is what an upstream comes down to.
type State string

// The states of an upstream.
const (
	Works       State = "working"
	Partly      State = "partly"      // some identities work
	Paused      State = "paused"      // the provider refuses us: a person must look
	Unreachable State = "unreachable" // it cannot be reached: it is tried again by itself
	BackingOff  State = "backing-off" // it asked us to wait, or lost its connections: so it is
)

// Upstream is one [[upstream]].
type Upstream struct {
	Name       string     `json:"name"`
	Provider   string     `json:"provider"`
	Host       string     `json:"host"`
	Port       int        `json:"port"`
	TLS        string     `json:"tls"`
	State      State      `json:"state,omitempty"` // "": nobody knows while the daemon does not run
	Connection int        `json:"connections"`
	Identities []Identity `json:"identities"`         // the worst first
	Total      int        `json:"identities_total"`   // used so far
	Waiting    int        `json:"identities_waiting"` // of them paused or backing off
	Senders    []Sender   `json:"denied_senders,omitempty"`
	Denied     int        `json:"denied_senders_total"`
	Storms     []Storm    `json:"storms,omitempty"`
	Storming   int        `json:"storms_total"`
}

// Works reports whether some mail can leave there.
func (u *Upstream) Works() bool { return u.State == Works || u.State == Partly }

// Identity is one account at an upstream.
type Identity struct {
	Identity string          `json:"identity"`
	Status   upstream.Status `json:"status"`
	Since    time.Time       `json:"since,omitzero"`
	NextTry  time.Time       `json:"next_try,omitzero"`
	Trying   bool            `json:"trying,omitempty"`
	Failures int             `json:"failures,omitempty"`
	Reply    string          `json:"reply,omitempty"`
	Code     string          `json:"-"` // and enhanced code of Reply
	Limit    int             `json:"limit"`
	InUse    int             `json:"in_use"`
	Idle     int             `json:"idle"`
	Instead  string          `json:"instead,omitempty"` // its mail goes as this one
	Cause    string          `json:"cause,omitempty"`
	Fix      string          `json:"fix,omitempty"`

	Rates []upstream.RateState `json:"rates,omitempty"` // how much of each is used, and when that frees
}

// Ready reports that it works.
func (id *Identity) Ready() bool { return id.Status == upstream.Ready }

// Sender is a reverse-path that an upstream does not take.
type Sender struct {
	Sender   string    `json:"sender"`
	Identity string    `json:"identity"`
	Refusals int       `json:"refusals"`
	NextTry  time.Time `json:"next_try"`
	Reply    string    `json:"reply"`
	Cause    string    `json:"cause,omitempty"`
	Fix      string    `json:"fix,omitempty"`
}

// Storm is a text that refuses everybody and is not believed.
type Storm struct {
	Since  time.Time `json:"since"`
	Sender string    `json:"sender,omitempty"`
	Reply  string    `json:"reply"`
	Kept   int       `json:"kept"`
}

// Queue is what waits.
type Queue struct {
	Waiting  int64      `json:"waiting"`
	Held     int64      `json:"held"`
	Sending  int64      `json:"sending"`
	Octets   int64      `json:"octets"`
	Oldest   time.Time  `json:"oldest,omitzero"`
	Sleeping []Sleeping `json:"by_upstream"` // of those that wait for upstreams to work again, the most first
	Problem  string     `json:"problem,omitempty"`
}

// Sleeping is how many wait for an upstream, or several of a route.
type Sleeping struct {
	Upstream string `json:"upstream"`
	Messages int64  `json:"messages"`
}

// Certificate is one that we present.
type Certificate struct {
	File     string    `json:"file"`
	UsedBy   string    `json:"used_by"`
	Names    []string  `json:"names,omitempty"`
	Key      string    `json:"key,omitempty"`
	Ends     time.Time `json:"ends,omitzero"`
	DaysLeft int       `json:"days_left"`
	Problem  string    `json:"problem,omitempty"`
}

// Secret is what we are logged in with at an upstream, as far as its end is known.
type Secret struct {
	Upstream  string    `json:"upstream"`
	What      string    `json:"what"`
	Ends      time.Time `json:"ends"`
	DaysLeft  int       `json:"days_left"`
	Estimated bool      `json:"estimated"`
	Fix       string    `json:"fix,omitempty"`
	Ahead     int       `json:"ahead_days,omitempty"` // from when on it is in danger; 0: as all secrets
}

// Disk is the room for new mail, in octets.
type Disk struct {
	Dir     string `json:"dir"`
	Server  string `json:"server,omitempty"` // where the store is; then Free and MinFree are 0, File is the database
	Free    int64  `json:"free"`
	MinFree int64  `json:"min_free"`
	Queued  int64  `json:"queued"`
	MaxSize int64  `json:"max_size"` // 0: no bound
	File    int64  `json:"file"`
	Problem string `json:"problem,omitempty"` // why no new mail is taken, or the disk cannot be looked at
	Refuses bool   `json:"refuses_mail"`
	Away    bool   `json:"database_away,omitempty"` // what waits is there, and cannot leave either
}

// Days is how many whole days are left until a time; negative: it is over.
func Days(end, now time.Time) int {
	left := end.Sub(now)
	days := int(left / (24 * time.Hour))
	if left < 0 {
		days--
	}
	return days
}

// Summarize sets OK and Summary: the heaviest trouble first.
func (r *Report) Summarize() {
	r.OK, r.Summary = r.summary()
}

func (r *Report) summary() (ok bool, summary string) {
	switch {
	case !r.Running:
		return false, "No mail can leave: postern does not run" + r.andWaits() + ". Start it with: postern serve"
	case r.Phase == Starting:
		return false, "Mail cannot be taken yet: postern is starting."
	case r.Phase == Stopping:
		return false, "No mail is taken any more: postern is shutting down."
	case r.Drained():
		return false, "No mail can leave, and no new mail is taken: every node is drained. To go on: postern node " +
			"drain NAME --undo"
	}
	var bad []string
	working := 0
	for i := range r.Upstreams {
		u := &r.Upstreams[i]
		if u.Works() {
			working++
		} else {
			bad = append(bad, u.words(r.Time))
		}
	}
	switch {
	case r.Disk.Refuses && r.Disk.Away:
		return false, "No new mail is taken, and what waits cannot leave: " + r.Disk.Problem +
			". It goes on by itself once the database answers."
	case working == 0 && r.Disk.Refuses:
		return false, "No mail can leave, and no new mail is taken: " + strings.Join(bounded(bad), "; ") + "; " +
			r.Disk.Problem + "."
	case working == 0:
		return false, "No mail can leave: " + strings.Join(bounded(bad), "; ") + ". New mail is accepted and waits" +
			r.count() + "."
	case r.Disk.Refuses:
		return false, "No new mail is taken: " + r.Disk.Problem + ". What waits can leave."
	case len(r.Unreachable) > 0:
		return true, "Mail can leave, but none by " + strings.Join(bounded(r.Unreachable), ", ") + ": " +
			strings.Join(bounded(bad), "; ") + "."
	case len(bad) > 0:
		return true, fmt.Sprintf("Mail can leave by %d of %d upstreams: %s.", working, len(r.Upstreams),
			strings.Join(bounded(bad), "; "))
	}
	return true, "Mail can leave" + r.exceptions() + "."
}

func (r *Report) andWaits() string {
	if c := r.count(); c != "" {
		return ", and mail waits" + c
	}
	return ""
}

func (r *Report) count() string {
	switch n := r.Queue.Waiting; n {
	case 0:
		return ""
	case 1:
		return " (1 message)"
	default:
		return fmt.Sprintf(" (%d messages)", n)
	}
}

// exceptions name what keeps some mail, though every upstream works.
func (r *Report) exceptions() string {
	var some []string
	for i := range r.Upstreams {
		u := &r.Upstreams[i]
		if u.State == Partly {
			some = append(some, fmt.Sprintf("as %d of %d identities at %s", u.Waiting, u.Total, u.Name))
		}
		if u.Denied > 0 {
			some = append(some, fmt.Sprintf("from %d senders that %s does not take", u.Denied, u.Name))
		}
	}
	if len(some) == 0 {
		return ""
	}
	return ", but not " + strings.Join(bounded(some), ", nor ")
}

// words say what is wrong with an upstream of which nothing works.
func (u *Upstream) words(now time.Time) string {
	text := u.Name + " is " + string(u.State)
	if u.State == BackingOff {
		text = u.Name + " asks us to wait"
	}
	if len(u.Identities) == 0 {
		return text
	}
	id := &u.Identities[0]
	if !id.Since.IsZero() {
		text += " for " + Span(now.Sub(id.Since))
	}
	if id.Reply != "" {
		text += fmt.Sprintf(" (%q)", mail.Cut(id.Reply, 200))
	}
	if id.NextTry.After(now) {
		return text + ", next try in " + Span(id.NextTry.Sub(now))
	}
	return text + ", tried again with the next message"
}

// Notes say in a line for each what is wrong with upstreams, for whoever may know no more than that: no addresses, and
// of replies the code alone.
func (r *Report) Notes() []string {
	var lines []string
	for i := range r.Upstreams {
		u := &r.Upstreams[i]
		if u.State == Works || len(u.Identities) == 0 {
			continue
		}
		id := &u.Identities[0]
		line := fmt.Sprintf("upstream %s: %s", u.Name, u.State)
		if u.Total > 1 {
			line += fmt.Sprintf(", %d of %d identities", u.Waiting, u.Total)
		}
		if !id.Since.IsZero() {
			line += ", since " + id.Since.UTC().Format(time.RFC3339)
		}
		if id.Code != "" {
			line += ", after " + id.Code
		}
		lines = append(lines, line)
	}
	return bounded(lines)
}

// bounded keeps the first Most of a list and counts the others.
func bounded(all []string) []string {
	if len(all) <= Most {
		return all
	}
	return append(all[:Most:Most], fmt.Sprintf("%d others", len(all)-Most))
}

// Span is how long something lasts, in the unit a person would use.
func Span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
