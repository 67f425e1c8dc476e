package stats

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Buckets of a Histogram: eight for each doubling, from a millisecond up to 45 days.
const (
	perOctave = 8
	buckets   = 255
)

// MaxError is how far, as a part of it, a quantile may lie from the true one of what was observed, between a
// millisecond and 45 days: half a bucket, 2^(1/16) - 1. What is shorter or longer counts as that.
const MaxError = 0.0443

// Histogram keeps durations in buckets that are always the same, so that adding loses nothing. The zero value is empty.
type Histogram struct {
	bins []bin // in order
}

type bin struct {
	at uint8
	n  int64
}

// Observe adds a duration.
func (h *Histogram) Observe(d time.Duration) { h.add(bucketOf(d), 1) }

// bucketOf returns the bucket of a duration: i covers from 2^(i/8) milliseconds on.
func bucketOf(d time.Duration) uint8 {
	ms := float64(d) / float64(time.Millisecond)
	if ms <= 1 {
		return 0
	}
	return uint8(min(math.Floor(math.Log2(ms)*perOctave), buckets-1))
}

// middle is the duration that stands for a bucket: the geometric mean of its ends.
func middle(bucket uint8) time.Duration {
	ms := math.Exp2((float64(bucket) + 0.5) / perOctave)
	return time.Duration(ms * float64(time.Millisecond))
}

func (h *Histogram) add(at uint8, n int64) {
	i, found := slices.BinarySearchFunc(h.bins, at, func(b bin, at uint8) int { return cmp.Compare(b.at, at) })
	if !found {
		h.bins = slices.Insert(h.bins, i, bin{at: at})
	}
	h.bins[i].n += n
}

// Add adds all that another has.
func (h *Histogram) Add(o *Histogram) {
	for _, b := range o.bins {
		h.add(b.at, b.n)
	}
}

// Count returns how many durations there are.
func (h *Histogram) Count() (n int64) {
	for _, b := range h.bins {
		n += b.n
	}
	return n
}

// Quantile returns the duration that a part of all, from 0 to 1, do not exceed: 0.5 is the median. It lies within
// MaxError of the true one. ok is false if there are none.
func (h *Histogram) Quantile(q float64) (d time.Duration, ok bool) {
	rank := max(int64(math.Ceil(q*float64(h.Count()))), 1)
	for _, b := range h.bins {
		if rank -= b.n; rank <= 0 {
			return middle(b.at), true
		}
	}
	return 0, false
}

// Equal reports whether both have the same.
func (h *Histogram) Equal(o *Histogram) bool { return slices.Equal(h.bins, o.bins) }
