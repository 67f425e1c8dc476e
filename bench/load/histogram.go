package load

import (
	"encoding/json"
	"math/bits"
	"time"
)

const (
	subBits = 4 // 16 steps per power of two: values are right within 7 %
	buckets = (64 - subBits) << subBits
)

// Histogram counts durations in microseconds. The zero Histogram is empty. It is not safe for concurrent use.
type Histogram struct {
	counts [buckets]uint32
	total  int
	max    time.Duration
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)/time.Microsecond))]++
	h.total++
	h.max = max(h.max, d)
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Quantile returns the duration below which the share q of all lie, 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int(q * float64(h.total))
	for i, n := range h.counts {
		if rank -= int(n); rank < 0 {
			return min(time.Duration(upper(i))*time.Microsecond, h.max)
		}
	}
	return h.max
}

// MarshalJSON implements json.Marshaler: the usual quantiles in milliseconds.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	ms := func(q float64) float64 { return float64(h.Quantile(q).Microseconds()) / 1000 }
	return json.Marshal(map[string]any{
		"count": h.total, "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99), "max_ms": ms(1),
	})
}

func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// upper is the largest value of a bucket.
func upper(i int) uint64 {
	if i < 1<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}
