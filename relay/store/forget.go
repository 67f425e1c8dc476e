package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/periodic"
	"postern/mail"
	"postern/policy"
	"postern/relay/privacy"
	"postern/relay/queue"
	"postern/relay/stats"
	"postern/relay/store/internal/db"
	"postern/relay/trace"
)

// Forgotten is what Forget removed, and what stays.
type Forgotten struct {
	Events     int64    `json:"events"`     // removed
	Shortened  int64    `json:"shortened"`  // events of others in which a mention was replaced
	Statistics int64    `json:"statistics"` // rows of the login, now counted as other
	Recipients int64    `json:"recipients"` // known recipients
	Alerts     int64    `json:"alerts"`     // that are over
	Queued     []string `json:"queued"`     // messages that wait, maxQueued at most: they stay
	Account    bool     `json:"account"`    // it is a login: the account stays
}

// maxQueued is how many waiting messages of a person are named.
const maxQueued = 100

// forgottenName stands where somebody was mentioned.
const forgottenName = "(removed)"

// Forget removes a person from the trace, the statistics, past alerts and the known recipients: an address, as sender,
// recipient and login, or a login. Of others' events in which the address is mentioned the mention is replaced; for a
// login that is no address this is not done. It works in small transactions with pauses, and after an error it can be
// called again. An event of kind operator says that somebody was removed, and not who.
func (s *Store) Forget(ctx context.Context, name, by string) (f Forgotten, err error) {
	if name = strings.TrimSpace(name); name == "" || strings.HasPrefix(name, "*") {
		return f, errors.New("whom to forget is one address or login")
	}
	p := person{s: s, name: name, Forgotten: Forgotten{Queued: []string{}}}
	if p.hashed, err = s.Pseudonym(ctx, name); err != nil {
		return f, wrap(err, "forget a person")
	}
	for _, step := range []func(context.Context) error{p.events, p.mentions, p.statistics, p.known, p.alerts, p.stays} {
		if err = step(ctx); err != nil {
			break
		}
	}
	what := fmt.Sprintf("a person was removed from the trace %s: %d events removed, %d shortened, %d rows of "+
		"statistics, %d known recipients, %d alerts", by, p.Events, p.Shortened, p.Statistics, p.Recipients, p.Alerts)
	// Also where who asked has gone away: what was removed is.
	told := s.AppendEventsNow(context.WithoutCancel(ctx),
		[]trace.Event{{Time: time.Now(), Kind: trace.Operator, Detail: what}})
	return p.Forgotten, wrap(errors.Join(err, told), "forget a person")
}

// person is one call of Forget.
type person struct {
	s      *Store
	name   string
	hashed string // what stands for it where addresses are hashed; "": nothing
	Forgotten
}

// isAbout reports whether an event is about the person.
func (p *person) isAbout(e *trace.Event) bool {
	for _, name := range []string{e.Login, e.From, e.To, e.Author} {
		if strings.EqualFold(name, p.name) || p.hashed != "" && name == p.hashed {
			return true
		}
	}
	return false
}

// events removes the events that the indexes find.
func (p *person) events(ctx context.Context) error {
	for _, name := range slices.Compact([]string{p.name, strings.ToLower(p.name), p.hashed}) {
		for _, where := range []struct{ clause, key string }{
			{"INDEXED BY event_login WHERE login = ? AND login <> '' LIMIT ?", name},
			{"INDEXED BY event_sender WHERE sender = ? AND sender <> '' LIMIT ?", addressKey(name)},
			{"INDEXED BY event_rcpt WHERE rcpt = ? AND rcpt <> '' LIMIT ?", addressKey(name)},
		} {
			if name == "" {
				continue
			}
			if err := p.removeAll(ctx, eventColumns+where.clause, where.key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *person) removeAll(ctx context.Context, query, key string) error {
	for {
		found, err := readAll(ctx, p.s.lookups, scanNumbered, query, key, privacyBatch)
		if err != nil || len(found) == 0 {
			return err
		}
		if err := p.change(ctx, found, func(*trace.Event) fate { return removed }); err != nil {
			return err
		}
	}
}

// change changes events in one transaction, and rests as long as it took.
func (p *person) change(ctx context.Context, events []numbered, decide func(*trace.Event) fate) error {
	began := time.Now()
	var gone, shortened int64
	err := p.s.write(ctx, func(t *tx) error {
		gone, shortened = 0, 0
		return t.changeEvents(events, func(e *trace.Event) fate {
			what := decide(e)
			switch what {
			case removed:
				gone++
			case rewritten:
				shortened++
			}
			return what
		})
	})
	if err != nil {
		return err
	}
	p.Events += gone
	p.Shortened += shortened
	return periodic.Sleep(ctx, time.Since(began))
}

// forgetLook is how many events are searched at once for a mention.
const forgetLook = 20_000

// mentions looks through all events for others that name the person.
func (p *person) mentions(ctx context.Context) error {
	if !strings.Contains(p.name, "@") {
		return nil
	}
	needle := jsonText(strings.ToLower(p.name))
	hashed := p.hashed
	if hashed == "" {
		hashed = needle // which is looked for anyway
	}
	for done := int64(-1 << 63); ; {
		var last int64
		err := p.s.lookups.read(ctx, func(conn db.Conn) (err error) {
			last, _, err = conn.Int("SELECT max(n) FROM (SELECT n FROM event NOT INDEXED WHERE n > ? ORDER "+
				"BY n LIMIT ?)",
				done, forgetLook)
			return err
		})
		if err != nil || last == 0 {
			return err
		}
		found, err := readAll(ctx, p.s.lookups, scanNumbered, eventColumns+`NOT INDEXED WHERE n > ? AND n <= ?
			AND (instr(lower(CAST(data AS TEXT)), ?) > 0 OR instr(data, CAST(? AS BLOB)) > 0
			OR instr(rcpt, ?) > 0 OR instr(rcpt, ?) > 0 OR lower(login) = ?)`, done, last, needle, hashed,
			localPart(p.name), localPart(hashed), strings.ToLower(p.name))
		if err != nil {
			return err
		}
		for batch := range slices.Chunk(found, privacyBatch) {
			if err := p.change(ctx, batch, p.redact); err != nil {
				return err
			}
		}
		done = last
	}
}

// jsonText is a text as it stands within JSON.
func jsonText(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return s
	}
	return strings.Trim(string(b), `"`)
}

// localPart is what addressKey makes of the local part where more follows the address.
func localPart(address string) string {
	return "@" + strings.ToLower(address[:strings.LastIndexByte(address, '@')])
}

// redact decides about an event that seems to mention the person.
func (p *person) redact(e *trace.Event) fate {
	if p.isAbout(e) {
		return removed
	}
	changed := false
	for _, text := range []*string{&e.To, &e.From, &e.Author, &e.Identity, &e.MessageID, &e.Detail, &e.Reply.Text} {
		for _, name := range []string{p.name, p.hashed} {
			if name == "" {
				continue
			}
			short, found := privacy.Redact(*text, name, forgottenName)
			*text, changed = short, changed || found
		}
	}
	if changed {
		return rewritten
	}
	return stays
}

// statistics counts what the login did as done by others.
func (p *person) statistics(ctx context.Context) error {
	for _, table := range []*statTable{statHours, statDays} {
		for _, key := range slices.Compact([]string{stats.Key(p.name), stats.Key(strings.ToLower(p.name))}) {
			if err := p.mergeLogin(ctx, table, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *person) mergeLogin(ctx context.Context, table *statTable, key string) error {
	steps, err := readAll(ctx, p.s.lookups, func(row db.Row) (int64, error) { return row.Int(0), nil },
		table.withKey, int(stats.Login), key)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(steps, statBatch) {
		began := time.Now()
		err := p.s.write(ctx, func(t *tx) error {
			a := statAdding{tx: t, table: table, room: map[stats.Cell]int{}}
			for _, at := range batch {
				if err := a.merge(stats.Cell{Hour: at, By: stats.Login, Key: key}); err != nil {
					return err
				}
			}
			return a.count()
		})
		if err != nil {
			return err
		}
		p.Statistics += int64(len(batch))
		if err := periodic.Sleep(ctx, time.Since(began)); err != nil {
			return err
		}
	}
	return nil
}

// merge adds a sum to that of others and removes it. The Cell's Hour is a step of the table.
func (a *statAdding) merge(at stats.Cell) error {
	n, found, err := a.get(at)
	if err != nil || !found {
		return err
	}
	if err := a.Run(a.table.drop, int(at.By), at.Hour, at.Key); err != nil {
		return err
	}
	a.rows--
	at.Key = stats.Other
	other, found, err := a.get(at)
	if err != nil {
		return err
	}
	if !found {
		a.rows++
	}
	other.Add(&n)
	return a.Run(a.table.put, int(at.By), at.Hour, at.Key, other.Append(nil))
}

// known removes the person from the recipients that logins are known to write to, and its own.
func (p *person) known(ctx context.Context) error {
	address := p.name
	if a, err := mail.ParseAddress(p.name); err == nil {
		address = policy.RecipientKey(a)
	}
	type row struct{ login, addr string }
	found, err := readAll(ctx, p.s.lookups, func(s db.Row) (row, error) { return row{s.Text(0), s.Text(1)}, nil },
		"SELECT login, addr FROM known WHERE lower(login) = lower(?) OR addr = ?", p.name, address)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(found, actionBatch) {
		var n int64
		err := p.s.write(ctx, func(t *tx) error {
			n = 0
			for _, k := range batch {
				if err := t.Run("DELETE FROM known WHERE login = ? AND addr = ?", k.login, k.addr); err != nil {
					return err
				}
				gone := t.Changes()
				n += gone
				if _, err := addKnown(t, k.login, -gone); err != nil {
					return err
				}
			}
			return nil
		})
		if p.Recipients += n; err != nil {
			return err
		}
	}
	return nil
}

// stays looks for what of the person is left.
func (p *person) stays(ctx context.Context) error {
	filters := []queue.Filter{{Login: p.name, Limit: maxQueued}}
	if strings.Contains(p.name, "@") {
		filters = append(filters, queue.Filter{From: p.name, Limit: maxQueued},
			queue.Filter{To: p.name, Limit: maxQueued})
	}
	for _, f := range filters {
		found, err := p.s.List(ctx, f)
		if err != nil {
			return err
		}
		for _, m := range found {
			if len(p.Queued) < maxQueued && !slices.Contains(p.Queued, m.ID) {
				p.Queued = append(p.Queued, m.ID)
			}
		}
	}
	users, err := p.s.Users(ctx)
	for i := range users {
		p.Account = p.Account || strings.EqualFold(users[i].Login, p.name)
	}
	return err
}
