package relay

import (
	"io"
	"net"
	"strings"
	"testing"
)

// Metrics are answered while a shutdown waits for a client: reading them takes nothing that the shutdown holds. If they
// waited for it, the client's time would be over before it goes on here.
func TestMetricsDuringShutdown(t *testing.T) {
	r := newRig(t, newProvider(t), "")
	c := r.client(rigLogin)
	if err := c.Mail("anna@example.com", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("bob@example.net", nil); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	address := r.server.Addresses()["submission"]
	r.stop()
	r.eventually("the end of accepting", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	families, err := r.server.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	open := -1.0
	for _, f := range families {
		if f.GetName() == "postern_connections" {
			open = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	if open != 1 {
		t.Errorf("%v connections while one is open", open)
	}
	if _, err := io.WriteString(w, strings.ReplaceAll(plainMessage, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("the client was cut off while metrics were read: %v", err)
	}
}
