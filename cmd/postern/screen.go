package main

import (
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"golang.org/x/text/width"
)

// screen is a terminal: tables fit its width, and may have colours. Output that goes elsewhere is no screen: it is
// neither wrapped nor coloured.
type screen struct {
	io.Writer
	width  int // in columns; 0: do not wrap
	colour bool
}

// showOn makes the root command's output a screen where it is a terminal.
func showOn(root *cobra.Command, wide bool) {
	f, ok := root.OutOrStdout().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	s := &screen{Writer: f, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"} // https://no-color.org
	if columns, _, err := term.GetSize(int(f.Fd())); err == nil && !wide {
		s.width = columns
	}
	root.SetOut(s)
}

// Colours, as SGR parameters (ECMA-48 §8.3.117).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paint colours a text on a screen that has colours.
func paint(w io.Writer, colour, text string) string {
	if s, ok := w.(*screen); !ok || !s.colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// stateColours are those of words that say how something stands, in the columns that have such words.
var stateColours = map[string]string{
	"refused": red, "auth-fail": red, "rejected": red, "failed": red,
	"attempt": yellow, "deferred": yellow, "report": yellow,
	"delivered": green, "accepted": green, "active": green,
}

var stateColumns = map[string]bool{"EVENT": true, "STATUS": true}

// columnsOf is how many columns a text takes on a terminal.
func columnsOf(text string) int {
	n := 0
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// wrap breaks a text into lines of at most so many columns: at blanks, else behind what joins the parts of addresses
// and lists, else anywhere.
func wrap(text string, columns int) []string {
	var lines []string
	for columnsOf(text) > columns {
		cut := cutAt(text, columns)
		lines = append(lines, strings.TrimRight(text[:cut], " "))
		text = strings.TrimLeft(text[cut:], " ")
	}
	if text == "" && len(lines) > 0 {
		return lines
	}
	return append(lines, text)
}

// cutAt returns where a text that is too long is broken, at least behind its first character.
func cutAt(text string, columns int) int {
	used, blank, joint, last := 0, 0, 0, 0
	for i, r := range text {
		if used += runeColumns(r); used > columns {
			if r == ' ' {
				blank = i
			}
			break
		}
		end := i + len(string(r))
		switch {
		case r == ' ':
			blank = end
		case strings.ContainsRune("@,;/=", r):
			joint = end
		}
		last = end
	}
	switch {
	case blank > 0:
		return blank
	case joint > 0:
		return joint
	case last > 0:
		return last
	}
	for _, r := range text { // wider than the column
		return len(string(r))
	}
	return 0
}
