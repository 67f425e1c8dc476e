package submission

import (
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postern/mail"
	"postern/relay/spool"
)

// unruly is content whose second reading panics at its end.
type unruly struct {
	mail.Content
	opened int
}

func (c *unruly) Open() (io.ReadCloser, error) {
	r, err := c.Content.Open()
	if c.opened++; c.opened > 1 {
		r = io.NopCloser(io.MultiReader(r, panicking{}))
	}
	return r, err
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("while it is read") }

// What a message took of the spool comes back, also where encoding it brings out a fault of ours.
func TestPanicInEncodingGivesTheSpoolBack(t *testing.T) {
	sp, err := spool.New(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	service := New(t.Context(), Options{Spool: sp, Metrics: prometheus.NewRegistry()})
	for name, again := range map[string]bool{"panic": true, "none": false} {
		raw := mail.BytesContent([]byte("Subject: x\r\n\r\n" + strings.Repeat("x", 200_000) + "\r\n"))
		header, body, err := mail.ReadHeader(raw.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		first := sp.Buffer(0)
		if _, err := first.Write(raw.Bytes()); err != nil {
			t.Fatal(err)
		}
		u := &submission{service: service, raw: raw, header: header, body: body, bodyLine: 3, octets: newHolder(first)}
		if again {
			u.raw = &unruly{Content: raw}
		}
		func() {
			defer func() {
				if p := recover(); (p != nil) != again {
					t.Errorf("%s: %v", name, p)
				}
			}()
			defer func() { u.octets.release() }()
			if err := u.encodeLongLines(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}()
		if s := sp.Stats(); s.Memory != 0 || s.Disk != 0 {
			t.Errorf("%s: %+v is not given back", name, s)
		}
	}
}
