package ledger

import (
	"encoding/json"
	"fmt"
	"math/bits"
)

// Set is a set of sequence numbers. The zero Set is empty. It is not safe for concurrent use.
type Set struct {
	words []uint64
}

// Add adds a number between 0 and MaxSeq; it ignores others and returns false.
func (s *Set) Add(seq int) bool {
	if seq < 0 || seq > MaxSeq {
		return false
	}
	for len(s.words) <= seq/64 {
		s.words = append(s.words, 0)
	}
	s.words[seq/64] |= 1 << (seq % 64)
	return true
}

// Has reports whether a number is in the set.
func (s *Set) Has(seq int) bool {
	return seq >= 0 && seq/64 < len(s.words) && s.words[seq/64]&(1<<(seq%64)) != 0
}

// Len is the count of numbers.
func (s *Set) Len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Merge adds all numbers of another set.
func (s *Set) Merge(o *Set) {
	for len(s.words) < len(o.words) {
		s.words = append(s.words, 0)
	}
	for i, w := range o.words {
		s.words[i] |= w
	}
}

// limit is one more than the largest number that the set can hold without growing.
func (s *Set) limit() int { return len(s.words) * 64 }

// Ranges returns the numbers as inclusive ranges in order.
func (s *Set) Ranges() [][2]int {
	var out [][2]int
	for i := range s.limit() {
		if !s.Has(i) {
			continue
		}
		if n := len(out); n > 0 && out[n-1][1] == i-1 {
			out[n-1][1] = i
			continue
		}
		out = append(out, [2]int{i, i})
	}
	return out
}

// MarshalJSON implements json.Marshaler: a list of inclusive ranges.
func (s Set) MarshalJSON() ([]byte, error) {
	ranges := s.Ranges()
	if ranges == nil {
		ranges = [][2]int{}
	}
	return json.Marshal(ranges)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Set) UnmarshalJSON(data []byte) error {
	var ranges [][2]int
	if err := json.Unmarshal(data, &ranges); err != nil {
		return err
	}
	*s = Set{}
	for _, r := range ranges {
		if r[0] < 0 || r[1] > MaxSeq || r[0] > r[1] {
			return fmt.Errorf("bad range %d-%d", r[0], r[1])
		}
		for i := r[0]; i <= r[1]; i++ {
			s.Add(i)
		}
	}
	return nil
}
