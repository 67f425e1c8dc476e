package store

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
)

// The index of the trace consists of segments. A segment has up to maxDocs events, numbered by time from 0 on, and for
// each of their words the numbers of the events that have it. It never changes: segments are merged into new ones.
// A word is its hash, so that who finds an event has to look whether it really has the words.
const (
	hashBits    = 40
	ordinalBits = 64 - hashBits
	maxDocs     = 1 << 16 // events of a segment
	docsInBlock = 256     // events whose numbers stand in one row
	maxParts    = 256     // rows with the words of a segment
	partOctets  = 8 << 10 // of a row, about
	rowBits     = 8       // of a row's key are its number in the segment
)

var errSearchIndex = errors.New("the index of the trace is damaged: postern trace reindex makes a new one")

// termHash takes eight octets at a time, as wyhash does. It stands in files: it never changes.
func termHash(term string) uint64 {
	h := uint64(len(term)) ^ 0xa0761d6478bd642f
	for ; len(term) > 8; term = term[8:] {
		h = mix(h^eightOctets(term), 0xe7037ed1a0b428db)
	}
	last := uint64(0)
	for i := range len(term) {
		last = last<<8 | uint64(term[i])
	}
	return mix(h^last, 0x8ebc6af09c88c6e3) >> ordinalBits
}

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

func eightOctets(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 |
		uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// posting is a word and an event that has it, as one number: the hash above, the event's ordinal below.
type posting = uint64

func newPosting(hash uint64, ordinal int) posting { return hash<<ordinalBits | uint64(ordinal) }

// segment is a row of search_segment.
type segment struct {
	id          int64
	first, last int64 // numbers of its events
	docs        int
	dead        int // events that are gone, about
	rewrite     int // counts what asks for it to be written anew soon
	parts       int // a power of two
	octets      int64
}

// part says which row has the word.
func (s *segment) part(hash uint64) int {
	return int(hash >> (hashBits - bits.TrailingZeros(uint(s.parts))))
}

func (s *segment) key(row int) int64 { return s.id<<rowBits + int64(row) }

// partsFor is how many rows so many octets of words want.
func partsFor(octets int64) int {
	n := 1
	for int64(n)*partOctets < octets && n < maxParts {
		n *= 2
	}
	return n
}

// encodeDocs writes the numbers of up to docsInBlock events, ascending.
func encodeDocs(docs []int64) (b []byte) {
	b = binary.BigEndian.AppendUint64(b, uint64(docs[0]))
	for i := 1; i < len(docs); i++ {
		b = binary.AppendUvarint(b, uint64(docs[i]-docs[i-1]))
	}
	return b
}

func decodeDocs(b []byte) (docs []int64, err error) {
	if len(b) < 8 {
		return nil, errSearchIndex
	}
	n := int64(binary.BigEndian.Uint64(b))
	docs = append(make([]int64, 0, docsInBlock), n)
	for b = b[8:]; len(b) > 0; {
		gap, size := binary.Uvarint(b)
		if size <= 0 || gap == 0 || len(docs) == docsInBlock {
			return nil, errSearchIndex
		}
		n, b = n+int64(gap), b[size:]
		docs = append(docs, n)
	}
	return docs, nil
}

// encodePostings writes words with their events: of each word the distance of its hash from the one before, then how
// many events there are, then the only one, or the octets of their gaps, or a bit for each event of the segment.
// Postings are sorted; repetitions count once.
func encodePostings(b []byte, all []posting, docs int) []byte {
	var list []byte
	hash := uint64(0)
	for len(all) > 0 {
		h := all[0] >> ordinalBits
		n := 1
		for n < len(all) && all[n]>>ordinalBits == h {
			n++
		}
		of := slices.Compact(all[:n])
		all = all[n:]
		b = binary.AppendUvarint(b, h-hash)
		hash = h
		switch {
		case len(of) == 1:
			b = binary.AppendUvarint(b, 1<<1)
			b = binary.AppendUvarint(b, ordinal(of[0]))
		case len(of) > docs/8: // a bit is less than an octet for each
			list = appendBitmap(list[:0], of, docs)
			b = binary.AppendUvarint(b, uint64(len(of))<<1|1)
			b = append(b, list...)
		default:
			list = list[:0]
			before := uint64(0)
			for _, p := range of {
				list = binary.AppendUvarint(list, ordinal(p)-before)
				before = ordinal(p)
			}
			b = binary.AppendUvarint(b, uint64(len(of))<<1)
			b = binary.AppendUvarint(b, uint64(len(list)))
			b = append(b, list...)
		}
	}
	return b
}

func ordinal(p posting) uint64 { return p & (1<<ordinalBits - 1) }

func appendBitmap(b []byte, of []posting, docs int) []byte {
	b = append(b, make([]byte, (docs+7)/8)...)
	for _, p := range of {
		b[ordinal(p)/8] |= 1 << (ordinal(p) % 8)
	}
	return b
}

// postingList is one word of a row, not yet decoded.
type postingList struct {
	hash   uint64
	count  int
	bitmap bool
	data   []byte
}

// postingReader goes through a row with words.
type postingReader struct {
	b    []byte
	docs int // of the segment
	hash uint64
}

// next returns the next word; ok is false at the end.
func (r *postingReader) next() (l postingList, ok bool, err error) {
	if len(r.b) == 0 {
		return l, false, nil
	}
	gap, err := r.uvarint()
	if err != nil {
		return l, false, err
	}
	head, err := r.uvarint()
	if err != nil {
		return l, false, err
	}
	r.hash += gap
	l = postingList{hash: r.hash, count: int(head >> 1), bitmap: head&1 != 0}
	if head>>1 == 0 || head>>1 > uint64(r.docs) || r.hash >= 1<<hashBits {
		return l, false, errSearchIndex
	}
	size := uint64(0)
	switch {
	case l.bitmap:
		size = uint64(r.docs+7) / 8
	case l.count == 1:
		_, n := binary.Uvarint(r.b)
		size = uint64(max(n, 0))
	default:
		if size, err = r.uvarint(); err != nil {
			return l, false, err
		}
	}
	if size == 0 || size > uint64(len(r.b)) {
		return l, false, errSearchIndex
	}
	l.data, r.b = r.b[:size], r.b[size:]
	return l, true, nil
}

func (r *postingReader) uvarint() (uint64, error) {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		return 0, errSearchIndex
	}
	r.b = r.b[n:]
	return v, nil
}

// ordinals decodes the events of a word, ascending.
func (l *postingList) ordinals(docs int) (all []uint32, err error) {
	all = make([]uint32, 0, l.count)
	if l.bitmap {
		for i, octet := range l.data {
			for ; octet != 0; octet &= octet - 1 {
				all = append(all, uint32(8*i+bits.TrailingZeros8(octet)))
			}
		}
	} else {
		at := uint64(0)
		for b := l.data; len(b) > 0; {
			gap, n := binary.Uvarint(b)
			if n <= 0 || gap > maxDocs || len(all) > 0 && gap == 0 {
				return nil, errSearchIndex
			}
			at, b = at+gap, b[n:]
			all = append(all, uint32(min(at, maxDocs)))
		}
	}
	if len(all) != l.count || int(all[len(all)-1]) >= docs {
		return nil, errSearchIndex
	}
	return all, nil
}

// findWord looks for a word in a row and returns its events, nil if it is not there.
func findWord(row []byte, docs int, hash uint64) ([]uint32, error) {
	r := postingReader{b: row, docs: docs}
	for {
		l, ok, err := r.next()
		if err != nil || !ok || l.hash > hash {
			return nil, err
		}
		if l.hash == hash {
			return l.ordinals(docs)
		}
	}
}

// intersect keeps what is in both; a is the shorter one and is overwritten.
func intersect(a, b []uint32) []uint32 {
	kept := a[:0]
	far := len(b) > 16*len(a)
	for _, v := range a {
		if far {
			i, _ := slices.BinarySearch(b, v)
			b = b[i:]
		} else {
			for len(b) > 0 && b[0] < v {
				b = b[1:]
			}
		}
		if len(b) == 0 {
			break
		}
		if b[0] == v {
			kept = append(kept, v)
		}
	}
	return kept
}
