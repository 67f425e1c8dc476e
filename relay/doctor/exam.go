package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/certs"
	"postern/internal/disk"
	"postern/internal/errno"
	"postern/relay/check"
	"postern/relay/config"
	"postern/relay/finding"
	"postern/relay/monitor"
	"postern/relay/status"
	relaystore "postern/relay/store"
	"postern/relay/upstream/profile"
)

// Options say what is examined.
type Options struct {
	Path    string   // of relay.toml
	Version string   // of this program; "": not known
	Only    []string // names of examiners; empty: all
	// More are examiners of other packages for a configuration that could be read. May be nil.
	More func(*config.Config) []Examiner

	now     func() time.Time // nil: time.Now
	machine machine
}

// machine is what is asked of the operating system, and replaced in tests.
type machine struct {
	lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	own    func() ([]netip.Addr, error) // the addresses of this machine
	room   func(dir string) (disk.Room, error)
	clock  func() (synchronised bool, known bool)
	roots  *x509.CertPool // the authorities that it knows; nil: the system's
	proc   string         // where the kernel tells of processes
	user   func() int
}

func (m machine) orReal() machine {
	real := machine{lookup: lookUp, own: ownAddresses, room: disk.Of, clock: clockSynchronised, proc: "/proc",
		user: effectiveUser}
	if m.lookup == nil {
		m.lookup = real.lookup
	}
	if m.own == nil {
		m.own = real.own
	}
	if m.room == nil {
		m.room = real.room
	}
	if m.clock == nil {
		m.clock = real.clock
	}
	if m.user == nil {
		m.user = real.user
	}
	m.proc = cmp.Or(m.proc, real.proc)
	return m
}

func lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

func ownAddresses() ([]netip.Addr, error) {
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, i := range interfaces {
		if prefix, err := netip.ParsePrefix(i.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own, nil
}

// exam is one examination: what several examiners need.
type exam struct {
	Options
	now time.Time

	c        *config.Config   // nil: it could not be read
	complete bool             // c has its secrets, and the daemon would start with it
	problems []config.Problem // of c

	serving bool           // a daemon holds data_dir
	report  *status.Report // of the daemon; nil: it did not answer
	asked   error          // why
}

// newExam reads the configuration and asks the daemon, each within its own bounds.
func newExam(ctx context.Context, o Options) *exam {
	x := &exam{Options: o, now: time.Now()}
	if o.now != nil {
		x.now = o.now()
	}
	x.machine = o.machine.orReal()
	x.c, x.problems = check.Config(ctx, o.Path)
	x.complete = x.c != nil
	if x.c == nil {
		if c, err := config.Read(o.Path); err == nil {
			x.c = c
		}
	}
	if x.c == nil {
		return x
	}
	x.serving = relaystore.Serving(relaystore.Of(x.c))
	x.report, x.asked = status.Ask(ctx, x.c.DataDir)
	return x
}

// gone reports that no daemon runs.
func (x *exam) gone() bool {
	return !x.serving && (errors.Is(x.asked, fs.ErrNotExist) || errors.Is(x.asked, errno.Refused))
}

// examiners are those of this package, in the order in which a person would look.
func (x *exam) examiners() []Examiner {
	all := []Examiner{{Name: "config", Look: x.config}}
	if x.c == nil {
		return all
	}
	return append(all,
		Examiner{Name: "daemon", Look: daemonExam{x}.daemon},
		Examiner{Name: "listeners", Look: listenerExam{x}.listeners},
		Examiner{Name: "certificates", Look: certificateExam{x}.certificates},
		Examiner{Name: "clock", Look: clockExam{x}.clocks},
		Examiner{Name: "disk", Look: diskExam{x}.disk},
		Examiner{Name: "files", Look: fileExam{x}.files},
		Examiner{Name: "store", Timeout: storeTime + usualTime, Look: storeExam{x}.store},
		Examiner{Name: "queue", Look: queueExam{x}.queue},
		Examiner{Name: "upstreams", Timeout: upstreamsTime, Look: upstreamExam{x}.upstreams},
		Examiner{Name: "alerts", Look: alertExam{x}.alerts},
		Examiner{Name: "sources", Look: sourceExam{x}.sources},
		Examiner{Name: "accounts", Look: accountExam{x}.accounts},
		Examiner{Name: "devices", Look: deviceExam{x}.devices},
	)
}

// config says what is wrong or unwise in relay.toml.
func (x *exam) config(ctx context.Context) (list []finding.Finding) {
	w, why := finding.Danger, "Postern does not start with a configuration that is wrong."
	if x.serving {
		w, why = finding.Fault, "Postern goes on with the configuration that it started with. After a restart, of "+
			"this machine too, no mail would be taken."
	}
	elsewhere := x.toldElsewhere(ctx)
	for _, p := range x.problems {
		if slices.Contains(elsewhere, p.Message) {
			continue
		}
		list = append(list, found(codeConfigProblem, w, x.Path, said(p.String()), why,
			"Mend that line of "+x.Path+", then run: postern check"))
	}
	if !x.complete {
		list = append(list, skipped("upstreams", "The rest of the configuration was looked at as far as it can be "+
			"read; no upstream was tried.", "Mend relay.toml, and run postern doctor again."))
	}
	if len(x.problems) > 0 {
		return list
	}
	for _, p := range check.Unwise(ctx, x.c) {
		if x.saidBetter(&p) {
			continue
		}
		list = append(list, found(codeConfigUnwise, finding.Advice, x.Path, said(p.String()),
			"Postern takes it, but it is probably not what was meant.",
			"Look at that line of "+x.Path+". The text says what to write."))
	}
	return append(list, fine(codeConfigOK, x.Path, "Its text is right: %s, %s.",
		count(len(x.c.Listeners), "listener"), count(len(x.c.Upstreams), "upstream")))
}

// saidBetter reports that another examiner says the same with more weight: passwords that everybody reads, and those
// that the provider soon does not take.
func (x *exam) saidBetter(p *config.Problem) bool {
	return strings.Contains(p.Message, "a file that every user of this machine can read") && hasLiteral(x.Path) ||
		strings.HasSuffix(p.Key, ".username") && slices.ContainsFunc(x.c.Upstreams, func(u config.Upstream) bool {
			return slices.ContainsFunc(monitor.EndsOf(&u), func(e profile.End) bool {
				known, ok := profile.Get(e.Provider)
				return ok && p.Message == known.PasswordWarning
			})
		})
}

// toldElsewhere are the problems that the examiners of certificates and of the store have more to say about.
func (x *exam) toldElsewhere(ctx context.Context) (texts []string) {
	if x.c == nil {
		return nil
	}
	_, err := certs.Check(x.c.CertOptions(slog.New(slog.DiscardHandler)), x.now)
	if faults, ok := errors.AsType[certs.Faults](err); ok {
		for _, f := range faults {
			texts = append(texts, f.Text)
		}
	} else if err != nil {
		texts = append(texts, err.Error())
	}
	if s, err := x.openStore(ctx); err != nil {
		texts = append(texts, err.Error())
	} else if s != nil {
		s.Close()
	}
	return texts
}

// openStore opens the store beside the daemon; nil with a nil error: there is none yet.
func (x *exam) openStore(ctx context.Context) (*relaystore.Store, error) {
	return relaystore.OpenThere(ctx, relaystore.Of(x.c))
}

// days says how many days are left.
func days(n int) string {
	switch n {
	case 0:
		return "today"
	case 1:
		return "in 1 day"
	}
	return fmt.Sprintf("in %d days", n)
}

// When what ends is a danger. Before, from monitor.ExpiryAhead on, it is a fault.
const lastDays = 7 * 24 * time.Hour

// ends says that something ends soon.
func (x *exam) ends(code, subject, what string, end time.Time, why, fix string) (finding.Finding, bool) {
	left := end.Sub(x.now)
	w := finding.Fault
	switch {
	case left > monitor.ExpiryAhead:
		return finding.Finding{}, false
	case left <= lastDays:
		w = finding.Danger
	}
	return found(code, w, subject, what+" "+monitor.EndsInWords(end, x.now)+".", why, fix), true
}

// ended is the finding of the first weight that something ends, or has.
func (x *exam) ended(code, subject, what string, end time.Time, why, fix string) finding.Finding {
	return found(code, finding.Danger, subject, what+" "+monitor.EndsInWords(end, x.now)+".", why, fix)
}
