package console

import (
	"fmt"
	"io"
	"net/http"
	"strings"

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
	Cut      bool // there is more of it
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
	return "", headerView{plain(maxFilter, id), strings.Join(lines, "\n"), len(data) > maxHeader}, nil
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
