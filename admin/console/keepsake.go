package console

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Keepsakes keeps files for the nodes that share it. *store.Store is one.
type Keepsakes interface {
	// Keep returns the token that data is fetched by.
	Keep(ctx context.Context, owner string, now, until time.Time, data []byte) (token string, err error)
	// Fetch hands data out once, nil if it is gone or not the owner's.
	Fetch(ctx context.Context, owner, token string, now time.Time) ([]byte, error)
}

// keepFile keeps a file that can be fetched once, by whom it was made for, within keepsakeTime. If nodes share no
// store, or it takes nothing now, the file is in the memory of this one.
func (c *console) keepFile(ctx context.Context, owner string, now time.Time, file attachment) string {
	if c.Keepsakes != nil {
		data, err := json.Marshal(keptFile{file.name, file.kind, file.data})
		if err == nil {
			var token string
			if token, err = c.Keepsakes.Keep(ctx, owner, now, now.Add(keepsakeTime), data); err == nil {
				return token
			}
		}
		c.Logger.Warn("console: a file can be fetched from this node only", "err", err)
	}
	return c.kept.keep(owner, now, file)
}

// takeFile hands a file out, once. False: it is gone, or not theirs.
func (c *console) takeFile(ctx context.Context, owner, token string, now time.Time) (attachment, bool, error) {
	if file, ok := c.kept.take(owner, token, now); ok || c.Keepsakes == nil {
		return file, ok, nil
	}
	data, err := c.Keepsakes.Fetch(ctx, owner, token, now)
	if err != nil || data == nil {
		return attachment{}, false, err
	}
	var kept keptFile
	err = json.Unmarshal(data, &kept)
	return attachment{kept.Name, kept.Kind, kept.Data}, err == nil, err
}

// keptFile is an attachment as it is stored.
type keptFile struct {
	Name, Kind string
	Data       []byte
}

// keepsakes are files in memory, where no other node is.
type keepsakes struct {
	mu  sync.Mutex
	all map[string]keepsake // by token
}

type keepsake struct {
	owner string
	until time.Time
	file  attachment
}

// attachment is a file that a browser saves.
type attachment struct {
	name, kind string
	data       []byte
}

// Bounds of what is kept.
const (
	keepsakeTime = 10 * time.Minute
	maxKeepsakes = 8 // the oldest goes
)

// keep keeps a file and returns the token that it is fetched by.
func (k *keepsakes) keep(owner string, now time.Time, file attachment) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	oldest := ""
	for token, s := range k.all {
		switch {
		case now.After(s.until):
			delete(k.all, token)
		case oldest == "" || s.until.Before(k.all[oldest].until):
			oldest = token
		}
	}
	if len(k.all) >= maxKeepsakes {
		delete(k.all, oldest)
	}
	if k.all == nil {
		k.all = map[string]keepsake{}
	}
	token := rand.Text()
	k.all[token] = keepsake{owner, now.Add(keepsakeTime), file}
	return token
}

// take hands a file out, once. False: it is gone, or not theirs.
func (k *keepsakes) take(owner, token string, now time.Time) (file attachment, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.all[token]
	if !ok || s.owner != owner {
		return file, false
	}
	delete(k.all, token)
	return s.file, now.Before(s.until)
}

// send answers with a file to be saved.
func (v *visit) send(f attachment) {
	h := v.w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Disposition", `attachment; filename="`+f.name+`"`)
	v.w.WriteHeader(http.StatusOK)
	_, _ = v.w.Write(f.data) // whoever asked has left
}
