package console

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"postern/operate"
	"postern/relay/finding"
	"postern/relay/status"
	"postern/relay/store"
)

// concern is something that needs somebody although mail may flow, in a sentence, and where it is looked after.
type concern struct {
	Icon string
	Said
	Path, Label string
}

// Bounds of what the page Now says of concerns.
const (
	shownConcerns = 6         // alerts that are named; the others are counted
	openCounted   = 100       // open alerts that the menu counts; more are "100+"
	waitsLong     = time.Hour // from which on waiting is a concern
)

// pressing are the alerts that mean that mail does not flow, or soon will not.
var pressing = []string{"upstream-paused", "disk-full", "danger", "queue-age"}

// concernsOf are those of the page Now.
func concernsOf(v *visit, r *status.Report, shape *operate.Shape, ends []ending) (all []concern) {
	all = alertConcerns(v)
	add := func(icon, text, path, label string) {
		all = append(all, concern{icon, Said{Text: text}, path, label})
	}
	if r.Queue.Held > 0 {
		add("hold", v.t("%d messages are held: they wait for somebody's decision.", int(r.Queue.Held)), "/held",
			v.t("Go to what is held"))
	}
	if oldest := oldestOf(shape); !oldest.IsZero() && v.now.Sub(oldest) >= waitsLong {
		add("warn", v.t("The oldest message has waited for %s.", v.span(v.now.Sub(oldest))), "/queue",
			v.t("Go to the queue"))
	}
	for _, e := range ends {
		if e.Icon == "bad" && !alerted(v, &e) {
			add("bad", v.t("It runs out, or has: %s.", v.said(plain(200, e.What)).Text), "#ends",
				v.t("Go to what runs out"))
		}
	}
	if n := dangers(v, finding.Danger); n > 0 {
		add("bad", v.t("The doctor found %d things that put mail in danger.", n), "/doctor", v.t("Go to the doctor"))
	}
	return all
}

// alerted reports whether an open alert, which stands above, says that something runs out.
func alerted(v *visit, e *ending) bool {
	if !v.may(operate.SeeAlerts) {
		return false
	}
	open, err := stillOpen(v)
	return err == nil && slices.ContainsFunc(open[:min(len(open), shownConcerns)], func(a store.Alert) bool {
		return a.Event == "secret-expiry" && a.Subject == "upstream "+e.Of+", "+e.What ||
			a.Event == "certificate-expiry" && a.Subject == e.What
	})
}

// alertConcerns are the open alerts, the newest first.
func alertConcerns(v *visit) (all []concern) {
	if !v.may(operate.SeeAlerts) {
		return nil
	}
	open, err := stillOpen(v)
	if err != nil {
		v.console.Logger.Warn("the console cannot read the alerts", "error", err)
		return nil
	}
	for _, a := range open[:min(len(open), shownConcerns)] {
		first, _ := firstSentence(v.said(plainLines(maxSaid, a.Summary)))
		first.Text = plain(400, first.Text)
		icon := "warn"
		if slices.Contains(pressing, a.Event) {
			icon = "bad"
		}
		all = append(all, concern{icon, first, "/alerts#" + alertID(&a), eventTitle(v, a.Event)})
	}
	if n := len(open) - len(all); n > 0 {
		all = append(all, concern{"warn", Said{Text: v.t("and %d more", n)}, "/alerts", v.t("Go to the alerts")})
	}
	return all
}

// alertID is the place of an open alert on the page of alerts.
func alertID(a *store.Alert) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(a.Place())) // it never fails
	return fmt.Sprintf("a%x", h.Sum64())
}

// stillOpen are the newest that are open, some seconds ago.
func stillOpen(v *visit) ([]store.Alert, error) {
	return v.console.open.get(v.Context(), v.now, func(ctx context.Context) ([]store.Alert, error) {
		return v.console.Operations.Alerts.List(ctx, v.actor, store.AlertQuery{Open: true, Limit: openCounted + 1})
	})
}

// heldNow is how many messages are held, some seconds ago.
func heldNow(v *visit) (int64, error) {
	return v.console.held.get(v.Context(), v.now, func(ctx context.Context) (int64, error) {
		r, err := v.console.Operations.Status.Report(ctx, v.actor)
		if err != nil {
			return 0, err
		}
		return r.Queue.Held, nil
	})
}

// dangers counts findings of the last examination, down to a weight.
func dangers(v *visit, least finding.Weight) (n int) {
	r, err := v.console.Operations.Doctor.Last(v.actor)
	if err != nil || r == nil {
		return 0
	}
	for _, f := range r.Findings {
		if f.Weight <= least {
			n++
		}
	}
	return n
}

// oldestOf is when the oldest message came that waits; zero: none does.
func oldestOf(shape *operate.Shape) (oldest time.Time) {
	for _, u := range shape.Upstreams {
		if oldest.IsZero() || u.Oldest.Before(oldest) {
			oldest = u.Oldest
		}
	}
	return oldest
}

// counted puts into a line of the menu how much there is to look after. What cannot be read is not counted: each page
// says itself what is wrong.
func counted(v *visit, item *menuItem) {
	switch item.Path {
	case alertsPage.path:
		if open, err := stillOpen(v); err == nil {
			item.count(v, "%d alerts are open", len(open))
		}
	case heldPage.path:
		if !v.may(operate.SeeStatus) {
			return
		}
		if n, err := heldNow(v); err == nil {
			item.count(v, "%d messages are held", int(n))
		}
	case doctorPage.path:
		item.count(v, "%d things found that are wrong", dangers(v, finding.Fault))
	}
}

func (item *menuItem) count(v *visit, words key, n int) {
	if n == 0 {
		return
	}
	item.Count, item.CountSays = v.num(n), v.t(words, n)
	if n > openCounted {
		item.Count = v.num(openCounted) + "+"
	}
}
