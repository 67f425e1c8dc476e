package upstream

import (
	"context"
	"fmt"
	"time"

	"postern/mail"
)

// Status is what an identity is doing.
type Status string

// The states of an identity. Backing off and paused end by one attempt, the probe: while it runs nobody else is
// admitted.
const (
	Ready      Status = "ready"
	BackingOff Status = "backing-off" // the provider cannot be reached or asked us to slow down
	Paused     Status = "paused"      // the provider refuses us: password, certificate, permission, account
)

// State is one identity at a glance.
type State struct {
	Upstream string     `json:"upstream"`
	Identity string     `json:"identity"`
	Status   Status     `json:"status"`
	Probing  bool       `json:"probing,omitempty"`
	Until    time.Time  `json:"until,omitzero"` // end of the waiting
	Since    time.Time  `json:"since,omitzero"` // when the trouble began
	Failures int        `json:"failures,omitempty"`
	Reply    mail.Reply `json:"reply,omitzero"` // why it waits

	Limit   int `json:"limit"` // connections at most, now
	Most    int `json:"most"`  // as configured
	InUse   int `json:"in_use"`
	Idle    int `json:"idle"`    // connections; of a protocol that keeps none, 0
	Closing int `json:"closing"` // connections

	Rates []RateState `json:"rates,omitempty"`
}

// RateState is how much of a rate is used.
type RateState struct {
	Rate
	Used  int64     `json:"used"`           // within the last Per, what is under way included
	Frees time.Time `json:"frees,omitzero"` // when the first of it leaves the window
}

// Denied is a reverse-path that the provider does not let us use, and whose mail is not offered for a while.
type Denied struct {
	Sender   string
	Identity string
	Refusals int // in a row
	Until    time.Time
	Reply    mail.Reply
}

// Unit is what a Rate counts.
type Unit string

// The units of rates. Each transaction is a message: an envelope that is split counts as many times.
const (
	Messages   Unit = "messages"
	Recipients Unit = "recipients"
)

// Rate allows Count of Unit within any span of length Per, for one identity.
type Rate struct {
	Count int64         `json:"count"`
	Unit  Unit          `json:"unit"`
	Per   time.Duration `json:"per_ns"`
}

// Bounds of rates and quotas.
const (
	MaxCount = 1 << 31
	MaxQuota = 31 * 24 * time.Hour // how long one may be used up
	minPer   = time.Second
	maxPer   = 366 * 24 * time.Hour
)

// Check reports a rate that cannot be kept.
func (r Rate) Check() error {
	switch {
	case r.Count < 1 || r.Count > MaxCount:
		return fmt.Errorf("a rate of %d is out of range", r.Count)
	case r.Per < minPer || r.Per > maxPer:
		return fmt.Errorf("a rate within %v is out of range", r.Per)
	case r.Unit != Messages && r.Unit != Recipients:
		return fmt.Errorf("a rate counts messages or recipients, not %q", r.Unit)
	}
	return nil
}

// QuotaStore persists how much was sent within the windows of the rates, and which quotas are used up until when.
type QuotaStore interface {
	// LoadQuotas returns what was saved last for an upstream; nothing is no error.
	LoadQuotas(ctx context.Context, upstream string) ([]Quota, error)
	// SaveQuotas replaces it. No quotas: there is nothing to remember.
	SaveQuotas(ctx context.Context, upstream string, quotas []Quota) error
}

// Quota is what is remembered of one identity.
type Quota struct {
	Identity string       `json:"identity"`
	Until    time.Time    `json:"until,omitzero"` // a quota is used up until then
	Reply    mail.Reply   `json:"reply,omitzero"` // as the upstream said
	Counts   []QuotaCount `json:"counts,omitempty"`
}

// QuotaCount is what leaves a window at one time.
type QuotaCount struct {
	Unit   Unit          `json:"unit"`
	Per    time.Duration `json:"per_ns"`
	Leaves time.Time     `json:"leaves"`
	Count  int64         `json:"count"`
}
