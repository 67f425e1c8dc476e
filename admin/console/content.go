package console

import (
	"fmt"
	"io"
	"iter"
	"net/http"
	netmail "net/mail"
	"regexp"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
)

// The actions that show of a message what its people wrote. Both are kept in the audit.
var (
	showHeader = action{path: "/queue/header", needs: operate.SeeHeaders, do: header, sheet: "header",
		title: "Header fields"}
	fetchRaw = action{path: "/queue/raw", needs: operate.SeeContent, do: raw}
)

// headerView is the body of the page that shows a header.
type headerView struct {
	ID, Text string
	Times    []headerTime
	Cut      bool // there is more of it
}

// headerTime is a time that a header field says, which is in the zone of whoever wrote it.
type headerTime struct {
	Field string // its name, and of a Received who wrote it
	time.Time
}

// maxHeader bounds how much of a header is shown, in octets.
const maxHeader = 64 << 10

func header(v *visit) (string, any, error) {
	id := mail.Cut(v.PostForm.Get("id"), maxFilter)
	data, err := v.console.Operations.Queue.Headers(v.Context(), v.actor, id)
	if err != nil {
		return "", nil, err
	}
	lines := strings.Split(strings.TrimRight(string(data[:min(len(data), maxHeader)]), "\r\n"), "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		folded := strings.TrimLeft(line, "\t ")
		lines[i] = strings.Repeat(" ", min(4, len(line)-len(folded))) + mail.Printable(folded)
	}
	return "", headerView{plain(maxFilter, id), strings.Join(lines, "\n"), headerTimes(lines),
		len(data) > maxHeader}, nil
}

// maxTimes bounds how many times of a header are shown apart.
const maxTimes = 30

var receivedBy = regexp.MustCompile(`(?i)\sby\s+([^\s;]+)`)

// headerTimes are the times of the fields that have one, from top to bottom: those of Received are after the last
// semicolon (RFC 5321 §4.4).
func headerTimes(lines []string) (all []headerTime) {
	for field := range unfolded(lines) {
		name, value, _ := strings.Cut(field, ":")
		when, at := value, -1
		switch strings.ToLower(name) {
		case "received":
			at = strings.LastIndexByte(value, ';')
			when = value[at+1:]
		case "date", "resent-date":
		default:
			continue
		}
		t, err := netmail.ParseDate(strings.TrimSpace(when))
		if err != nil {
			continue
		}
		if by := receivedBy.FindStringSubmatch(value[:max(at, 0)]); by != nil {
			name += " by " + plain(maxHost, by[1])
		}
		if all = append(all, headerTime{name, t}); len(all) == maxTimes {
			break
		}
	}
	return all
}

// maxHost bounds the name of a host, in octets (RFC 1035 §2.3.4).
const maxHost = 255

// unfolded is each field of a header in one line.
func unfolded(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(lines) > 0 {
			n := 1
			for n < len(lines) && strings.HasPrefix(lines[n], " ") {
				n++
			}
			if !yield(strings.Join(lines[:n], "")) {
				return
			}
			lines = lines[n:]
		}
	}
}

// download is a body that the browser stores instead of showing it.
type download struct {
	name string // of plain ASCII without quotes
	kind string // media type
	size int64
	io.ReadCloser
}

// store answers with a download.
func (d *download) store(w http.ResponseWriter) error {
	defer d.Close()
	h := w.Header()
	h.Set("Content-Type", d.kind)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", d.name))
	h.Set("Content-Length", fmt.Sprint(d.size))
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	_, err := io.Copy(w, d)
	return err
}

func raw(v *visit) (string, any, error) {
	id := mail.Cut(v.PostForm.Get("id"), maxFilter)
	content, err := v.console.Operations.Queue.Content(v.Context(), v.actor, id)
	if err != nil {
		return "", nil, err
	}
	r, err := content.Open()
	if err != nil {
		return "", nil, err
	}
	return "", &download{"message.eml", "message/rfc822", content.Size(), r}, nil
}
