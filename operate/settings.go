package operate

import (
	"context"
	"slices"
	"strings"

	"postern/relay/config"
)

// SeeSettings is to see what is in force.
var SeeSettings = Operation{Name: "settings", Role: Viewer, Scope: ScopeRead}

// Settings is what may be asked about the configuration in force. It is changed in relay.toml only.
type Settings struct{ *desk }

// InForce is the configuration in force.
type InForce struct {
	Path     string           `json:"path"` // of relay.toml
	Settings []config.Setting `json:"settings"`
	Warnings []string         `json:"warnings"` // what is allowed and unwise, "FILE:LINE: KEY: what"
}

// List returns the settings whose key or value contains all words, without regard to case: none chooses all. Secrets
// are not among what is shown.
func (s Settings) List(_ context.Context, by Actor, words string) (InForce, error) {
	if err := by.May(SeeSettings); err != nil {
		return InForce{}, err
	}
	c := s.Config()
	f := InForce{Path: c.Path(), Settings: []config.Setting{}, Warnings: []string{}}
	wanted := strings.Fields(strings.ToLower(words))
	for _, each := range config.Effective(c) {
		if containsAll(strings.ToLower(each.Key+" "+each.Value), wanted) {
			f.Settings = append(f.Settings, each)
		}
	}
	for _, w := range c.Warnings() {
		f.Warnings = append(f.Warnings, w.String())
	}
	return f, nil
}

// Written leaves out what is not in the file.
func (f InForce) Written() InForce {
	f.Settings = slices.DeleteFunc(slices.Clone(f.Settings), func(s config.Setting) bool { return !s.Written })
	return f
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
