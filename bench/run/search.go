//go:build unix

package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/store"
	"postern/relay/trace"
)

// How mail is measured beside people who search.
const (
	searchEvents = 200_000 // in the trace before, of some weeks
	searchPairs  = 10      // of a measurement without searches and one with them
	searchers    = 2       // at once, each with no pause between two searches
)

// searchWords are what they search for: words that are common, rare, and common but rarely together.
var searchWords = []string{sender, recipient, "250", "example.com 550", "person7@example.com", "nobody@example.org",
	"delivered example.net", ""}

// search measures mail with and without people who search, in turn on one server, so that a pair is of one minute.
func (r *Results) search(ctx context.Context, o Options, p *Postern, e *Environment) (err error) {
	g := NewGroup()
	defer func() {
		if kill := g.Kill(); err == nil {
			err = kill
		}
	}()
	p.Search = true
	defer func() { p.Search = false }()
	if err := p.prepareSearch(ctx, e, o.count(searchEvents)); err != nil {
		return err
	}
	if _, err := p.Start(ctx, e, g, StartOptions{}); err != nil {
		return err
	}
	token, err := p.token()
	if err != nil {
		return err
	}
	if err := indexed(ctx, p.adminURL(), token); err != nil {
		return err
	}
	c, count := Cases[0], o.count(Cases[0].Count)
	var asked searches
	for pair := range searchPairs {
		var of [2]Figures // without, with
		for half := range of {
			with := (pair+half)%2 == 1
			stop := func() {}
			if with {
				stop = asked.begin(ctx, p.adminURL(), token)
			}
			f, err := throughput(ctx, p, e, g, c, count)
			stop()
			if err != nil {
				return err
			}
			if with {
				of[1] = f
			} else {
				of[0] = f
			}
		}
		r.add(p, "search rate", of[1].Rate/of[0].Rate)
		r.add(p, "search cpu", float64(of[1].CPU)/float64(of[0].CPU))
		fmt.Fprintf(o.Log, "  %4.0f delivered/s, %4.0f beside %d who search: %.3f; %.2f and %.2f ms CPU: %.3f\n",
			of[0].Rate, of[1].Rate, searchers, of[1].Rate/of[0].Rate, ms(of[0].CPU), ms(of[1].CPU),
			float64(of[1].CPU)/float64(of[0].CPU))
	}
	n, median, longest, err := asked.result()
	fmt.Fprintf(o.Log, "  %d searches, median %v, longest %v\n", n, median.Round(time.Millisecond),
		longest.Round(time.Millisecond))
	if err != nil {
		return err
	}
	return p.Stop()
}

// prepareSearch makes the configuration, and a trace as of some weeks.
func (p *Postern) prepareSearch(ctx context.Context, e *Environment, events int) error {
	p.dir = filepath.Join(e.Dir, "postern")
	if err := p.configure(e); err != nil {
		return err
	}
	c, err := config.Read(p.config())
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Of(c))
	if err != nil {
		return err
	}
	defer s.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	at := time.Now().Add(-20 * 24 * time.Hour)
	for done := 0; done < events; done += 5000 {
		batch := make([]trace.Event, 0, 5000)
		for n := range 2500 {
			at = at.Add(time.Duration(rnd.IntN(16)) * time.Second / 2)
			id := fmt.Sprintf("old%d", done+n)
			who := fmt.Sprintf("person%d@example.com", rnd.IntN(200))
			to := fmt.Sprintf("someone%d@firm%d.example.net", rnd.IntN(20000), rnd.IntN(3000))
			batch = append(batch, trace.Event{Time: at, Kind: trace.Accepted, ID: id, Login: who, From: who,
				Listener: "submission", Size: 4096, Reply: mail.R(250, "2.0.0", "queued as %s", id)},
				trace.Event{Time: at.Add(time.Millisecond), Kind: trace.Delivered, ID: id, Login: who, From: who,
					To: to, Upstream: "sink", Reply: mail.R(250, "2.0.0", "taken as %d", rnd.Uint64())})
		}
		if err := s.AppendEventsNow(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// token makes a token that may read.
func (p *Postern) token() (string, error) {
	out, err := output(exec.Command(p.Binary, "token", "add", "bench", "--scope", "read", "--json", "--config",
		p.config()))
	if err != nil {
		return "", err
	}
	var made struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Token == "" {
		return "", fmt.Errorf("no token in %q: %w", out, err)
	}
	return made.Token, nil
}

func (p *Postern) adminURL() string { return fmt.Sprintf("http://127.0.0.1:%d", p.adminPort) }

// indexed waits until the trace of before is in the index.
func indexed(ctx context.Context, base, token string) error {
	for began := time.Now(); time.Since(began) < 10*time.Minute; {
		partial, err := searchOnce(ctx, base, token, "nobody@example.org")
		if err != nil || !partial {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return fmt.Errorf("the trace is not indexed after ten minutes")
}

// searches are how long searches took.
type searches struct {
	mu   sync.Mutex
	took []time.Duration
	err  error
}

// begin lets people search until stop is called.
func (s *searches) begin(ctx context.Context, base, token string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for n := range searchers {
		all.Go(func() {
			for i := n; ctx.Err() == nil; i++ {
				began := time.Now()
				_, err := searchOnce(ctx, base, token, searchWords[i%len(searchWords)])
				if ctx.Err() == nil {
					s.note(time.Since(began), err)
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

func (s *searches) note(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, took)
	if s.err == nil {
		s.err = err
	}
}

func (s *searches) result() (n int, median, longest time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.took) == 0 {
		return 0, 0, 0, fmt.Errorf("nobody has searched")
	}
	slices.Sort(s.took)
	return len(s.took), s.took[len(s.took)/2], s.took[len(s.took)-1], s.err
}

// searchOnce searches by the API. partial: old events are not in the index yet.
func searchOnce(ctx context.Context, base, token, words string) (partial bool, err error) {
	q := url.Values{"q": {words}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/messages?"+q.Encode(), nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return false, err
	}
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("a search is answered %s: %s", res.Status, body)
	}
	return bytes.Contains(body, []byte(`"partial":true`)), nil
}
