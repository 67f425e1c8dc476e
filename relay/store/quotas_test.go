package store

import (
	"reflect"
	"testing"
	"time"

	"postern/mail"
	"postern/relay/upstream"
)

func TestQuotasAreKeptAndReplaced(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), at(t, Options{Dir: dir}))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	want := []upstream.Quota{
		{Identity: "office@example.com", Until: now.Add(time.Hour), Reply: mail.R(554, "5.2.0", "quota exceeded")},
		{Identity: "anna@example.com", Counts: []upstream.QuotaCount{{Unit: upstream.Messages, Per: 24 * time.Hour,
			Leaves: now, Count: 7}}},
	}
	if err := s.SaveQuotas(t.Context(), "office", want[:1]); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveQuotas(t.Context(), "office", want); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = Open(t.Context(), at(t, Options{Dir: dir})); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.LoadQuotas(t.Context(), "office"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.LoadQuotas(t.Context(), "backup"); err != nil || len(got) != 0 {
		t.Errorf("another upstream has %+v, %v", got, err)
	}
	if err := s.SaveQuotas(t.Context(), "office", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadQuotas(t.Context(), "office"); err != nil || len(got) != 0 {
		t.Errorf("nothing to remember, and there is %+v, %v", got, err)
	}
}
