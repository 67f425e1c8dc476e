package storm

import (
	"slices"
	"time"

	"postern/mail"
)

// view is what is remembered of one stream of mail. Guarded by Watch.mu.
type view struct {
	alone  bool // one login with several domains is enough
	used   time.Time
	ring   [ringSize]outcome // the newest at next-1
	next   int
	texts  []*text              // the one met last is the last
	logins map[string]time.Time // last delivery
	open   int                  // texts that a delivery is news to
}

// outcome is one message. text nil: delivered.
type outcome struct {
	at            time.Time
	login, domain string
	internal      bool
	text          *text
}

// text is one answer of the provider, whatever changes in it.
type text struct {
	code     int
	enhanced string
	words    []string
	kind     kind

	internal bool                  // met by internal mail as well
	unmixed  bool                  // no delivery since it was met
	mixed    [mixedTimes]time.Time // the last deliveries between two refusals, the newest last
	single   time.Time             // until then it is known to be about single messages
	storm    *record
}

// record is a storm with its end. nil is none.
type record struct {
	Storm
	last    mail.Reply
	ended   time.Time // zero: it goes on
	touched time.Time
	through map[string]int // deliveries since it ended, by login
	total   int
}

func (r *record) open() bool { return r != nil && r.ended.IsZero() }

// storms appends those that go on.
func (v *view) storms(all []Storm) []Storm {
	for _, t := range v.texts {
		if t.storm.open() {
			s := t.storm.Storm
			s.Logins, s.Domains = slices.Clone(s.Logins), slices.Clone(s.Domains)
			all = append(all, s)
		}
	}
	return all
}

func (v *view) add(o outcome) {
	v.used = o.at
	v.ring[v.next%ringSize] = o
	v.next++
}

// newest calls yield from the newest outcome on.
func (v *view) newest(yield func(*outcome) bool) {
	for i := v.next - 1; i >= max(0, v.next-ringSize); i-- {
		if !yield(&v.ring[i%ringSize]) {
			return
		}
	}
}

func (v *view) delivered(now time.Time, a *Attempt) {
	v.add(outcome{at: now, login: a.Login, domain: a.Domain, internal: a.Internal})
	if v.logins == nil {
		v.logins = make(map[string]time.Time)
	}
	if _, known := v.logins[a.Login]; !known && len(v.logins) >= maxLogins {
		for old := range v.logins { // any: of so many some are always known
			delete(v.logins, old)
			break
		}
	}
	v.logins[a.Login] = now
	if v.open == 0 {
		return
	}
	v.open = 0
	for _, t := range v.texts {
		if t.delivered(now, a) {
			v.open++
		}
	}
}

// delivered reports whether the next delivery is news as well.
func (t *text) delivered(now time.Time, a *Attempt) bool {
	if a.Internal && !t.internal {
		return true // it proves nothing
	}
	if t.unmixed {
		t.unmixed = false
		copy(t.mixed[:], t.mixed[1:])
		t.mixed[mixedTimes-1] = now
		if first := t.mixed[0]; !first.IsZero() && now.Sub(first) <= recent {
			t.single = now.Add(mixedLife)
		}
	}
	s := t.storm
	if s == nil {
		return false
	}
	if s.open() {
		s.end(now)
	}
	if s.total++; len(s.through) < maxThrough || s.through[a.Login] > 0 {
		s.through[a.Login]++
	}
	return true
}

func (r *record) end(now time.Time) {
	r.ended, r.touched = now, now
	r.through, r.total = make(map[string]int), 0
}

func (v *view) refused(now time.Time, r *Refusal, words []string) (verdict Verdict, begun bool) {
	t := v.meet(r, words)
	v.note(now, t, r)
	switch {
	case t.storm.open():
		verdict = t.storm.meets(r)
	case !r.Repeated && v.hitsMany(now, t):
		verdict, begun = v.begin(now, t, r, ""), true
	case t.storm != nil:
		if verdict = v.doubted(now, t, r); verdict == KeepIdentity {
			verdict, begun = v.begin(now, t, r, t.storm.Sender), true
		}
	case !r.Repeated && v.hitsOne(now, t, r):
		sender := ""
		if v.hasOthers(now, r.Login) {
			sender = r.Login
		}
		verdict, begun = v.begin(now, t, r, sender), true
	}
	if t.storm != nil && verdict != Believe {
		t.storm.touched, t.storm.last = now, r.Reply
		t.storm.Kept++
	}
	return verdict, begun
}

// note remembers a refusal. A repeated one does not count again, but shows that its text was doubted: before a restart,
// if this Watch knows nothing of it.
func (v *view) note(now time.Time, t *text, r *Refusal) {
	if t.storm != nil && !t.storm.open() && now.Sub(t.storm.touched) > recent {
		t.storm = nil
	}
	switch {
	case !r.Repeated:
		t.internal = t.internal || r.Internal
		v.add(outcome{at: now, login: r.Login, domain: r.Domain, internal: r.Internal, text: t})
	case t.storm == nil:
		t.storm = &record{Storm: Storm{Since: now, Reply: r.Reply, Stage: r.Stage}}
		t.storm.end(now)
		v.open++
	}
}

// meets takes a refusal into a storm that goes on. A storm of one sender becomes everybody's when it meets another
// login; a null reverse-path may be the same sender.
func (r *record) meets(by *Refusal) Verdict {
	if r.Sender != "" && by.Login == Null {
		return KeepMessage
	}
	if r.Sender != "" && r.Sender != by.Login {
		r.Sender = ""
	}
	r.name(by.Login, by.Domain)
	switch {
	case r.Sender != "":
		return KeepSender
	case by.Repeated: // the next message may show more
		return KeepMessage
	}
	return KeepIdentity
}

func (r *record) name(login, domain string) {
	if len(r.Logins) < maxNames && !slices.Contains(r.Logins, login) {
		r.Logins = append(r.Logins, login)
	}
	if len(r.Domains) < maxNames && !slices.Contains(r.Domains, domain) {
		r.Domains = append(r.Domains, domain)
	}
}

func (v *view) begin(now time.Time, t *text, r *Refusal, sender string) Verdict {
	before := t.storm
	t.storm = &record{Storm: Storm{Since: now, Sender: sender, Reply: r.Reply, Stage: r.Stage}}
	if before != nil { // it goes on
		t.storm.Since, t.storm.Kept = before.Since, before.Kept
	}
	v.newest(func(o *outcome) bool {
		if o.text == t && now.Sub(o.at) <= recent && (sender == "" || o.login == sender) {
			t.storm.name(o.login, o.domain)
		}
		return true
	})
	v.open++
	if sender != "" {
		return KeepSender
	}
	return KeepIdentity
}

// tally counts how a text was met, from the newest refusal back.
type tally struct {
	refused, delivered int
	logins, domains    []string
	pairs              [][2]string
}

func (c *tally) add(o *outcome) {
	c.refused++
	if o.login != Null && !slices.Contains(c.logins, o.login) { // it may be the same person
		c.logins = append(c.logins, o.login)
	}
	if !slices.Contains(c.domains, o.domain) {
		c.domains = append(c.domains, o.domain)
	}
	if p := [2]string{o.login, o.domain}; !slices.Contains(c.pairs, p) {
		c.pairs = append(c.pairs, p)
	}
}

// since counts what was met with a text within recent, and since its storm ended, until enough says stop.
func (v *view) since(now time.Time, t *text, stop func(*tally) bool) (c tally, stopped bool) {
	for o := range v.newest {
		if now.Sub(o.at) > recent || t.storm != nil && o.at.Before(t.storm.ended) {
			break
		}
		switch {
		case o.text == nil && (t.internal || !o.internal):
			c.delivered++
		case o.text == t:
			if c.add(o); stop(&c) {
				return c, true
			}
		}
	}
	return c, false
}

// hitsMany reports that the last refusals with a text are those of several logins, and hardly anything got through
// between.
func (v *view) hitsMany(now time.Time, t *text) bool {
	_, hit := v.since(now, t, func(c *tally) bool {
		if t.single.After(now) || t.kind == ofTheReceiver {
			return len(c.pairs) >= enoughNamed && c.delivered*mostNamed <= len(c.pairs) &&
				len(c.logins) >= namedLogins && len(c.domains) >= namedDomains
		}
		logins := 2
		if t.kind == ofTheContent {
			logins = contentLogins
		}
		return c.refused >= enough && c.delivered*mostDelivered <= c.refused && len(c.logins) >= logins
	})
	return hit
}

// hitsOne reports the same for several domains of one login, while nobody else's mail shows that the account is not to
// blame: none got through since that login was refused first.
func (v *view) hitsOne(now time.Time, t *text, r *Refusal) bool {
	if !v.alone || t.kind != unnamed || t.single.After(now) || r.Login == Null {
		return false
	}
	count, others, hit := tally{}, false, false
	for o := range v.newest {
		if now.Sub(o.at) > recent {
			break
		}
		switch {
		case o.text == nil && o.internal && !t.internal:
		case o.text == nil && o.login != r.Login:
			others = true
		case o.text == nil:
			count.delivered++
		case o.text == t && o.login == r.Login:
			if others {
				return hit && count.delivered > 0
			}
			count.add(o)
			hit = hit || count.refused >= enough && count.delivered*mostDelivered <= count.refused &&
				len(count.domains) >= 2
		}
	}
	return hit
}

// hasOthers reports that somebody else sends here, too.
func (v *view) hasOthers(now time.Time, login string) bool {
	for other, at := range v.logins {
		if other != login && other != Null && now.Sub(at) <= knownFor {
			return true
		}
	}
	return false
}

// doubted decides about a text whose storm has ended. It is believed when enough mail gets through that is not refused
// with it; if hardly any does, the storm is not over.
func (v *view) doubted(now time.Time, t *text, r *Refusal) Verdict {
	c, _ := v.since(now, t, func(*tally) bool { return false })
	s := t.storm
	others := s.total - s.through[r.Login]
	switch {
	case others >= proof && len(c.logins) == 1 && c.logins[0] == r.Login:
		return Believe // nobody else meets it
	case s.total >= proof && s.total >= 2*len(c.pairs):
		if !r.Repeated && v.hitsOne(now, t, r) { // another storm
			return KeepIdentity
		}
		return Believe
	case !r.Repeated && len(c.pairs) >= enough && s.total*mostDelivered <= len(c.pairs):
		return KeepIdentity
	}
	return KeepMessage
}

// meet finds the text of a refusal, or begins one, in the place of the one that was met longest ago and is no storm.
func (v *view) meet(r *Refusal, words []string) *text {
	t := v.find(r.Reply, words)
	if t == nil {
		t = &text{code: r.Reply.Code, enhanced: r.Reply.Enhanced, words: words, kind: kindOf(r.Stage, r.Reply)}
	} else {
		i := slices.Index(v.texts, t)
		v.texts = slices.Delete(v.texts, i, i+1)
	}
	if len(v.texts) >= maxTexts {
		i := max(0, slices.IndexFunc(v.texts, func(t *text) bool { return !t.storm.open() }))
		v.texts = slices.Delete(v.texts, i, i+1)
	}
	v.texts = append(v.texts, t)
	if !t.unmixed {
		t.unmixed = true
		v.open++
	}
	return t
}

func (v *view) find(r mail.Reply, words []string) *text {
	for i := len(v.texts) - 1; i >= 0; i-- {
		if t := v.texts[i]; t.code == r.Code && t.enhanced == r.Enhanced && resembles(t.words, words) {
			return t
		}
	}
	return nil
}

// raging finds the storm of a reply. It reads the words only where a storm goes on that has met other forms of the
// text.
func (v *view) raging(r mail.Reply, personal []string) *text {
	open := false
	for _, t := range v.texts {
		if !t.storm.open() {
			continue
		}
		if t.storm.last == r || t.storm.Reply == r {
			return t
		}
		open = true
	}
	if !open {
		return nil
	}
	if t := v.find(r, Words(r, personal...)); t != nil && t.storm.open() {
		return t
	}
	return nil
}

func (v *view) forget(r mail.Reply, words []string) {
	t := v.find(r, words)
	if t == nil {
		return
	}
	v.texts = slices.DeleteFunc(v.texts, func(other *text) bool { return other == t })
	for i := range v.ring {
		if v.ring[i].text == t {
			v.ring[i].text = explained
		}
	}
}

// explained stands in the ring for texts that a person has written a rule for.
var explained = &text{}
