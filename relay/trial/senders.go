package trial

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"postern/mail"
	"postern/relay/config"
	"postern/relay/outbound"
	"postern/relay/upstream/profile"
)

// MaxSenders bounds how many senders one test asks for: providers count what is asked.
const MaxSenders = 50

// Senders are the senders of a test.
type Senders struct {
	Addresses []mail.Address
	Reports   []mail.Address // what reports may have as their reverse-path, in the order of preference
	Untested  []string       // what stands where senders are configured and is no address, or is one too many
	seen      map[string]bool
}

// Add adds what stands where a sender is configured, once.
func (s *Senders) Add(text string) {
	if s.seen == nil {
		s.seen = make(map[string]bool)
	}
	key := strings.ToLower(text)
	if s.seen[key] {
		return
	}
	s.seen[key] = true
	a, err := mail.ParseAddress(text)
	if err != nil || strings.ContainsAny(text, "*{}") || len(s.Addresses) >= MaxSenders {
		s.Untested = append(s.Untested, text)
		return
	}
	s.Addresses = append(s.Addresses, a)
}

// SendersOf gathers what relay.toml and the accounts name for an upstream; first comes before them. Where there is no
// address, it is the one that the upstream is logged in as.
func SendersOf(ctx context.Context, c *config.Config, block config.Upstream, first []mail.Address) (*Senders, error) {
	s := new(Senders)
	for _, a := range first {
		s.Add(a.String())
	}
	for i := range c.Policies {
		for _, text := range c.Policies[i].Senders {
			s.Add(text)
		}
	}
	own, err := sendersOfUsers(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, text := range own {
		s.Add(text)
	}
	if len(s.Addresses) == 0 && strings.Contains(block.Username, "@") && !block.SendsAsSender() {
		s.Add(block.Username)
	}
	if block.ByGraph() && !block.SendsAsSender() { // has no MAIL: a sender is checked with the message
		for _, address := range s.Addresses {
			if strings.EqualFold(address.String(), block.Username) {
				continue // the mailbox itself
			}
			s.Untested = append(s.Untested, address.String())
		}
		s.Addresses = nil
	}
	if !block.ByGraph() { // whose mailbox is the sender of all, reports too
		s.Reports, err = reversePaths(c, block, s.Addresses)
	}
	return s, err
}

// reversePaths are those that reports may have at an upstream; senders are whom reports go to.
func reversePaths(c *config.Config, block config.Upstream, senders []mail.Address) ([]mail.Address, error) {
	if c.Delivery.BounceFrom != "" {
		from, err := mail.ParseAddress(c.Delivery.BounceFrom)
		return []mail.Address{from}, err
	}
	var paths []mail.Address
	if block.NullSender != profile.NullRefused {
		paths = append(paths, mail.Address{})
	}
	if block.NullSender != profile.NullAccepted && len(senders) > 0 {
		paths = append(paths, outbound.ReportSender(block, senders[0]))
	}
	return paths, nil
}

// asked are all reverse-paths of a test, each once: those of mail, then those of reports.
func (s *Senders) asked() []mail.Address {
	all := slices.Clone(s.Addresses)
	for _, a := range s.Reports {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// sendersOfUsers are those of `user add --sender`. A store that is not there yet has none, and is not made.
func sendersOfUsers(ctx context.Context, c *config.Config) ([]string, error) {
	s, err := openStore(ctx, c)
	if s == nil || err != nil {
		return nil, err
	}
	defer s.Close()
	users, err := s.Users(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the senders of accounts: %w", err)
	}
	var all []string
	for _, u := range users {
		all = append(all, u.Senders...)
	}
	return all, nil
}
