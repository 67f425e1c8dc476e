package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"postern/operate"
	"postern/relay/dnscheck"
)

// dnsFlags say whom a command asks about DNS, and as whom. Every command that looks at DNS takes the same.
type dnsFlags struct {
	resolver  string
	addresses []string
}

func (f *dnsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.resolver, "resolver", "",
		"`address` or address:port of the resolver; default: the system's")
}

// addAddress adds what only matters where this server's own address is looked at.
func (f *dnsFlags) addAddress(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.addresses, "address", nil,
		"public `address` of this server, where an upstream judges mail by it; may be repeated; default: that of "+
			"hostname")
}

// options reads the flags.
func (f *dnsFlags) options(a *app) (o operate.LookOptions, err error) {
	var err1, err2 error
	o.Resolver, err1 = a.resolverOf(f.resolver)
	o.Addresses, err2 = parseAddresses(f.addresses)
	return o, errors.Join(err1, err2)
}

// resolverOf reads --resolver. nil stands for the system's.
func (a *app) resolverOf(text string) (*dnscheck.Resolver, error) {
	if text == "" {
		return nil, nil
	}
	server, err := netip.ParseAddrPort(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("--resolver %q is no address; write for example 9.9.9.9 or 127.0.0.1:5353", text)
		}
		server = netip.AddrPortFrom(addr, 53)
	}
	return &dnscheck.Resolver{Servers: []netip.AddrPort{server}, AuthorityPort: a.authorityPort}, nil
}

func parseAddresses(texts []string) ([]netip.Addr, error) {
	var list []netip.Addr
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("--address %q is no address; write it as in 203.0.113.7", text)
		}
		list = append(list, addr.Unmap())
	}
	return list, nil
}
