package access

import (
	"net/http"

	"postern/internal/forwarded"
)

// Locate puts the address of the client into RemoteAddr where a trusted proxy asks for it: it belongs before everything
// that counts, judges or records addresses.
func (a *Access) Locate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, forwarded.Locate(r, a.inUse.Load().proxies))
	})
}
