package access

import (
	"net/http"
	"net/netip"

	"postern/internal/forwarded"
)

// Locate is Locate for the proxies that the console trusts.
func (a *Access) Locate(next http.Handler) http.Handler {
	return Locate(func() []netip.Prefix { return a.inUse.Load().proxies }, next)
}

// Locate puts the address of the client into RemoteAddr where a trusted proxy asks for it: it belongs before everything
// that counts, judges or records addresses.
func Locate(proxies func() []netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, forwarded.Locate(r, proxies()))
	})
}
