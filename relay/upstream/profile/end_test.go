package profile

import (
	"testing"
	"time"
)

// TestEnds: the last day of passwords at Microsoft 365 is known, by its host alone too, and concerns nobody else.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		provider, host string
		password       bool
		n              int
	}{
		{"microsoft365", "smtp.office365.com", true, 1}, {"microsoft365", "smtp.office365.com", false, 0},
		{Generic, "smtp.office365.com", true, 1}, {Generic, "mail.example.com", true, 0}, {"google", "x", true, 0},
	} {
		ends := Ends(c.provider, c.host, c.password)
		if len(ends) != c.n {
			t.Fatalf("%+v: %+v", c, ends)
		}
		if c.n > 0 && (!ends[0].At().Equal(time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)) ||
			ends[0].Before() != 60*24*time.Hour) {
			t.Errorf("%+v: %v %v", c, ends[0].At(), ends[0].Before())
		}
	}
	for _, bad := range []End{{What: "x", Date: "2026-12-31", Ahead: 1, Fix: "x"}, {What: Password, Date: "soon",
		Ahead: 1, Fix: "x"}, {What: Password, Date: "2026-12-31", Fix: "x"}} {
		if bad.check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
