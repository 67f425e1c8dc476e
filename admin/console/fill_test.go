package console

import (
	"fmt"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/queue"
	"postern/relay/status"
	"postern/relay/trace"
	"postern/relay/upstream"
	"postern/relay/upstream/advice"
)

func address(local, domain string) mail.Address { return mail.Address{Local: local, Domain: domain} }

// message makes a message that waits, of an age.
func (r *rig) message(n int, age time.Duration) *queue.Message {
	return &queue.Message{ID: fmt.Sprintf("3m5x0g9k2a%06d", n), Login: "scanner-2", Listener: "submission",
		Session: fmt.Sprint("s", n), Envelope: mail.Envelope{From: address("scanner", "example.com")},
		Recipients: []queue.Recipient{{Recipient: mail.Recipient{To: address("ben", "gmail.com")},
			Status:   queue.Pending,
			Upstream: "google"}},
		Author: address("scanner", "example.com"), MessageID: fmt.Sprintf("<%d@example.com>", n), Size: 48_213,
		Received: r.now.Add(-age), Expires: r.now.Add(48 * time.Hour), NextAttempt: r.now.Add(7 * time.Minute),
		Attempts:  3,
		LastReply: mail.R(421, "4.7.28", "Our system has detected an unusual rate of unsolicited mail")}
}

func (r *rig) add(messages ...*queue.Message) {
	r.t.Helper()
	for _, m := range messages {
		r.must(r.store.Add(r.t.Context(), queue.NewMessage{Message: m,
			Content: mail.BytesContent("Subject: x\r\n\r\nx")}))
	}
	stats, err := r.store.Stats(r.t.Context())
	r.must(err)
	r.report.Queue.Held, r.report.Queue.Waiting = stats.Held, stats.Messages-stats.Held
	r.report.Queue.Oldest, r.report.Queue.Octets = stats.Oldest, stats.Bytes
}

func (r *rig) tell(events ...trace.Event) {
	r.t.Helper()
	r.must(r.store.AppendEventsNow(r.t.Context(), events))
}

const sendAsDenied = "5.2.252 SendAsDenied; office@example.com not allowed to send as anna@example.com " +
	"[BEZP281MB2374.DEUP281.PROD.OUTLOOK.COM 2026-11-28T13:02:11.084Z 08DE2D2C]"

// fill makes a relay with n messages in the queue, a third of them held, and three times as many events.
func (r *rig) fill(n int) {
	r.t.Helper()
	domains := []string{"gmail.com", "kunde-gmbh.example", "web.de", "t-online.de", "outlook.com"}
	ages := []time.Duration{2 * time.Minute, 8 * time.Minute, 35 * time.Minute, 3 * time.Hour, 30 * time.Hour}
	for i := range n {
		m := r.message(i, ages[len(ages)-1-i*len(ages)/n]+time.Duration(n-i)*time.Second)
		m.Login = []string{"scanner-2", "anna", "erp"}[i%3]
		m.Recipients[0].To.Domain = domains[i%len(domains)]
		switch i % 6 {
		case 0:
			m.Held, m.HoldReason = true, "limit \"200 messages/1h\" of policy \"devices\" reached; try again in 12 m"
		case 1, 2:
			m.WaitingFor, m.LastReply = "office365", mail.R(535, "5.7.139", "Authentication unsuccessful")
		case 3:
			m.Held, m.HoldReason = i%12 == 3, "by anna"
		}
		r.add(m)
	}
	for i := range 3 * n {
		at := r.now.Add(-time.Duration(i*i%3500) * time.Second)
		id := fmt.Sprintf("4a1x0g9k2a%06d", i)
		r.tell(trace.Event{Time: at.Add(-2 * time.Second), Kind: trace.Accepted, ID: id, Session: fmt.Sprint("t", i),
			Listener: "submission", Client: "192.0.2.14", Login: "anna", From: "anna@example.com",
			To: "ben@" + domains[i%5], MessageID: fmt.Sprintf("<%d.x@example.com>", i), Size: 12_400,
			Reply: mail.R(250, "2.0.0", "queued as %s", id)})
		e := trace.Event{Time: at, Kind: trace.Delivered, ID: id, Login: "anna", From: "anna@example.com",
			To: "ben@" + domains[i%5], Upstream: "google", Identity: "relay@example.com", Attempt: 1,
			Took: 412 * time.Millisecond, Reply: mail.R(250, "2.0.0", "OK 1764338531 a640c23a62f3a-b7654fd23 - gsmtp")}
		switch i % 7 {
		case 3:
			e.Kind, e.Reply = trace.Deferred, mail.R(450, "4.2.1",
				"The user you are trying to contact is receiving mail too quickly")
		case 5:
			e.Kind, e.Reply = trace.Failed, mail.R(550, "5.1.1",
				"The email account that you tried to reach does not exist")
		case 6:
			e = trace.Event{Time: at, Kind: trace.AuthFail, Session: fmt.Sprint("u", i), Client: "203.0.113.77",
				Login: "admin", Listener: "submission", Reply: mail.R(535, "5.7.8", "login or password not accepted")}
		}
		r.tell(e)
	}
}

// healthy and troubled are states of the relay.
func (r *rig) healthy() {
	r.report = &status.Report{Running: true, Phase: status.Serving, Time: r.now, Hostname: "relay.example.com",
		Config: "/etc/postern/relay.toml", Version: "0.8.0", PID: 411, Since: r.now.Add(-9 * 24 * time.Hour),
		Listeners: []status.Listener{{Name: "submission", Address: "[::]:587", TLS: "starttls", Auth: "required",
			Connections: 4},
			{Name: "devices", Address: "10.0.0.5:25", TLS: "auto", Auth: "optional", Connections: 1}},
		Upstreams: []status.Upstream{{Name: "google", Provider: "google-workspace", Host: "smtp-relay.gmail.com",
			Port: 587,
			TLS:  "starttls", State: status.Works, Connection: 3, Total: 1,
			Identities: []status.Identity{{Identity: "relay@example.com", Status: upstream.Ready, Limit: 10, InUse: 2,
				Idle: 1,
				Rates: []upstream.RateState{{Rate: upstream.Rate{Count: 10_000, Unit: upstream.Recipients,
					Per: 24 * time.Hour},
					Used: 7312, Frees: r.now.Add(40 * time.Minute)}}}}}},
		Certificates: []status.Certificate{{File: "/etc/postern/relay.pem", UsedBy: "listeners",
			Names: []string{"relay.example.com", "mail.example.com"}, Key: "ECDSA P-256",
			Ends:     r.now.Add(61*24*time.Hour + time.Hour),
			DaysLeft: 61}},
		Disk: status.Disk{Dir: "/var/lib/postern", Free: 41_300_000_000, MinFree: 512_000_000, Queued: 12_900_000,
			MaxSize: 5_000_000_000, File: 88_000_000}}
}

func (r *rig) troubled() {
	r.healthy()
	known := advice.For("microsoft365", advice.AnyStage, mail.R(535, "5.7.139",
		"Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant"))
	if known == nil {
		r.t.Fatal("there is no advice for the example")
	}
	known = known.Filled("office@example.com", "")
	denied := advice.For("microsoft365", mail.StageDot,
		mail.R(554, "5.2.252", strings.TrimPrefix(sendAsDenied, "5.2.252 ")))
	if denied == nil {
		r.t.Fatal("there is no advice for Send As")
	}
	denied = denied.Filled("office@example.com", "anna@example.com")
	office := status.Upstream{Name: "office365", Provider: "microsoft365", Host: "smtp.office365.com", Port: 587,
		TLS: "starttls", State: status.Paused, Total: 2, Waiting: 1, Denied: 1,
		Identities: []status.Identity{{Identity: "office@example.com", Status: upstream.Paused,
			Since:   r.now.Add(-3 * time.Hour),
			NextTry: r.now.Add(11 * time.Minute), Failures: 9, Limit: 3,
			Reply: "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. " +
				"Visit https://aka.ms/smtp_auth_disabled for more information.",
			Cause: known.Cause, Fix: known.Fix[0]}, {Identity: "shop@example.com", Status: upstream.Ready, Limit: 3,
			Instead: "office@example.com"}},
		Senders: []status.Sender{{Sender: "anna@example.com", Identity: "office@example.com", Refusals: 4,
			NextTry: r.now.Add(20 * time.Minute), Reply: "554 " + sendAsDenied,
			Cause: denied.Cause, Fix: strings.Join(denied.Fix[:2], " ")}}}
	r.report.Upstreams = append([]status.Upstream{office}, r.report.Upstreams...)
	r.report.Secrets = []status.Secret{{Upstream: "office365", What: "client secret",
		Ends: r.now.Add(5*24*time.Hour + time.Hour), DaysLeft: 5,
		Fix: "make a new client secret for application 4711, set client_secret and expires, and delete the old one"}}
	r.report.Nodes = []status.Node{{Name: "mail-1", Host: "mail-1", State: status.NodeAlive, Leads: true, Alike: true,
		Since: r.now.Add(-time.Hour), Seen: r.now, Carries: 4, Version: "v0.8.0"}, {Name: "mail-2", Host: "rack-2",
		State: status.NodeDrained, Drained: true, Since: r.now.Add(-9 * time.Hour), Seen: r.now}, {Name: "mail-3",
		State: status.NodeGone, Seen: r.now.Add(-26 * time.Hour)}}
}
