package thunderbird

import (
	"net"
	"strconv"
)

// Account is an account that Thunderbird set up by itself.
type Account struct {
	Error    string // why there is none
	Source   string // "xml-from-isp-https" or "xml-from-isp-http"
	Name     string // of the provider
	Incoming Endpoint
	Outgoing Endpoint
	Key      string // of the outgoing server
}

// Endpoint is a server as Thunderbird understood it.
type Endpoint struct {
	Type     string
	Host     string
	Port     int
	Security Security
	Login    string
}

// Through sends everything but what goes to localhost through a SOCKS proxy, which also looks up the names.
func (p *Program) Through(socks string) {
	p.t.Helper()
	host, text, err := net.SplitHostPort(socks)
	port, numErr := strconv.Atoi(text)
	if err != nil || numErr != nil {
		p.t.Fatalf("%q is no address", socks)
	}
	p.run(through, nil, host, port)
}

// SetUp finds the settings of an address as the window "Add mail account" does, with its own modules, and adds the
// account.
func (p *Program) SetUp(name, address, password string) Account {
	p.t.Helper()
	p.run(setUp, nil, name, address, password)
	var found *Account
	p.until("an end of looking for settings", func() bool {
		p.run(setUpDone, &found)
		return found != nil
	})
	return *found
}
