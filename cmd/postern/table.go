package main

import (
	"io"
	"slices"
	"strings"

	"postern/mail"
)

// columnGap stands between two columns of a table.
const columnGap = 2

// table prints rows in aligned columns under a heading. On a terminal that is too narrow for them cells are wrapped,
// and where even that does not help each row is a block of its own. Every cell is made printable: logins, addresses and
// replies come from outside.
func table(w io.Writer, heading []string, rows [][]string) error {
	clean := make([][]string, len(rows))
	for i, row := range rows {
		clean[i] = make([]string, len(row))
		for j := range row {
			clean[i][j] = mail.Printable(row[j])
		}
	}
	room := 0
	if s, ok := w.(*screen); ok {
		room = s.width
	}
	widths := naturalWidths(heading, clean)
	if room > 0 {
		if widths = fit(widths, wordWidths(heading, clean), room); widths == nil {
			return blocks(w, heading, clean, room)
		}
	}
	var b strings.Builder
	for i, row := range append([][]string{heading}, clean...) {
		writeRow(&b, w, heading, row, widths, i == 0)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func naturalWidths(heading []string, rows [][]string) []int {
	widths := make([]int, len(heading))
	for _, row := range append([][]string{heading}, rows...) {
		for j, cell := range row {
			widths[j] = max(widths[j], columnsOf(cell))
		}
	}
	return widths
}

// wordWidths are the longest words of each column.
func wordWidths(heading []string, rows [][]string) []int {
	widths := make([]int, len(heading))
	for _, row := range append([][]string{heading}, rows...) {
		for j, cell := range row {
			for word := range strings.FieldsSeq(cell) {
				widths[j] = max(widths[j], columnsOf(word))
			}
		}
	}
	return widths
}

// Words up to so many columns are not broken; the first that lets a table fit is taken. The first is the length of a
// message's id.
var unbroken = []int{16, 12, 8}

// fit makes columns narrower until a table has room: each keeps its words, and what is left over goes to those that
// want more, in equal parts. nil means that there is no way.
func fit(natural, words []int, room int) []int {
	room -= columnGap * (len(natural) - 1)
	if sum(natural) <= room {
		return natural
	}
	for _, longest := range unbroken {
		widths := make([]int, len(natural))
		for j := range natural {
			widths[j] = min(natural[j], max(min(words[j], longest), 1))
		}
		if sum(widths) <= room {
			return share(widths, natural, room-sum(widths))
		}
	}
	return nil
}

// share gives columns what is left, the narrowest that want more first.
func share(widths, natural []int, left int) []int {
	for ; left > 0; left-- {
		narrowest := -1
		for j := range widths {
			if widths[j] < natural[j] && (narrowest < 0 || widths[j] < widths[narrowest]) {
				narrowest = j
			}
		}
		if narrowest < 0 {
			break
		}
		widths[narrowest]++
	}
	return widths
}

func sum(values []int) (n int) {
	for _, v := range values {
		n += v
	}
	return n
}

// writeRow writes a row in as many lines as its cells need.
func writeRow(b *strings.Builder, w io.Writer, heading, row []string, widths []int, isHeading bool) {
	cells := make([][]string, len(row))
	height := 1
	for j, cell := range row {
		cells[j] = wrap(cell, widths[j])
		height = max(height, len(cells[j]))
	}
	for i := range height {
		line := ""
		pad := 0
		for j := range row {
			text := ""
			if i < len(cells[j]) {
				text = cells[j][i]
			}
			if text != "" {
				line += strings.Repeat(" ", pad) + paint(w, cellColour(heading[j], row[j], isHeading), text)
				pad = 0
			}
			pad += widths[j] - columnsOf(text) + columnGap
		}
		b.WriteString(line + "\n")
	}
}

func cellColour(column, cell string, isHeading bool) string {
	switch {
	case isHeading:
		return bold
	case stateColumns[column]:
		return stateColours[cell]
	}
	return ""
}

// blocks writes each row as lines of name and value, for a terminal that is too narrow for a table.
func blocks(w io.Writer, heading []string, rows [][]string, room int) error {
	label := slices.Max(naturalWidths(heading, nil)) + columnGap
	var b strings.Builder
	for i, row := range rows {
		if i > 0 {
			b.WriteString("\n")
		}
		for j, cell := range row {
			name := heading[j] + strings.Repeat(" ", label-columnsOf(heading[j]))
			for _, line := range wrap(cell, max(room-label, 1)) {
				b.WriteString(paint(w, bold, name) + paint(w, cellColour(heading[j], cell, false), line) + "\n")
				name = strings.Repeat(" ", label)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
