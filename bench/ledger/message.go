// Package ledger is shared by the load generator and the sink to prove that nothing was lost, duplicated or changed:
// numbered messages, sets of numbers, and a count of arrivals per run, recipient and number.
//
// Failure semantics: everything is bounded. What does not fit is counted in Overflow, and a proof over an overflowed
// ledger is never OK.
package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// The header fields that number a message. Relays keep fields that they do not know.
const (
	fieldRun  = "X-Bench-Run"
	fieldSeq  = "X-Bench-Seq"
	fieldBody = "X-Bench-Body" // octets and CRC-32C of the body
)

const (
	seqDigits = 10
	// MaxSeq is the largest sequence number that a ledger takes.
	MaxSeq = 1<<24 - 1
	// lineLength is that of bodies, without CRLF: what MIME encoders write (RFC 2045 §6.8).
	lineLength = 76
)

// Castagnoli has its own instruction on amd64 and arm64.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum extends a CRC-32C by more octets.
func Checksum(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// Stamp is what a numbered message says about itself.
type Stamp struct {
	Run  string
	Seq  int
	Size int64 // octets of the body
	CRC  uint32
}

// Message is a numbered message with CRLF line ends, to be stamped with one number after the other. No line begins with
// a dot, so dot-stuffing does not change it.
type Message struct {
	buf   []byte
	seqAt []int
}

// NewMessage makes a message of size octets, or as small as its header and one line of body allow.
func NewMessage(run, from, to string, size int, now time.Time) *Message {
	zeros := strings.Repeat("0", seqDigits)
	head := fmt.Sprintf("From: Bench <%s>\r\nTo: <%s>\r\nSubject: Numbered message of a measurement\r\nDate: %s\r\n"+
		"Message-ID: <%s.%s@bench.example.com>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=us-ascii\r\n%s: %s\r\n%s: %s\r\n",
		from, to, now.Format(time.RFC1123Z), run, zeros, fieldRun, run, fieldSeq, zeros)
	const stampLength = len(fieldBody) + 2 + 10 + 1 + 8 + 2
	body := makeBody(size - len(head) - stampLength - 2)
	head += fmt.Sprintf("%s: %010d %08x\r\n\r\n", fieldBody, len(body), Checksum(0, body))
	m := &Message{buf: append([]byte(head), body...)}
	id := strings.Index(head, run+"."+zeros) + len(run) + 1
	m.seqAt = []int{id, strings.Index(head, fieldSeq) + len(fieldSeq) + 2}
	return m
}

// makeBody fills lines with printable octets that do not repeat soon.
func makeBody(size int) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	size = max(size, 3)
	body := make([]byte, 0, size)
	for state := uint32(1); size-len(body) > 2; {
		n := min(lineLength, size-len(body)-2)
		if left := size - len(body) - 2 - n; left > 0 && left < 3 { // no room for another line
			n -= 3
		}
		for range n {
			state = state*1664525 + 1013904223
			body = append(body, alphabet[state>>26])
		}
		body = append(body, '\r', '\n')
	}
	return body
}

// Clone returns a copy of the message.
func (m *Message) Clone() *Message {
	return &Message{buf: bytes.Clone(m.buf), seqAt: m.seqAt}
}

// Stamped returns the message with a number. The octets are valid until the next call.
func (m *Message) Stamped(seq int) []byte {
	for _, at := range m.seqAt {
		for i, n := at+seqDigits-1, seq; i >= at; i, n = i-1, n/10 {
			m.buf[i] = byte('0' + n%10)
		}
	}
	return m.buf
}

// ErrNotNumbered says that the header has no complete stamp.
var ErrNotNumbered = errors.New("message is not numbered")

// ParseStamp parses the stamp in a message header.
func ParseStamp(header []byte) (Stamp, error) {
	run, seq, body := field(header, fieldRun), field(header, fieldSeq), field(header, fieldBody)
	size, crc, _ := strings.Cut(string(body), " ")
	n, err1 := strconv.Atoi(string(seq))
	octets, err2 := strconv.ParseInt(size, 10, 64)
	sum, err3 := strconv.ParseUint(crc, 16, 32)
	if err := errors.Join(err1, err2, err3); err != nil || len(run) == 0 || len(run) > 64 || n < 0 || n > MaxSeq {
		return Stamp{}, ErrNotNumbered
	}
	return Stamp{Run: string(run), Seq: n, Size: octets, CRC: uint32(sum)}, nil
}

// field returns the value of a field on one line.
func field(header []byte, name string) []byte {
	at := bytes.Index(header, []byte("\n"+name+": "))
	if at < 0 {
		return nil
	}
	value := header[at+1+len(name)+2:]
	end := bytes.IndexByte(value, '\n')
	if end < 0 {
		return nil
	}
	return bytes.TrimRight(value[:end], "\r")
}
