package operate

import (
	"bytes"
	"context"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"postern/auth"
	"postern/relay/check"
	"postern/relay/config"
)

// Reach is how devices in the network find the relay.
type Reach struct {
	Name      string       // hostname
	Unknown   bool         // no name server that this machine asks knows it
	Addresses []netip.Addr // of this machine, to be typed in instead; at most maxOwn
	// Certificate is set where there is one that a device may have to be told to trust.
	Certificate bool
}

// Unreached reports that no listener takes connections from a device, though other machines reach some.
func (a Clients) Unreached(by Actor, u auth.User) (bool, error) {
	c := a.Config()
	return !check.AllLocal(c) && check.Unreached(c, u), by.May(SeeAccounts)
}

// Bounds of a look at how we are reached.
const (
	lookupTime     = 2 * time.Second
	maxOwn         = 4
	maxCertificate = 1 << 20 // octets of its file
)

// Reach says how devices find the relay. A name that cannot be looked up in time counts as known.
func (a Clients) Reach(ctx context.Context, by Actor, look LookOptions) (r Reach, err error) {
	if err := by.May(SeeAccounts); err != nil {
		return r, err
	}
	r.Name = a.Config().Hostname
	if look.Lookup == nil {
		look.Lookup = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if _, isAddress := netip.ParseAddr(r.Name); isAddress != nil && r.Name != "" {
		found, err := look.Lookup(ctx, name(r.Name))
		r.Unknown = len(found) == 0 && ctx.Err() == nil && (err == nil || isNotFound(err))
	}
	r.Addresses, r.Certificate = ownAddresses(), a.certificateFile(ctx) != ""
	return r, nil
}

// name is a name that no search list is tried with.
func name(hostname string) string { return hostname + "." }

func isNotFound(err error) bool {
	fault, is := err.(*net.DNSError)
	return is && fault.IsNotFound
}

// ownAddresses are those of this machine that others in its network can use, IPv4 first.
func ownAddresses() (own []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().IsGlobalUnicast() {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	slices.SortStableFunc(own, netip.Addr.Compare)
	return own[:min(len(own), maxOwn)]
}

// certificateFile is where the listeners' certificate is; "" if none of them uses TLS.
func (a Clients) certificateFile(ctx context.Context) string {
	c := a.Config()
	usesTLS := func(l config.Listener) bool { return l.TLS != config.NoTLS }
	if a.Options.Status == nil || !slices.ContainsFunc(c.Listeners, usesTLS) {
		return ""
	}
	r, err := a.Options.Status(ctx)
	if err != nil || len(r.Certificates) == 0 || r.Certificates[0].UsedBy != "listeners" {
		return ""
	}
	return r.Certificates[0].File
}

// Certificate is the listeners' certificate with its chain, in PEM: what a device is told to trust. Nothing else that
// stands in its file is in it.
func (a Clients) Certificate(ctx context.Context, by Actor) ([]byte, error) {
	if err := by.May(SeeAccounts); err != nil {
		return nil, err
	}
	file := a.certificateFile(ctx)
	if file == "" {
		return nil, fault(NotFound, "there is no certificate: no listener uses TLS")
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxCertificate {
		return nil, fault(Conflict, "the file of the certificate has more than %d octets", maxCertificate)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			_ = pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a Buffer takes everything
		}
	}
	if out.Len() == 0 {
		return nil, fault(NotFound, "its file has no certificate in it")
	}
	return out.Bytes(), nil
}
