package access

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// How often one place (IPv4 /32, IPv6 /64) may begin or end a login: a person does it a few times.
const (
	loginsAtOnce  = 20
	loginsEvery   = 3 * time.Second
	maxPlaces     = 16384
	ipv6PlaceBits = 64
)

// Limiter bounds what each place may do. An outsider with very many places makes it forget the others; what bounds them
// all is the number of hashes at once.
type Limiter struct {
	mu     sync.Mutex // guards places
	places *lru.Cache[netip.Prefix, *rate.Limiter]
}

// NewLimiter returns a Limiter.
func NewLimiter() *Limiter {
	places, err := lru.New[netip.Prefix, *rate.Limiter](maxPlaces)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Limiter{places: places}
}

func (l *Limiter) allow(now time.Time, client netip.Addr) bool {
	bits := ipv6PlaceBits
	if client.Is4() {
		bits = 32
	}
	place, _ := client.WithZone("").Prefix(bits) // an invalid address gives the invalid prefix, which is a place too
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.places.Get(place)
	if !ok {
		r = rate.NewLimiter(rate.Every(loginsEvery), loginsAtOnce)
		l.places.Add(place, r)
	}
	return r.AllowN(now, 1)
}

// Bound answers requests that count with refused, after Retry-After, where their client makes too many: 20 at once,
// then one in three seconds.
func (l *Limiter) Bound(now func() time.Time, counts func(*http.Request) bool, next, refused http.Handler,
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if counts(r) && !l.allow(now(), AddrOf(r)) {
			w.Header().Set("Retry-After", strconv.Itoa(int(loginsEvery.Seconds())))
			refused.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
