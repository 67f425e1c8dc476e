//go:build unix

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/fakesmtp"
	"postern/internal/periodic"
	"postern/internal/testkit"
)

// node is a postern of several at one database. What it says to the database goes through gates of its own, one to each
// server.
type node struct {
	*office
	name    string
	gates   []*testkit.Gate
	process *testkit.Process
	ended   chan struct{}      // closed when it has ended; nil: it is not to run
	lives   []*testkit.Process // all that there were

	launched time.Time // the last one
}

// fleet is several nodes, their database and what they send to.
type fleet struct {
	t        *testing.T
	ca       *testkit.CA
	cert     testkit.Cert
	provider *provider
	primary  *testkit.PG
	standby  *testkit.PG // nil: there is none, or it was promoted
	servers  []*testkit.PG
	settings string // of relay.toml, at its end
	nodes    []*node
}

const fleetConnections = 10 // of the account at the provider, in the sum of all nodes

func newFleet(t *testing.T, withStandby bool, settings string) *fleet {
	t.Helper()
	f := &fleet{t: t, ca: testkit.NewCA(t), settings: settings, primary: testkit.PostgreSQL(t)}
	f.cert = f.ca.Leaf(testkit.LeafOptions{})
	f.provider = newProvider(t, f.cert)
	f.servers = []*testkit.PG{f.primary}
	if withStandby {
		f.primary.Configure("wal_retrieve_retry_interval", "200ms") // the standby's, which has a copy
		f.standby = f.primary.Standby(t, true)
		f.servers = append(f.servers, f.standby)
	}
	f.add().postern("a chosen password\n", "user", "add", "anna@example.com", "--password-stdin")
	return f
}

// add makes a node that does not run yet.
func (f *fleet) add() *node {
	f.t.Helper()
	n := &node{office: &office{t: f.t, dir: f.t.TempDir(), ca: f.ca}, name: fmt.Sprint("node", len(f.nodes)+1)}
	var hosts []string
	for _, pg := range f.servers {
		g := testkit.NewGate(f.t, pg.Address())
		n.gates = append(n.gates, g)
		hosts = append(hosts, g.Address())
	}
	u, err := url.Parse(testkit.Through(f.t, f.primary.URL(), strings.Join(hosts, ",")))
	if err != nil {
		f.t.Fatal(err)
	}
	u.User = url.User(testkit.PGUser)
	if len(hosts) > 1 {
		u.RawQuery += "&target_session_attrs=read-write"
	}
	n.write("postgres.pw", testkit.PGPassword+"\n")
	n.write("nodes.key", base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789ABCDEF"))+"\n")
	handoff := [...]string{"0s", "1s"}[len(f.nodes)%2]
	// By its hostname the provider knows who it is.
	n.configure(n.name+".example.com", f.cert, handoff, fmt.Sprintf(`[store]
url = %q
password = "file:postgres.pw"
seal_key = "file:nodes.key"
node = %q
`, u.String(), n.name)+n.provider(strconv.Itoa(f.provider.port))+fmt.Sprintf("max_connections = %d\n%s",
		fleetConnections, f.settings))
	f.nodes = append(f.nodes, n)
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.accepts(true)
}

// clocks are how many seconds nodes' are off, where that can be.
var clocks = map[string]string{"node2": "3600", "node3": "-3600"}

func (n *node) launch() {
	n.t.Helper()
	n.launched = time.Now()
	binary, env := testkit.Binary(n.t), []string(nil)
	if shifted := os.Getenv("POSTERN_TEST_CLOCKS"); shifted != "" { // of scripts/test-clocks
		binary, env = shifted, []string{"POSTERN_CLOCK=" + clocks[n.name]}
	}
	n.process, n.ended = testkit.Start(n.t, env, binary, "serve", "--config", n.config), make(chan struct{})
	n.lives = append(n.lives, n.process)
	go func(p *testkit.Process, ended chan struct{}) {
		_ = p.Wait(time.Hour)
		close(ended)
	}(n.process, n.ended)
}

// stop has it end. It does so well, unless the database was away to the last.
func (n *node) stop() {
	n.t.Helper()
	n.process.Signal(syscall.SIGTERM)
	if err := n.process.Wait(patience); err != nil && !withoutDatabase.MatchString(n.process.Log()) {
		n.t.Errorf("%s after SIGTERM: %v\n%s", n.name, err, n.process.Log())
	}
	n.ended = nil
}

// withoutDatabase is what a node says that ends because of that.
var withoutDatabase = regexp.MustCompile("the database (is away|cannot be reached)")

// tend starts a node again that has ended by itself, as a service manager does: one that begins ends where the database
// goes away.
func (n *node) tend() {
	n.t.Helper()
	select {
	case <-n.ended:
		if !withoutDatabase.MatchString(n.process.Log()) {
			n.t.Errorf("%s has ended:\n%s", n.name, n.process.Log())
		}
		if time.Since(n.launched) > time.Second {
			n.t.Logf("%s has ended, and is started again", n.name)
			n.launch()
		}
	default:
	}
}

// accepts waits until it does, or does not.
func (n *node) accepts(wanted bool) {
	n.t.Helper()
	n.until(fmt.Sprintf("%s accepts: %v", n.name, wanted), func() bool {
		n.tend()
		c, err := net.Dial("tcp", n.address)
		if err == nil {
			c.Close()
		}
		return (err == nil) == wanted
	})
}

// kill ends it, and says which messages may come twice by that.
func (f *fleet) kill(n *node) {
	n.process.Kill()
	n.ended = nil
	f.provider.killed(n.name)
}

// provider keeps account of what came, over which node, and of what must not come again.
type provider struct {
	*tormentor
	fake *fakesmtp.Server
	port int

	mu       sync.Mutex
	nodes    map[int]string // by number of the connection
	arrivals []*arrival
	tried    map[string]bool // recipients whose message has come, taken or not
	next     chan struct{}   // closed when a message comes
	open     map[int]session // connections that are logged in, but of nodes that stand still
	still    map[string]bool // nodes that stand still
	delay    atomic.Int64    // of answers
	mostOpen int             // at a time
	mostBy   map[string]int  // then, by node
}

// session is a connection of a node, by its port there.
type session struct {
	node string
	from int
}

type arrival struct {
	fakesmtp.Message
	node, id string
	excused  bool // its node may not know that it was taken
}

func newProvider(t *testing.T, cert testkit.Cert) *provider {
	t.Helper()
	p := &provider{nodes: map[int]string{}, open: map[int]session{}, still: map[string]bool{},
		tried: map[string]bool{}, next: make(chan struct{}),
		tormentor: &tormentor{rnd: rand.New(rand.NewPCG(1, 2)), unanswered: map[string]bool{}}}
	p.fake = fakesmtp.New(fakesmtp.Config{TLS: cert.Server(), Extensions: fakesmtp.Full, Mechanisms: []string{"PLAIN"},
		Users: map[string]string{"relay": "upstream secret"}, Hook: p.see, Closed: p.closed,
		Delay: func() time.Duration { return time.Duration(p.delay.Load()) }})
	var err error
	if p.port, err = p.fake.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.fake.Close)
	return p
}

func (p *provider) see(s *fakesmtp.Session, verb, line string) fakesmtp.Action {
	m, taken := s.Message(), s.Taken
	a := p.hook(s, verb, line)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case verb == "EHLO":
		p.nodes[s.Number] = nodeOf(line)
	case verb == "AUTH":
		if node := p.nodes[s.Number]; !p.still[node] {
			p.open[s.Number] = session{node, s.Client.(*net.TCPAddr).Port}
			p.count()
		}
	case verb == fakesmtp.Content, verb == fakesmtp.Chunk && strings.HasSuffix(line, " LAST"):
		if s.Taken > taken || a == (fakesmtp.Action{}) && len(m.To) > 0 {
			p.arrivals = append(p.arrivals, &arrival{Message: m, node: p.nodes[s.Number], id: idOf(m.Data),
				excused: a.Drop && a.Reply == ""})
		}
		for _, to := range m.To {
			p.tried[pathOf(to)] = true
		}
		close(p.next)
		p.next = make(chan struct{})
	}
	return a
}

// count counts the connections that are open at both ends: this end learns late of one that a node has closed, while
// it keeps an answer back.
func (p *provider) count() {
	established, n := establishedAt(p.port), 0
	now := map[string]int{}
	for _, s := range p.open {
		if established[s.from] {
			n++
			now[s.node]++
		}
	}
	if n > p.mostOpen {
		p.mostOpen, p.mostBy = n, now
	}
}

// establishedAt lists the ports from which there are connections to a port of this machine that nobody has closed.
func establishedAt(port int) map[int]bool {
	from := map[int]bool{}
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		var n, local, remote, state int
		_, err := fmt.Sscanf(line, "%d: 0100007F:%X 0100007F:%X %X", &n, &local, &remote, &state)
		if err == nil && local == port && state == 1 { // TCP_ESTABLISHED
			from[remote] = true
		}
	}
	return from
}

func (p *provider) closed(s *fakesmtp.Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, s.Number)
}

// stopped leaves the connections of a node out of account that stands still: it cannot close them when its lease of
// them runs out. When it wakes, it logs in on none that it had dialled.
func (p *provider) stopped(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still[node] = true
	maps.DeleteFunc(p.open, func(_ int, s session) bool { return s.node == node })
}

// goesOn takes a node into account again.
func (p *provider) goesOn(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.still, node)
}

func nodeOf(line string) string {
	name, _, _ := strings.Cut(line[len("EHLO "):], ".")
	return name
}

var receivedID = regexp.MustCompile(`(?s)^Received: .*? id (\w+)`)

// idOf is the message's ID in the queue.
func idOf(data []byte) string {
	if found := receivedID.FindSubmatch(data[max(0, strings.Index(string(data), "Received: ")):]); found != nil {
		return string(found[1])
	}
	return ""
}

// killed excuses what was under way at a node: so many messages at most were between the final dot and the node's own
// note of the answer.
func (p *provider) killed(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for left, i := fleetConnections, len(p.arrivals)-1; i >= 0 && left > 0; i-- {
		if p.arrivals[i].node == node {
			p.arrivals[i].excused = true
			left--
		}
	}
}

// came is how many messages have come, by way of nodes but one.
func (p *provider) came(but string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.arrivals {
		if a.node != but {
			n++
		}
	}
	return n
}

// another is closed when another message comes.
func (p *provider) another() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// seen is to how many recipients something has come, taken or not.
func (p *provider) seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tried)
}

// more waits for so many messages to come from other nodes than one.
func (f *fleet) more(n int, but string) {
	f.t.Helper()
	deadline, tick := time.NewTimer(patience), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for want := f.provider.came(but) + n; ; {
		another := f.provider.another()
		if f.provider.came(but) >= want {
			return
		}
		select {
		case <-another:
		case <-tick.C:
			for _, n := range f.nodes {
				n.tend()
			}
		case <-deadline.C:
			f.stuck(but)
		}
	}
}

// stuck says how things stand at a node but one, where mail does not go on.
func (f *fleet) stuck(but string) {
	f.t.Helper()
	n := f.nodes[0]
	if n.name == but {
		n = f.nodes[1]
	}
	var waits []string // but for what may have been taken, which waits for 10 minutes
	for line := range strings.Lines(n.postern("", "queue", "list")) {
		if !strings.Contains(line, "the message may have been taken") {
			waits = append(waits, line)
		}
	}
	f.t.Fatalf("mail does not go on:\n%s%s%d wait:\n%.3000s", n.postern("", "node", "list"), n.postern("", "status"),
		len(waits)-1, strings.Join(waits, ""))
}

// chaos does to a fleet what may happen to it, one thing after the other.
type chaos struct {
	*fleet
	*claimed
	rnd     *rand.Rand
	senders sync.WaitGroup
	enough  context.Context // ended by stop
	stop    func()
	expired map[string]int // IDs of messages whose lease ran out while their node had them, and how often
}

// send has clients send to a node until it is enough. Where nobody listens, they come again.
func (c *chaos) send(n *node) {
	for range 2 {
		c.senders.Go(func() {
			periodic.Run(c.enough, 20*time.Millisecond, func() { c.torment(n.office, c.enough) })
		})
	}
}

// mostWaiting is for how many recipients mail may wait for its first attempt before clients wait.
const mostWaiting = 500

// backlog waits until it is for fewer.
func (c *chaos) backlog() {
	for {
		another := c.provider.another()
		c.claimed.mu.Lock()
		accepted := len(c.accepted)
		c.claimed.mu.Unlock()
		if accepted-c.provider.seen() < mostWaiting {
			return
		}
		select {
		case <-another:
		case <-c.enough.Done():
			return
		}
	}
}

// some is a number of messages to wait for.
func (c *chaos) some() int { return 5 + c.rnd.IntN(15) }

// expire lets the leases of a node run out that stands still, and its membership with them.
func (c *chaos) expire(n *node) {
	c.t.Helper()
	c.primary.Exec("UPDATE node SET until = 1 WHERE name = '" + n.name + "'; " +
		"UPDATE leader SET until = 1 WHERE position('" + n.name + "/'::bytea IN node) = 1")
	for _, row := range c.primary.Exec("UPDATE message SET lease_until = 1 WHERE lease_until > 1 AND " +
		"position('" + n.name + "/'::bytea IN lease_owner) = 1 RETURNING convert_from(id, 'UTF8')") {
		c.expired[row[0]]++
	}
}

// chaosSeed chooses what happens, and when.
const chaosSeed = 2

// fault is what may happen to a node, or to all of them.
type fault struct {
	name  string
	begin func(c *chaos, n *node) (end func()) // nil: it is over at once
}

var faults = []fault{
	{"killed", func(c *chaos, n *node) func() {
		c.kill(n)
		n.start()
		return nil
	}},
	{"dead for longer than its leases", func(c *chaos, n *node) func() {
		c.kill(n)
		c.expire(n)
		return n.start
	}},
	{"stopped for longer than its leases", func(c *chaos, n *node) func() {
		n.process.Signal(syscall.SIGSTOP)
		c.provider.stopped(n.name)
		c.expire(n)
		return func() {
			c.provider.goesOn(n.name)
			n.process.Signal(syscall.SIGCONT)
		}
	}},
	{"told to end", func(c *chaos, n *node) func() {
		n.stop()
		return n.start
	}},
	{"drained", func(c *chaos, n *node) func() {
		n.postern("", "node", "drain", n.name)
		n.accepts(false)
		return func() {
			n.postern("", "node", "drain", "--undo", n.name)
			n.accepts(true)
		}
	}},
	{"cut off from the database", func(c *chaos, n *node) func() {
		n.each((*testkit.Gate).Cut)
		return func() { n.each((*testkit.Gate).Pass) }
	}},
	{"hearing nothing of the database", func(c *chaos, n *node) func() {
		n.each((*testkit.Gate).Stall)
		return func() { n.each((*testkit.Gate).Pass) }
	}},
	{"cut off within a message to or from the database", func(c *chaos, n *node) func() {
		toward, octets := testkit.Toward(c.rnd.IntN(2)), 1+c.rnd.IntN(20_000)
		<-n.gates[c.at()].CutAfter(toward, octets)
		return nil
	}},
	{"without an answer to a commit", func(c *chaos, n *node) func() {
		<-n.gates[c.at()].LoseAnswer("UPDATE counter SET messages")
		return nil
	}},
	{"without connections", func(c *chaos, _ *node) func() {
		c.primary.Terminate()
		return nil
	}},
	{"at a database that is started again", func(c *chaos, _ *node) func() {
		c.primary.Restart()
		return nil
	}},
	{"at a database that crashed", func(c *chaos, _ *node) func() {
		c.primary.Kill()
		c.primary.Start()
		return nil
	}},
	{"at a standby that is promoted", func(c *chaos, _ *node) func() {
		if c.standby != nil {
			c.primary.Kill()
			c.standby.Promote()
			c.primary, c.standby = c.standby, nil
		}
		return nil
	}},
	{"one of more", func(c *chaos, _ *node) func() {
		if len(c.nodes) < mostNodes {
			n := c.add()
			n.start()
			c.send(n)
		}
		return nil
	}},
}

const mostNodes = 5

// each does something to all gates of a node.
func (n *node) each(do func(*testkit.Gate)) {
	for _, g := range n.gates {
		do(g)
	}
}

// at is the number of the server that is the primary.
func (f *fleet) at() int { return slices.Index(f.servers, f.primary) }

// befall has something happen to a node. While it lasts, something else happens to another one, if there is a third:
// one that begins waits up to 40 s for the connections that a node has leased that is not to be heard.
func (c *chaos) befall(one fault) {
	began, i := time.Now(), c.rnd.IntN(len(c.nodes))
	n := c.nodes[i]
	what := n.name + " is " + one.name
	if end := one.begin(c, n); end != nil {
		c.more(c.some(), n.name)
		if len(c.nodes) > 2 {
			other, m := faults[c.rnd.IntN(len(faults))], c.nodes[(i+1)%len(c.nodes)]
			if end := other.begin(c, m); end != nil {
				end()
			}
			what += ", and meanwhile " + m.name + " " + other.name
			c.more(c.some(), n.name)
		}
		end()
	}
	c.more(c.some(), "")
	c.t.Logf("%v, then %d messages: %s", time.Since(began).Round(time.Millisecond), c.provider.came(""), what)
}

// TestNodesLoseNothing: promises 1 and 2 with two to five nodes at one database, whatever happens to them and to it.
func TestNodesLoseNothing(t *testing.T) {
	c := &chaos{fleet: newFleet(t, true, "[[policy]]\nlimits = []\n"), rnd: rand.New(rand.NewPCG(chaosSeed, 1)),
		claimed: &claimed{accepted: map[string]string{}}, expired: map[string]int{}}
	c.enough, c.stop = context.WithCancel(context.Background())
	t.Cleanup(func() { // behind the end of the nodes, whatever happened to them
		c.stop()
		c.senders.Wait()
	})
	c.wait = c.backlog
	c.provider.delay.Store(int64(2 * time.Millisecond))
	c.add()
	for _, n := range c.nodes {
		n.start()
		c.send(n)
	}
	for _, i := range c.rnd.Perm(len(faults)) {
		c.befall(faults[i])
	}
	c.settle()
	c.judge()
}

// settle ends the sending and waits until nothing is left to do.
func (c *chaos) settle() {
	c.t.Helper()
	c.stop()
	c.senders.Wait()
	p := c.provider
	p.tormentor.mu.Lock()
	p.calm = true
	p.tormentor.mu.Unlock()
	n, list := c.nodes[0], ""
	for came, deadline := 0, time.Now().Add(patience); !strings.Contains(list, "The queue is empty."); {
		testkit.Run(c.t, "", "queue", "retry", "--all", "--config", n.config)
		list = testkit.Run(c.t, "", "queue", "list", "--config", n.config).Text
		if now := c.provider.came(""); now > came {
			came, deadline = now, time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			c.stuck("")
		}
	}
	for _, n := range c.nodes {
		n.stop()
		for _, p := range n.lives {
			if strings.Contains(p.Log(), "msg=\"panic") {
				c.t.Errorf("%s met a panic:\n%s", n.name, p.Log())
			}
		}
	}
}

// judge compares what came with what was accepted, and how often with how often it may have.
func (c *chaos) judge() {
	c.t.Helper()
	times, excuses := map[string]int{}, map[string]int{}
	by := map[string][]string{}
	for i, a := range c.provider.arrivals {
		body := bodyOf(c.t, a.Data)
		for _, line := range a.To {
			to := pathOf(line)
			if times[to]++; times[to] == 1 {
				excuses[to] += c.expired[a.id]
			}
			if a.excused {
				excuses[to]++
			}
			by[to] = append(by[to], fmt.Sprintf("%d: %s by %s on %d, excused %v", i, a.id, a.node, a.Conn, a.excused))
			if want, ok := c.accepted[to]; ok && body != want {
				c.t.Errorf("%s got %.100q", to, body)
			}
			if !strings.HasPrefix(to, "n") {
				c.t.Errorf("a report that nobody is owed: %s", a.Data)
			}
		}
	}
	for to := range c.accepted {
		if times[to] == 0 {
			c.t.Errorf("%s is lost", to)
		}
	}
	twice := 0
	for to, n := range times {
		if n > 1 {
			twice++
		}
		if n > 1+excuses[to] {
			c.t.Errorf("%s came %d times, and may have come %d: %s\n%s", to, n, 1+excuses[to],
				strings.Join(by[to], "\n"), c.nodes[0].postern("", "trace", "--json", strings.Fields(by[to][0])[1]))
		}
	}
	c.t.Logf("%d messages, %d recipients accepted, %d arrived, %d twice, %d leases ran out, %d connections at most",
		c.seq, len(c.accepted), len(times), twice, len(c.expired), c.provider.mostOpen)
	if c.provider.mostOpen > fleetConnections {
		c.t.Errorf("%d connections at a time, of %d that the account may have: %v", c.provider.mostOpen,
			fleetConnections, c.provider.mostBy)
	}
	if len(c.accepted) < 50 || len(c.refused) > 0 {
		c.t.Errorf("%d accepted; refused: %v", len(c.accepted), c.refused)
	}
	left := c.primary.Exec("SELECT sum(messages), sum(held), sum(bytes), (SELECT count(*) FROM message) FROM counter")
	if got := strings.Join(left[0], " "); got != "0 0 0 0" {
		c.t.Errorf("messages, held and octets counted, and messages that are there, in an empty queue: %s", got)
	}
}

// TestNodesShareRates: two nodes together send what the provider takes in a day, and not one message more, also if one
// of them is killed.
func TestNodesShareRates(t *testing.T) {
	t.Parallel()
	const most, sent = 20, 30
	f := newFleet(t, false, fmt.Sprintf("rate = [\"%d messages/day\"]\n[[policy]]\nlimits = []\n", most))
	f.provider.calm = true
	f.add()
	for i, n := range f.nodes {
		// What a killed node had taken counts as sent: one for each connection, and up to a quarter of all ahead.
		n.edit(fmt.Sprint("max_connections = ", fleetConnections), "max_connections = 2")
		n.start()
		client, err := n.login()
		if err != nil {
			t.Fatal(err)
		}
		for range sent / len(f.nodes) {
			if err := submit(client, "anna@example.com", []string{"bob@example.net"}, plainX); err != nil {
				t.Fatal(err)
			}
		}
		client.Close()
		if i == 0 {
			f.kill(n)
			n.start()
		}
	}
	n := f.nodes[0]
	n.until("what may come", func() bool { return f.provider.came("") >= most/2 })
	for range 10 {
		n.postern("", "queue", "retry", "--all")
	}
	for _, n := range f.nodes {
		n.stop()
	}
	if n := f.provider.came(""); n > most {
		t.Errorf("%d messages came, of %d a day", n, most)
	}
}

const plainX = "From: anna@example.com\r\nSubject: x\r\n\r\nx\r\n"

// TestKilledNodeHasItsSlotsAgain: a node that was killed and begins again does not wait for the lease of the only
// connection to its mailbox, and opens no second one.
func TestKilledNodeHasItsSlotsAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(t, false, "")
	f.provider.calm = true
	n := f.nodes[0]
	n.edit(fmt.Sprint("max_connections = ", fleetConnections), "max_connections = 1")
	var lives []string
	for life := 1; life <= 3; life++ {
		n.start()
		leases := testkit.SQL(t, f.primary.URL(), "SELECT h->>'id' FROM upstream_shared, json_array_elements("+
			"convert_from(state, 'UTF8')::json->'holders') AS h WHERE (h->>'held')::int = 1")
		if len(leases) != 1 || slices.Contains(lives, leases[0][0]) {
			t.Fatalf("life %d: %v lease the connection, after %v", life, leases, lives)
		}
		lives = append(lives, leases[0][0])
		client, err := n.login()
		if err != nil {
			t.Fatal(err)
		}
		if err := submit(client, "anna@example.com", []string{"bob@example.net"}, plainX); err != nil {
			t.Fatal(err)
		}
		client.Close()
		// The node has noted the answer: nothing comes twice, and its connection is open and idle.
		n.until("its message leaves", func() bool {
			return strings.Contains(n.postern("", "queue", "list"), "The queue is empty.")
		})
		if came := f.provider.came(""); came != life {
			t.Fatalf("life %d: %d messages came", life, came)
		}
		if life < 3 {
			f.kill(n)
		}
	}
	n.stop()
	if f.provider.mostOpen != 1 {
		t.Errorf("%d connections were open at once", f.provider.mostOpen)
	}
}

// TestNodesShareLimits: two nodes together let pass what one of them would, and not one message more.
func TestNodesShareLimits(t *testing.T) {
	t.Parallel()
	const most = 30
	f := newFleet(t, false, fmt.Sprintf("[[policy]]\nlimits = [\"%d messages/day\"]\n", most))
	f.provider.calm = true
	f.add()
	accepted, refused := atomic.Int64{}, atomic.Int64{}
	var senders sync.WaitGroup
	for _, n := range f.nodes {
		n.start()
	}
	for i := range 8 {
		senders.Go(func() {
			n := f.nodes[i%2]
			client, err := n.login()
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			for refused.Load() < 50 {
				err := submit(client, "anna@example.com", []string{"bob@example.net"}, plainX)
				if err == nil {
					accepted.Add(1)
					continue
				}
				if refused.Add(1); client.Reset() != nil {
					t.Errorf("the limit ends the session: %v", err)
					return
				}
			}
		})
	}
	senders.Wait()
	if n := accepted.Load(); n != most {
		t.Errorf("%d messages were accepted, %d may be", n, most)
	}
	f.nodes[0].until("all that was accepted has come", func() bool { return f.provider.came("") >= most })
	for _, n := range f.nodes {
		n.stop()
	}
	if n := f.provider.came(""); n != most {
		t.Errorf("%d came", n)
	}
}
