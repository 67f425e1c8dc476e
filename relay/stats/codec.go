package stats

import (
	"encoding/binary"
	"errors"
)

// codecVersion is that of stored counts. Fields are only ever added at the end of a new version.
const codecVersion = 1

var errCodec = errors.New("counts cannot be read: their row is damaged or of a newer version")

// Append encodes the counts.
func (c *Counts) Append(b []byte) []byte {
	b = append(b, codecVersion)
	for _, n := range c.fields() {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	for _, n := range c.Times.bins {
		b = binary.AppendUvarint(append(b, n.at), uint64(n.n))
	}
	return b
}

// Decode reads what Append wrote.
func Decode(b []byte) (c Counts, err error) {
	if len(b) == 0 || b[0] != codecVersion {
		return Counts{}, errCodec
	}
	b = b[1:]
	for _, n := range c.fields() {
		if *n, b, err = number(b); err != nil {
			return Counts{}, err
		}
	}
	for last := -1; len(b) > 0; {
		n := bin{at: b[0]}
		if int(n.at) <= last || n.at >= buckets {
			return Counts{}, errCodec
		}
		if n.n, b, err = number(b[1:]); err != nil {
			return Counts{}, err
		}
		last = int(n.at)
		c.Times.bins = append(c.Times.bins, n)
	}
	return c, nil
}

func number(b []byte) (n int64, rest []byte, err error) {
	v, size := binary.Uvarint(b)
	if size <= 0 || int64(v) < 0 {
		return 0, nil, errCodec
	}
	return int64(v), b[size:], nil
}
