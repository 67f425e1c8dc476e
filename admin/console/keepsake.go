package console

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"
)

// keepsakes are files that can be fetched once, by whom they were made for, within keepsakeTime. They are in memory
// only.
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
