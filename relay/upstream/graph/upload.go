package graph

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postern/mail"
	"postern/relay/upstream"
	"postern/relay/upstream/account"
)

// How a large message goes. A draft is made of its header and text, its files are added one by one, and the draft is sent. All
// of it needs Mail.ReadWrite but the last. Until the draft is sent nobody has the message: whatever fails before is certain, and
// the draft is deleted. Memory is one file's request or one chunk, whatever the message's size: its content is read three times
// from where it lies (structure, text, files).
const (
	// smallFile: below, a file is one POST. Microsoft says 3 MB for both ways; 3 145 611 octets and 2 097 152 octets were measured
	// for the most of the one and the least of the other (github.com/microsoftgraph/msgraph-sdk-java/pull/52).
	smallFile = 3_000_000
	// chunk is how much goes with one PUT. Graph takes less than 4 MB of an Outlook file, in order; multiples of 320 KiB are what
	// its upload sessions ask for elsewhere.
	chunk = 10 * 320 << 10
	// maxResumes bounds how often one file is taken up again where it was cut.
	maxResumes = 5
	// maxRebuilding bounds how many large messages an Upstream works on at a time, of all mailboxes together: each may hold a dozen
	// megabytes. Others wait.
	maxRebuilding = 8
	// maxRequest is the largest request, in octets.
	maxRequest = 4_000_000
	// maxDraft bounds what is read of the answer to a draft, which has the draft in it, in octets.
	maxDraft = 16 << 20
)

// The words of Options.LargeMail, and of large_mail in relay.toml.
const (
	RefuseLarge = "refuse"
	UploadLarge = "upload"
)

// upload is the sending of one draft.
type upload struct {
	a     *attempt
	b     *rebuilt
	draft string // its id; "" before there is one
}

// sendLarge sends the message to some recipients as a draft. The error classes are those of sendMail.
func (a *attempt) sendLarge(ctx context.Context, batch []int) *fault {
	if len(a.prefix) > 0 {
		return rebuildFault(refuse("5.6.0", `our DKIM signature would not survive; the upstream needs dkim = "skip"`))
	}
	if f := a.takeApart(ctx); f != nil {
		return f
	}
	d, left, f := a.message.draftOf(a.rebuilt, a.t.Recipients, batch, a.blind(batch))
	if f != nil {
		return f
	}
	admission, f := a.admitLarge()
	if f != nil {
		return f
	}
	u := &upload{a: a, b: a.rebuilt}
	ans, f := u.run(ctx, d, admission)
	if f != nil {
		u.discard(ctx)
		if f.uncertain {
			a.slot.Charge(len(batch))
		}
		a.log(f)
		return f
	}
	a.slot.Charge(len(batch))
	a.deliver(batch, ans)
	for _, i := range batch {
		a.results[i].Note = a.rebuilt.note(left)
	}
	return nil
}

// run makes, fills and sends the draft, and tells the breaker of large mail, which waits for that; also where it panics.
func (u *upload) run(ctx context.Context, d *draft, admission account.Admission) (ans *answer, f *fault) {
	f = contentFault(errStopped)
	defer func() { u.settle(admission, f) }()
	if f = u.create(ctx, d); f == nil {
		f = u.files(ctx)
	}
	if f == nil {
		ans, f = u.send(ctx)
	}
	return ans, f
}

// takeApart rebuilds the message, once, when there is room for another large one. The room is kept until the attempt ends.
func (a *attempt) takeApart(ctx context.Context) (f *fault) {
	if a.rebuilt != nil {
		return nil
	}
	select {
	case a.u.rebuilding <- struct{}{}:
		a.large = true
	case <-ctx.Done():
	case <-a.u.ctx.Done():
	}
	if !a.large {
		return &fault{stage: mail.StageMail, class: mail.Deferral, ours: true, err: errStopped,
			reply: mail.R(451, "4.3.2", "the message was left because we are shutting down; other large ones were before it")}
	}
	a.rebuilt, f = a.message.rebuild()
	return f
}

// putAside makes room for another large message.
func (a *attempt) putAside() {
	if a.large {
		<-a.u.rebuilding
	}
}

// admitLarge holds large mail back while the right for it is missing, or the way its files go. Small mail has a breaker of its own.
func (a *attempt) admitLarge() (admission account.Admission, f *fault) {
	a.u.Update(func() {
		now, m := time.Now(), a.slot.Held()
		b := &m.large
		until, busy := b.Wait(now)
		if busy {
			until = now.Add(account.BackoffFirst)
		}
		if until.IsZero() {
			admission = b.Admit()
			return
		}
		f = &fault{stage: mail.StageMail, class: mail.BackPressure, ours: true, reply: b.Reply, note: m.largeNote, retryAfter: until.Sub(now)}
		if b.Status == upstream.Paused {
			f.class = mail.AccountFault
		}
	})
	return admission, f
}

// settle tells the breaker of large mail what came of it. A draft that was made is proof of the right, whatever came after.
func (u *upload) settle(adm account.Admission, f *fault) {
	n := account.News{}
	switch {
	case f != nil && f.aside && f.class == mail.AccountFault:
		n = account.News{Verdict: account.Fault, Reply: f.reply}
	case f != nil && f.aside:
		n = account.News{Verdict: account.Pressure, Reply: f.reply}
	case f == nil || u.draft != "":
		n = account.News{Verdict: account.Works}
	}
	u.a.u.Update(func() {
		if m := u.a.slot.Held(); m.large.Record(time.Now(), adm, n, u.a.u.o.Jitter()) && f != nil {
			m.largeNote = f.note
		}
	})
}

// noReadWrite is what a refused draft, file or session means. Mail.Send is enough for sendMail, so small mail may go on.
var noReadWrite = Rule{
	Name: "large-mail", Class: mail.AccountFault, Code: 454, Enhanced: "4.7.0", DropToken: true,
	Fix: `large_mail = "upload" needs Mail.ReadWrite for this mailbox, beside Mail.Send: in Exchange Online PowerShell, New-ManagementRoleAssignment -App <application id> ` +
		`-Role "Application Mail.ReadWrite" -CustomResourceScope <scope> (docs/upstreams/microsoft-graph.md); Exchange takes up to two hours to notice. Smaller mail is not affected`,
	Example: "403 ErrorAccessDenied Access is denied. Check credentials and try again.",
}

// create makes the draft.
func (u *upload) create(ctx context.Context, d *draft) *fault {
	body, err := marshal(d)
	if err != nil {
		return contentFault(err)
	}
	if len(body) > maxRequest {
		return rebuildFault(refuse("5.3.4", "its text and its recipients make a request of %d octets, where %d are the most", len(body), maxRequest))
	}
	made := struct{ id string }{}
	f := u.ask(ctx, step{method: http.MethodPost, path: "/messages", body: body, want: http.StatusCreated, field: func(name string, value json.RawMessage) {
		if strings.EqualFold(name, "id") {
			_ = json.Unmarshal(value, &made.id)
		}
	}})
	switch {
	case f != nil:
		return f
	case made.id == "" || len(made.id) > 1000:
		return u.odd("a draft without id")
	}
	u.draft = made.id
	return nil
}

// marshal leaves < and & as they are: escaped, HTML would be several times as long.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// files adds every file, in the order of the message.
func (u *upload) files(ctx context.Context) *fault {
	var failed *fault
	err := u.a.message.walk(func(e *entity, decoded io.Reader) error {
		f := u.b.files[e.number]
		if f == nil {
			return nil
		}
		if f.size < smallFile {
			failed = u.attach(ctx, f, decoded)
		} else {
			failed = u.session(ctx, f, decoded)
		}
		if failed != nil {
			return errStopped
		}
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return contentFault(err)
	}
	return nil
}

// attach adds a small file with one request, whose body is built as it is decoded: the file is in memory once, in base64.
func (u *upload) attach(ctx context.Context, f *file, decoded io.Reader) *fault {
	head, err := marshal(struct {
		Type   string `json:"@odata.type"`
		Name   string `json:"name"`
		Media  string `json:"contentType"`
		Inline bool   `json:"isInline"`
		CID    string `json:"contentId,omitempty"`
	}{"#microsoft.graph.fileAttachment", f.name, f.media, f.inline, f.cid})
	if err != nil {
		return contentFault(err)
	}
	head = bytes.TrimRight(head, "}\n")
	b := bytes.NewBuffer(make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(int(f.size))+32))
	b.Write(head)
	b.WriteString(`,"contentBytes":"`)
	enc := base64.NewEncoder(base64.StdEncoding, b)
	n, err := io.Copy(enc, decoded)
	if err == nil {
		err = enc.Close()
	}
	if err == nil && n != f.size {
		err = errShort
	}
	if err != nil {
		return contentFault(err)
	}
	b.WriteString(`"}`)
	return u.ask(ctx, step{method: http.MethodPost, path: u.path("/attachments"), body: b.Bytes(), want: http.StatusCreated})
}

// path is that of something of the draft.
func (u *upload) path(rest string) string { return "/messages/" + url.PathEscape(u.draft) + rest }

// session adds a large file by an upload session.
func (u *upload) session(ctx context.Context, f *file, decoded io.Reader) *fault {
	type item struct {
		Type   string `json:"attachmentType"`
		Name   string `json:"name"`
		Size   int64  `json:"size"`
		Media  string `json:"contentType"`
		Inline bool   `json:"isInline,omitempty"`
		CID    string `json:"contentId,omitempty"`
	}
	it := item{"file", f.name, f.size, f.media, f.inline, ""}
	if f.inline {
		it.CID = f.cid
	}
	body, err := marshal(map[string]item{"AttachmentItem": it})
	if err != nil {
		return contentFault(err)
	}
	var target string
	fault := u.ask(ctx, step{method: http.MethodPost, path: u.path("/attachments/createUploadSession"), body: body, want: http.StatusCreated, field: func(name string, value json.RawMessage) {
		if strings.EqualFold(name, "uploadUrl") {
			_ = json.Unmarshal(value, &target)
		}
	}})
	if fault != nil {
		return fault
	}
	at, err := url.Parse(target)
	if err != nil || at.Scheme != "https" || at.Host == "" {
		return u.odd("an upload session without address")
	}
	s := &session{u: u, url: target, peer: u.a.u.at(at.Host), size: f.size}
	return s.run(ctx, decoded)
}

// at is u for another host: its words, with the same way there.
func (u *Upstream) at(host string) *Upstream {
	return &Upstream{o: u.o, host: host, rules: u.rules, client: u.client, log: u.log, ctx: u.ctx}
}

// odd is an answer that fits nothing. The message is tried again.
func (u *upload) odd(what string) *fault {
	return &fault{stage: mail.StageData, class: mail.Deferral, answered: true, reply: mail.R(451, "4.3.0", "%s gave %s", u.a.u.host, what)}
}

// session is one file on its way. Its address is authorization enough: it must not get our token (learn.microsoft.com,
// outlook-large-attachments, step 2), and is not logged.
type session struct {
	u       *upload
	peer    *Upstream
	url     string
	size    int64
	resumes int
}

func (s *session) run(ctx context.Context, decoded io.Reader) *fault {
	for at := int64(0); at < s.size; {
		part := make([]byte, min(int64(chunk), s.size-at)) // a new one, since a transport may still read the last when its answer is there
		if _, err := io.ReadFull(decoded, part); err != nil {
			return contentFault(errShort)
		}
		end := at + int64(len(part))
		for at < end {
			next, f := s.put(ctx, part[int64(len(part))-(end-at):], at)
			if f != nil {
				return f
			}
			if next < at || next > end {
				return s.u.odd(fmt.Sprintf("octet %d as the next of a file, where %d was due", next, at))
			}
			at = next
		}
	}
	return nil
}

// put sends octets and returns which one is wanted next. A request without a good answer asks what has arrived.
func (s *session) put(ctx context.Context, part []byte, at int64) (next int64, f *fault) {
	end := at + int64(len(part))
	var got ranges
	ans, f := s.u.exchange(ctx, s.peer, s.url, "", step{
		method: http.MethodPut, body: part, field: got.field, media: "application/octet-stream",
		contentRange: fmt.Sprintf("bytes %d-%d/%d", at, end-1, s.size),
	})
	switch {
	case f == nil && ans.status == http.StatusCreated && end == s.size:
		return end, nil
	case f == nil && ans.status == http.StatusOK && got.known && got.next < s.size:
		if got.next == at {
			s.resumes++
		}
		if s.resumes > maxResumes {
			return 0, s.u.odd("no progress to an upload")
		}
		return got.next, nil
	case f == nil && ans.status < 500:
		return 0, s.refused(ans)
	}
	if f == nil {
		f = s.refused(ans)
	}
	if s.resumes++; s.resumes > maxResumes || ctx.Err() != nil || f.ours {
		return 0, f
	}
	return s.resume(ctx, f)
}

// resume asks how much of the file has arrived. why is returned where that is not to be learnt; a file that is complete has no
// session any more, so the attempt begins anew then.
func (s *session) resume(ctx context.Context, why *fault) (next int64, f *fault) {
	var got ranges
	ans, f := s.u.exchange(ctx, s.peer, s.url, "", step{method: http.MethodGet, field: got.field})
	if f != nil || ans.status != http.StatusOK || !got.known {
		return 0, why
	}
	return got.next, nil
}

// refused judges an answer about a file's octets. What is said about the address of the session is about it alone.
func (s *session) refused(ans *answer) *fault {
	f := s.peer.refused(ans)
	f.uncertain, f.stage = false, mail.StageData
	switch {
	case f.rule.Way: // which is judged before the address of the session is
		s.u.setAside(f, s.peer)
		return f
	case len(ans.codes) == 0:
	case f.class == mail.BackPressure, f.rule.Name == "mailbox-full", f.rule.Name == "daily-quota":
		return f // Exchange speaks of the mailbox
	}
	switch ans.status {
	case http.StatusOK, http.StatusCreated, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusGone, http.StatusRequestedRangeNotSatisfiable:
		return &fault{stage: mail.StageData, class: mail.Deferral, answered: true, reply: mail.R(451, "4.3.0", "the upload session is of no use any more: %s", ans.words())}
	}
	s.u.setAside(f, s.peer)
	return f
}

// setAside keeps trouble of the upload host, or of the way to it, from pausing small mail, which does not go there.
func (u *upload) setAside(f *fault, peer *Upstream) {
	if f.class != mail.AccountFault && f.class != mail.BackPressure || peer.host == u.a.u.host && f.rule != nil && !f.rule.Way {
		return
	}
	f.aside, f.note = true, "the files of large mail go to "+peer.host+", which a firewall must let out too; smaller mail is not affected"
}

// ranges is what a session wants next.
type ranges struct {
	next  int64
	known bool
}

// field reads nextExpectedRanges, whose spelling differs between clouds (msgraph-sdk-dotnet #2092): ["2097152"], or ["2097152-"].
func (r *ranges) field(name string, value json.RawMessage) {
	var list []string
	if !strings.EqualFold(name, "nextExpectedRanges") || json.Unmarshal(value, &list) != nil || len(list) == 0 {
		return
	}
	first, _, _ := strings.Cut(list[0], "-")
	if n, err := strconv.ParseInt(first, 10, 64); err == nil && n >= 0 {
		r.next, r.known = n, true
	}
}

// step is one request.
type step struct {
	method, path string // path is below the mailbox
	body         []byte
	media        string // of the body; "": JSON
	contentRange string
	want         int                                      // the one status that is success
	field        func(name string, value json.RawMessage) // is shown the fields of a 2xx answer
}

// ask makes a request of Graph before the draft is sent and, after a refused token, one more.
func (u *upload) ask(ctx context.Context, s step) *fault {
	for {
		ans, f := u.exchange(ctx, u.a.u, u.a.u.mailboxURL(u.a.mailbox)+s.path, u.a.token, s)
		if f != nil {
			return f
		}
		if ans.status == s.want {
			return nil
		}
		if f = u.refused(ans); !u.a.again(ctx, f) {
			return f
		}
	}
}

// refused judges an answer before the draft is sent: nothing was sent yet, so nothing is uncertain.
func (u *upload) refused(ans *answer) *fault {
	f := u.a.u.refused(ans)
	f.uncertain = false
	switch {
	case f.rule.Right:
		f.rule, f.stage, f.aside, f.note = &noReadWrite, mail.StageMail, true, u.a.u.adviceFor(&noReadWrite, u.a.mailbox, u.a.token)
		f.reply.Text += `; large_mail = "upload" needs Mail.ReadWrite`
	case f.rule.Way: // small mail finds out by itself
		f.aside = true
	case u.draft != "" && (ans.status == http.StatusNotFound || ans.status == http.StatusConflict):
		return &fault{stage: mail.StageData, class: mail.Deferral, answered: true, reply: mail.R(451, "4.3.0", "the draft is gone or was changed: %s", ans.words())}
	}
	return f
}

// again reports whether a refused request is worth another one at once, and gets what it needs for it.
func (a *attempt) again(ctx context.Context, f *fault) bool {
	if f.rule != nil && f.rule.DropToken {
		a.u.o.DropToken(a.mailbox, a.token)
	}
	switch {
	case f.rule == nil:
		return false
	case f.rule.Repeat && !a.repeated:
		a.repeated = true
		return a.u.pause(ctx, repeatAfter)
	case !f.rule.Again || a.renewed:
		return false
	}
	a.renewed = true
	if failed := a.fetchToken(ctx); failed != nil {
		*f = *failed
		return false
	}
	return true
}

// repeatAfter is how long Graph is given to notice what it knows, see Rule.Repeat.
const repeatAfter = 2 * time.Second

// pause reports whether d passed before anything ended.
func (u *Upstream) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-u.ctx.Done():
	}
	return false
}

// exchange makes one request that sends no message. It ends with ctx.
func (u *upload) exchange(ctx context.Context, peer *Upstream, target, token string, s step) (*answer, *fault) {
	ctx, release := peer.guard(ctx, func() bool { return false })
	defer release()
	req, err := http.NewRequestWithContext(ctx, s.method, target, bytes.NewReader(s.body))
	if err != nil {
		return nil, contentFault(errors.New("make a request of an upload")) // err may have the address, which is a secret
	}
	if s.method != http.MethodGet {
		media := s.media
		if media == "" {
			media = "application/json"
		}
		req.Header.Set("Content-Type", media)
	}
	if s.contentRange != "" {
		req.Header.Set("Content-Range", s.contentRange)
	}
	ans, err := peer.doFields(req, token, s.field)
	if err == nil {
		return ans, nil
	}
	f := peer.lost(ctx, unwrapURL(err), false)
	if peer != u.a.u {
		u.setAside(f, peer)
	}
	return nil, f
}

// send sends the draft. From its request on the message may be gone, as with sendMail.
func (u *upload) send(ctx context.Context) (*answer, *fault) {
	for {
		ans, f := u.sendOnce(ctx)
		if f != nil {
			return nil, f
		}
		if ans.accepted() {
			return ans, nil
		}
		f = u.a.u.refused(ans)
		if ans.status == http.StatusNotFound {
			f = &fault{stage: mail.StageDot, class: mail.Deferral, answered: true, reply: mail.R(451, "4.3.0", "the draft is gone: %s", ans.words())}
		}
		if !u.a.again(ctx, f) {
			return nil, f
		}
	}
}

func (u *upload) sendOnce(ctx context.Context) (*answer, *fault) {
	up := u.a.u
	// A transport of ours tells when it has written the request. Another is taken to have done so at once.
	var traced, wrote atomic.Bool
	gone := func() bool { return !traced.Load() || wrote.Load() }
	ctx, release := up.guard(ctx, gone)
	defer release()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { traced.Store(true) },
		WroteHeaders: func() { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, up.mailboxURL(u.a.mailbox)+u.path("/send"), http.NoBody)
	if err != nil {
		return nil, contentFault(err)
	}
	ans, err := up.do(req, u.a.token)
	if err != nil {
		return nil, up.lost(ctx, unwrapURL(err), gone())
	}
	return ans, nil
}

// discard deletes the draft of a message that was not sent, or may not have been: it is tried again either way. What was sent is
// no draft any more, so this cannot take it back.
func (u *upload) discard(ctx context.Context) {
	if u.draft == "" {
		return
	}
	up := u.a.u
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), up.o.Timeouts.Drain)
	defer cancel()
	ans, f := u.exchange(ctx, up, up.mailboxURL(u.a.mailbox)+u.path(""), u.a.token, step{method: http.MethodDelete})
	switch {
	case f != nil:
		up.log.Warn("a draft may be left in the mailbox", "id", u.a.t.ID, "identity", u.a.mailbox, "reply", f.reply.String())
	case ans.status != http.StatusNoContent && ans.status != http.StatusNotFound:
		up.log.Warn("a draft may be left in the mailbox", "id", u.a.t.ID, "identity", u.a.mailbox, "reply", ans.words())
	}
}

// readFields shows the fields of a JSON object one by one. What is not JSON has none.
func readFields(r io.Reader, field func(name string, value json.RawMessage)) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return
	}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return
		}
		field(name, value)
	}
}
