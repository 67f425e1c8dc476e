package relay

import (
	"strings"
	"testing"
	"time"

	"postern/relay/fakeprovider"
	"postern/relay/queue"
	"postern/relay/trace"
)

// A provider that takes a message and never says so gets three copies, with a restart between them, and the sender a
// report that does not say "failed".
func TestUnclearDeliveryByGraph(t *testing.T) {
	r := newGraphRig(t, fakeprovider.GraphOptions{}, "", "", "")
	r.graph.Fail(fakeprovider.GraphFault{Status: 504, Code: "UnknownError", AfterWork: true, Times: queue.MaxDoubts})
	from := people[0]
	reply, err := sendOn(r.client(from), from, []string{"zoe@example.net"},
		"From: <"+from+">\nTo: <zoe@example.net>\nMessage-ID: <1@contoso.example>\nSubject: hi\n\nhello\n")
	if err != nil || !strings.Contains(reply, "queued") {
		t.Fatalf("%q, %v", reply, err)
	}
	for n := 1; n < queue.MaxDoubts; n++ {
		r.eventually("a doubt", func() bool {
			left := r.queued()
			return len(left) == 1 && left[0].Recipients[0].Doubts == n && left[0].LeaseOwner == ""
		})
		if wait := time.Until(r.queued()[0].NextAttempt); wait < 5*time.Minute {
			t.Errorf("after %d attempts the next is in %v", n, wait)
		}
		if got := len(r.graph.Arrivals()); got != n {
			t.Errorf("%d arrivals after %d attempts", got, n)
		}
		r.close()
		r.start()
		r.retryAll() // a person does not wait
	}
	if e := r.events(trace.Unclear)[0]; e.To != "zoe@example.net" || e.Attempt != queue.MaxDoubts {
		t.Errorf("%+v", e)
	}
	r.eventually("a report", func() bool { return len(r.graph.Arrivals()) == queue.MaxDoubts+1 })
	report := string(r.graph.Arrivals()[queue.MaxDoubts].MIME)
	if !strings.Contains(report, "Action: delayed") || strings.Contains(report, "Action: failed") ||
		!strings.Contains(report, "It was sent 3 times") {
		t.Errorf("the report:\n%s", report)
	}
}
