package encode

import (
	"bufio"

	"postern/mail"
)

// output writes the new body and notices octets above 0x7f.
type output struct {
	w        *bufio.Writer
	eightBit bool
}

func (o *output) write(b []byte) error {
	for i := 0; i < len(b) && !o.eightBit; i++ {
		o.eightBit = b[i] >= 0x80
	}
	_, err := o.w.Write(b)
	return err
}

func (o *output) flush() error { return o.w.Flush() }

// rewriter carries out a plan.
type rewriter struct {
	plan *Plan
	out  *output

	quoter quoter
	folder folder
	column int // of a line that is being wrapped
}

func (r *rewriter) header(e *entity) error {
	if !e.formed {
		return r.out.write(e.raw)
	}
	h := e.header
	octets := 0
	for i, f := range h.Fields {
		octets += len(f.Raw)
		folded, err := mail.FoldLong(f)
		if err != nil {
			return err
		}
		if len(folded.Raw) != len(f.Raw) {
			h.Replace(i, folded)
		}
	}
	blank := e.raw[octets:] // empty if the part ended in its header
	if r.plan.actions[e.number] == quote {
		setQuoted(&h)
	}
	for _, f := range h.Fields {
		if err := r.out.write(f.Raw); err != nil {
			return err
		}
	}
	return r.out.write(blank)
}

func (r *rewriter) body(e *entity, p piece) error {
	switch a := r.plan.actions[e.number]; {
	case a == quote:
		r.quoter.add(p.b)
		return r.drain(&r.quoter.out)
	case a == requote && p.long:
		r.folder.add(p.b)
		return r.drain(&r.folder.out)
	case a == rewrap && p.long:
		return r.cut(p, lineWidth, "\r\n")
	}
	return r.out.write(p.b)
}

// drain writes the output of a coder.
func (r *rewriter) drain(made *[]byte) error {
	err := r.out.write(*made)
	*made = (*made)[:0]
	return err
}

// outside folds long lines that no reader shows. The blank after the fold keeps the rest from looking like a delimiter.
func (r *rewriter) outside(_ *entity, p piece) error {
	if p.long {
		return r.cut(p, mail.MaxLine-100, "\r\n ")
	}
	return r.out.write(p.b)
}

// cut wraps a line at width octets.
func (r *rewriter) cut(p piece, width int, lineEnd string) error {
	if p.first {
		r.column = 0
	}
	b := p.b
	for {
		text := len(b)
		for text > 0 && (b[text-1] == '\r' || b[text-1] == '\n') {
			text--
		}
		n := width - r.column
		if text == 0 || text <= n {
			break
		}
		if err := r.out.write(b[:n]); err != nil {
			return err
		}
		if err := r.out.write([]byte(lineEnd)); err != nil {
			return err
		}
		b, r.column = b[n:], 0
	}
	r.column += len(b)
	return r.out.write(b)
}

func (r *rewriter) end(e *entity) error {
	r.quoter.end()
	r.folder.end()
	if err := r.drain(&r.quoter.out); err != nil {
		return err
	}
	return r.drain(&r.folder.out)
}
