package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/mail"
	"postern/relay/alert"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// diskSubject is the one condition of alert.DiskFull.
const diskSubject = "store"

// disk alerts that new mail is refused for lack of room, or because the store has failed. The alert closes only when
// there is ample room, so that a queue that moves around its bound raises one alert.
func (m *Monitor) disk(ctx context.Context, now time.Time) {
	why := m.Room.Short(now)
	if why == nil && len(m.alerter.Open(alert.DiskFull)) == 0 {
		return
	}
	room, err := m.Store.Room(ctx)
	switch {
	case err == nil && room.Ample() && m.Room.Full() == nil: // any message fits by now
		m.alerter.End(alert.DiskFull, diskSubject, "")
	case why != nil:
		m.alerter.Begin(diskCondition(m.InForce().Config, why, room))
	}
}

func diskCondition(conf *config.Config, cause error, room relaystore.Room) alert.Condition {
	dir, why := conf.DataDir, mail.Printable(mail.Reason(cause))
	c := alert.Condition{
		Event: alert.DiskFull, Subject: diskSubject,
		Over: "There is room again: new mail is taken.",
		Details: map[string]string{
			"dir": dir, "reason": why, "free": fmt.Sprint(room.Free), "min_free": fmt.Sprint(max(0, room.Floor)),
			"queued": fmt.Sprint(room.Queued), "max_size": fmt.Sprint(room.Max),
		},
	}
	code := 452
	if reply, ok := mail.ReplyFor(cause); ok {
		code = reply.Code
	}
	meanwhile, fix := "What was accepted is safe and goes on leaving.", fmt.Sprintf("make room on the disk of %s", dir)
	switch {
	case errors.Is(cause, relaystore.ErrAway):
		meanwhile = "What was accepted is safe at the server and waits."
		fix = fmt.Sprintf("see whether the database answers, psql %s; mail goes on by itself then",
			relaystore.Of(conf).Place())
	case conf.Store.URL.Server() && errors.Is(cause, relaystore.ErrFailed):
		meanwhile = "What was accepted is safe and waits."
		fix = "see the log, which has the error, then restart postern"
	case errors.Is(cause, relaystore.ErrFailed): // no attempt is made that cannot be recorded
		meanwhile = "What was accepted is safe and waits."
		fix = "look at the disk (the log has the error), then restart postern"
	case room.Max > 0 && room.Queued > room.Max-room.Max/4:
		fix = "postern queue list says what waits and for what; end that, or raise max_size in [store] if the disk " +
			"has the room"
	}
	if conf.Store.Degraded == config.DegradedHandoff && databaseAway(cause) {
		c.Summary = fmt.Sprintf("New mail is taken only where an upstream takes it at once, else clients are "+
			"answered %d: %s. %s What to do: %s.", code, why, meanwhile, fix)
		return c
	}
	c.Summary = fmt.Sprintf("New mail is not taken, clients are answered %d: %s. %s What to do: %s.",
		code, why, meanwhile, fix)
	return c
}
