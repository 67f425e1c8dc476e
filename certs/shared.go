package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// Shared keeps the self-signed certificates of nodes behind one name: clients that trust those of one must not meet
// others.
type Shared interface {
	// Agree returns what is kept under a key if it is good, and else keeps ours and returns it.
	Agree(ctx context.Context, key string, good func([]byte) bool, ours []byte) ([]byte, error)
}

// agreeTime bounds an agreement: nobody waits for the store at a renewal.
const agreeTime = 10 * time.Second

// Share has self-signed certificates be those that all nodes have, from now on. On an error those in use stay, until
// the next load.
func (m *Manager) Share(s Shared) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.options.shared = s
	changed, err := m.options.agree(time.Now())
	if err == nil && changed {
		err = m.reloadLocked(time.Now())
	}
	return err
}

// Share is Manager.Share of the certificate beside it.
func (c *Companion) Share(s Shared) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared = s
	if c.manager == nil {
		return nil
	}
	return c.manager.Share(s)
}

// agree writes the pair of all nodes in place of ours, and reports whether it is another one.
func (o *Options) agree(now time.Time) (changed bool, err error) {
	if o.shared == nil || !o.selfSigned() {
		return false, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("self-signed certificates of all nodes: %w", err)
		}
	}()
	var files [2][]byte
	for i, file := range o.files() {
		if files[i], err = os.ReadFile(file); err != nil {
			return false, err
		}
	}
	ours, err := json.Marshal(files)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), agreeTime)
	defer cancel()
	theirs, err := o.shared.Agree(ctx, o.sharedKey(), func(kept []byte) bool { return o.good(kept, now) }, ours)
	if err != nil || bytes.Equal(ours, theirs) {
		return false, err
	}
	certificates, err := parseShared(theirs)
	if err != nil {
		return false, err
	}
	return true, o.write(certificates)
}

// sharedKey is where pairs with these names are kept.
func (o *Options) sharedKey() string {
	names := slices.Sorted(slices.Values(o.names()))
	sum := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return "postern/self-signed/" + hex.EncodeToString(sum[:8])
}

// good reports whether nodes can go on with what is kept.
func (o *Options) good(kept []byte, now time.Time) bool {
	both, err := parseShared(kept)
	if err != nil {
		return false
	}
	s, err := newSet(o, now, o.files(), &both[0], &both[1])
	return err == nil && !renewalDue(o, s, now)
}

func parseShared(kept []byte) (both [2]tls.Certificate, err error) {
	var files [2][]byte
	if err := json.Unmarshal(kept, &files); err != nil {
		return both, err
	}
	for i, text := range files {
		if both[i], err = tls.X509KeyPair(text, text); err != nil {
			return both, err
		}
	}
	return both, nil
}

// agreeOrWarn is agree where the certificates in use are good enough if nobody can be asked.
func (o *Options) agreeOrWarn(now time.Time, log *slog.Logger) (changed bool) {
	changed, err := o.agree(now)
	if err != nil {
		log.Warn("this node presents certificates of its own", "err", err)
	}
	return changed
}
