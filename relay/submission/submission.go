package submission

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"postern/mail"
	"postern/relay/queue"
)

// maxHops is the number of Received fields from which on a message is taken for a loop. RFC 5321 §6.3 asks for at
// least 100: what is forwarded or resent has many.
const maxHops = 100

// submission is one message between the final dot and its reply: checked, counted against the limits,
// completed, and handed off or queued. It holds the client's octets; an attempt that outlives it holds them too.
type submission struct {
	service   *Service
	session   *session // who sends it, and what holds for that
	envelope  mail.Envelope
	raw       mail.Content
	octets    *holder // of raw
	eightBit  bool
	longLines bool // there are lines over 998 octets
	now       time.Time

	header    mail.Header
	size      int64 // of the message as it came
	body      int   // where the body begins in raw
	bodyLine  int64 // number of its first line
	author    mail.Address
	messageID string
	notes     []string // what was changed and why, for log and trace; none for ordinary mail
	hold      string   // why the message is to be held, "" if it is not
	refund    func()   // gives back what was taken of the limits
	local     bool     // the limits were counted here alone: it must not be queued

	message *queue.Message // completed
	content mail.Content   // of message
	refused string         // its id, once its upstream has refused it; "" before
}

// run takes the message through all steps. The reply is that of a message that was taken.
func (u *submission) run(ctx context.Context) (mail.Reply, error) {
	defer func() { u.octets.release() }() // of those that it holds then
	steps := []func(context.Context) error{u.readHeader, u.checkAuthors, u.checkLoop, u.mendBody, u.takeLimits}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return mail.Reply{}, err
		}
	}
	u.complete()
	reply, err := u.service.handOff(ctx, u)
	if err != nil && !replyFor(err).Permanent() {
		u.refund() // our own trouble costs nobody's allowance
	}
	return reply, err
}

func (u *submission) readHeader(context.Context) error {
	prefix, err := mail.FirstOctets(u.raw, mail.HeaderPrefix)
	if err != nil {
		return fmt.Errorf("read back the header: %w", err)
	}
	u.size = u.raw.Size()
	read := mail.ReadHeader
	switch {
	case u.session.listener.IsAppliance():
		read = mail.ReadDeviceHeader
	case u.session.effective.Rewrites():
		read = mail.ReadHeaderToRewrite
	}
	u.header, u.body, err = read(prefix)
	u.notes = append(u.notes, u.header.Mended...)
	u.bodyLine = 1 + int64(bytes.Count(prefix[:u.body], []byte{'\n'}))
	return err
}

func (u *submission) checkLoop(context.Context) error {
	if u.header.Count("Received") > maxHops {
		return mail.Refuse(replyLoop, nil)
	}
	return nil
}
