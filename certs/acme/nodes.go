package acme

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	protocol "github.com/mholt/acmez/v3/acme"
)

// Several nodes behind one name share a Storage: one orders at a time, and the CA may ask any of them. So the answer to
// a challenge is stored while the CA looks, and every node gives it.

// tendLock is held by the node that orders.
const tendLock = "postern/tend"

// shareTime is what the other nodes have to hear of an answer, before the CA is told to look.
const shareTime = 2 * time.Second

const challengeDir = "postern/challenge"

// shared is the answer to a challenge as it is stored.
type shared struct {
	Node string `json:"node"` // the Keeper that orders
	Type string `json:"type"`
	Name string `json:"name"`
	// Token and Answer are of the challenge; the answer is the key authorization (RFC 8555 §8.1).
	Token  string `json:"token"`
	Answer string `json:"answer"`
}

func (s shared) challenge() protocol.Challenge {
	return protocol.Challenge{Type: s.Type, Token: s.Token, KeyAuthorization: s.Answer,
		Identifier: protocol.Identifier{Type: "dns", Value: s.Name}}
}

// alone has do run by one node at a time. False: another one is at it, or nobody can tell.
func (k *Keeper) alone(ctx context.Context, o *Options, do func()) bool {
	got, err := o.Storage.TryLock(ctx, tendLock)
	if err != nil && ctx.Err() == nil {
		o.Logger.Error("certificates cannot be looked after: their lock cannot be taken", "err", err)
	}
	if err != nil || !got {
		return false
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := o.Storage.Unlock(late, tendLock); err != nil {
			o.Logger.Warn("the lock of certificates ends by itself", "err", err)
		}
	}()
	do()
	return true
}

// shareAnswer has all nodes give an answer until cleanUp. Who calls it is the one that orders: what else is stored was
// left behind by one that died.
func (o *Options) shareAnswer(ctx context.Context, c protocol.Challenge) (cleanUp func(), err error) {
	takeBack := func(ctx context.Context) error {
		if err := o.Storage.Delete(ctx, challengeDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := takeBack(ctx); err != nil {
		return nothing, err
	}
	cleanUp = func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		if err := errors.Join(takeBack(late), o.Storage.Announce(late)); err != nil {
			o.Logger.Warn("an answer for the CA could not be taken back; the other nodes end it by themselves",
				"err", err)
		}
	}
	data, err := json.Marshal(shared{o.mirror.node, c.Type, c.Identifier.Value, c.Token, c.KeyAuthorization})
	if err == nil {
		err = o.Storage.Store(ctx, challengeDir+"/"+c.Type+"/"+certmagic.StorageKeys.Safe(c.Identifier.Value), data)
	}
	if err == nil {
		err = o.Storage.Announce(ctx)
	}
	if err != nil {
		return cleanUp, err
	}
	select {
	case <-time.After(shareTime):
	case <-ctx.Done():
		return cleanUp, context.Cause(ctx)
	}
	return cleanUp, nil
}

// mirror gives the answers that another node has stored.
type mirror struct {
	node string        // of this Keeper
	kick chan struct{} // look again

	mu sync.Mutex        // guards up
	up map[string]func() // what ends each answer, by key and what is stored
}

// clear ends all answers.
func (m *mirror) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for what, end := range m.up {
		end()
		delete(m.up, what)
	}
}

// answerOthers gives the answers of other nodes until ctx ends.
func (k *Keeper) answerOthers(ctx context.Context) {
	m := k.options.mirror // New's
	defer m.clear()
	for {
		timer := time.NewTimer(k.mirrorOnce(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-m.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// mirrorOnce takes up what is stored and ends what is not. It returns when to look again if nothing is heard.
func (k *Keeper) mirrorOnce(ctx context.Context) time.Duration {
	k.mu.Lock()
	o := k.options
	k.mu.Unlock()
	if !o.Shared {
		return look
	}
	stored, wait, err := o.sharedAnswers(ctx)
	if err != nil {
		if ctx.Err() == nil {
			o.Logger.Warn("answers of other nodes for the CA cannot be read", "err", err)
		}
		return time.Minute
	}
	m := o.mirror
	m.mu.Lock()
	defer m.mu.Unlock()
	for what, end := range m.up {
		if _, still := stored[what]; !still {
			end()
			delete(m.up, what)
		}
	}
	for what, s := range stored {
		if m.up[what] != nil {
			continue
		}
		end, err := o.give(ctx, s.challenge())
		if err != nil {
			o.Logger.Warn("the CA may ask this node for the certificate that another orders, and gets no answer",
				"name", s.Name, "challenge", s.Type, "err", err)
			end()
			end = nothing
		}
		m.up[what] = end
	}
	return wait
}

// sharedAnswers are the answers of other nodes.
func (o *Options) sharedAnswers(ctx context.Context) (all map[string]shared, wait time.Duration, err error) {
	all, wait = map[string]shared{}, look
	keys, err := o.Storage.List(ctx, challengeDir, true)
	if errors.Is(err, fs.ErrNotExist) {
		return all, wait, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, key := range keys {
		info, err := o.Storage.Stat(ctx, key)
		if err != nil || !info.IsTerminal {
			continue // it is gone, or a directory
		}
		left := time.Until(info.Modified.Add(attemptTime))
		data, err := o.Storage.Load(ctx, key)
		var s shared
		if err != nil || left <= 0 || json.Unmarshal(data, &s) != nil || s.Node == o.mirror.node ||
			checkChallenge(s.challenge()) != nil || !strings.HasPrefix(s.Answer, s.Token+".") {
			continue
		}
		all[key+"\x00"+string(data)] = s
		wait = min(wait, left)
	}
	return all, wait, nil
}

// give answers a challenge at this machine until cleanUp.
func (o *Options) give(ctx context.Context, c protocol.Challenge) (func(), error) {
	switch {
	case c.Type == HTTP01:
		return serveHTTP(ctx, o.HTTP, c)
	case c.Type == TLSALPN01 && o.ALPNShared:
		return o.board.pin(c)
	case c.Type == TLSALPN01:
		return serveALPN(ctx, o.ALPN, c)
	}
	return nothing, nil
}

// giveAtAll answers a challenge at every node until cleanUp.
func (o *Options) giveAtAll(ctx context.Context, c protocol.Challenge) (func(), error) {
	if !o.Shared {
		return o.give(ctx, c)
	}
	o.mirror.clear() // of a node that died while it ordered
	here, err := o.give(ctx, c)
	if err != nil {
		return here, err
	}
	there, err := o.shareAnswer(ctx, c)
	return func() { there(); here() }, err
}
