// Package replies reads and classifies the replies of an SMTP server: by the rules of the configuration first, then by
// the provider's, then by words that mean the same everywhere, then by codes (decision 0010).
//
// A reply is hostile text: it is bounded in lines and octets and made printable; addresses, subjects and file names
// that it quotes decide nothing. A reply before MAIL is about us, never about a message.
package replies

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"strings"

	"postern/mail"
)

// Bounds of a reply. RFC 5321 §4.5.3.1.5 has 512 octets for a line; providers exceed it, so a line may fill the read
// buffer.
const (
	maxLines  = 64
	maxOctets = 16 << 10
	// MaxText is how much of a text is read and kept, in octets.
	MaxText = 2 << 10
	// BufferSize is the longest line, in octets.
	BufferSize = 4 << 10
)

// The ways in which a reply is no reply.
var (
	ErrSyntax  = errors.New("unintelligible reply")
	ErrTooLong = errors.New("reply without end")
)

// Read reads one reply. The text of a single-line 2yz reply is left out unless keep is set: of MAIL and RCPT nobody
// reads it. Forms that are odd and mean one thing only are taken: line ends without CR, empty lines between, before and
// in replies, blanks and NULs before the code, a code with its text right behind it.
func Read(br *bufio.Reader, keep bool) (mail.Reply, error) {
	line, err := nextLine(br)
	if err != nil {
		return mail.Reply{}, err
	}
	line = bytes.TrimLeft(line, " \t\x00")
	code, more, ok := Code(line)
	if !ok {
		return mail.Reply{}, ErrSyntax
	}
	if !more {
		if code < 300 && !keep {
			return mail.Reply{Code: code}, nil
		}
		enhanced, text := splitEnhanced(code, tail(line))
		return mail.Reply{Code: code, Enhanced: enhanced, Text: mail.Cut(mail.Printable(text), MaxText)}, nil
	}
	return readMore(br, line)
}

// readMore reads a reply of many lines. Where their codes differ, the last line's holds (RFC 5321 §4.2.1).
func readMore(br *bufio.Reader, line []byte) (mail.Reply, error) {
	var lines []string
	octets := 0
	for {
		if octets += len(line) + 2; octets > maxOctets || len(lines) >= maxLines {
			return mail.Reply{}, ErrTooLong
		}
		code, more, ok := Code(line)
		if !ok {
			return mail.Reply{}, ErrSyntax
		}
		lines = append(lines, tail(line))
		if !more {
			return joinLines(code, lines), nil
		}
		var err error
		switch line, err = nextLine(br); {
		case err == io.EOF:
			return mail.Reply{}, io.ErrUnexpectedEOF
		case err != nil:
			return mail.Reply{}, err
		}
	}
}

// joinLines makes a reply of the texts of its lines. The first enhanced code that fits is the reply's.
func joinLines(code int, lines []string) mail.Reply {
	r := mail.Reply{Code: code}
	var text strings.Builder
	for i, line := range lines {
		enhanced, t := splitEnhanced(code, line)
		r.Enhanced = cmp.Or(r.Enhanced, enhanced)
		if i > 0 {
			text.WriteByte('\n')
		}
		text.WriteString(mail.Printable(t))
	}
	r.Text = text.String()
	return r
}

// maxEmptyLines is how many empty lines in a row are skipped.
const maxEmptyLines = 16

// nextLine returns the next line that is not empty.
func nextLine(br *bufio.Reader) ([]byte, error) {
	for range maxEmptyLines + 1 {
		if line, err := readLine(br); err != nil || len(line) > 0 {
			return line, err
		}
	}
	return nil, ErrTooLong
}

// readLine returns the next line without its end; it is valid until the next read.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, ErrTooLong
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return bytes.TrimRight(line[:len(line)-1], "\r"), nil
}

// Code reads the three digits and whether another line follows.
func Code(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, false, true
	}
	switch c := line[3]; {
	case c == '-':
		return code, true, true
	case c >= '0' && c <= '9': // a number of more digits is no code
		return 0, false, false
	}
	return code, false, true
}

// tail is the text behind the code.
func tail(line []byte) string {
	text := line[3:]
	if len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || text[0] == '-') {
		text = text[1:]
	}
	return string(text)
}

// splitEnhanced takes the enhanced status code off the text if there is one and its class fits (RFC 2034 §4).
func splitEnhanced(code int, text string) (enhanced, rest string) {
	if len(text) < 5 || text[0] != byte('0'+code/100) || text[1] != '.' {
		return "", text
	}
	i, ok := 1, false
	for range 2 {
		if i, ok = number(text, i); !ok {
			return "", text
		}
	}
	if i < len(text) && text[i] != ' ' && text[i] != '\t' {
		return "", text
	}
	return text[:i], strings.TrimLeft(text[i:], " \t")
}

// number reads a dot and one to three digits at i and returns where they end.
func number(s string, i int) (int, bool) {
	if i >= len(s) || s[i] != '.' {
		return i, false
	}
	start := i + 1
	for i = start; i < len(s) && i < start+3 && s[i] >= '0' && s[i] <= '9'; i++ {
	}
	return i, i > start
}
