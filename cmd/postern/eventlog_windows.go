package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"

	"postern/relay/config"
)

// events is the Event Log: eventlog.Log.
type events interface {
	Error(id uint32, text string) error
	Warning(id uint32, text string) error
	Info(id uint32, text string) error
}

const (
	eventID  = 1     // of all; eventcreate.exe has texts for 1 to 1000
	maxEvent = 15000 // octets of a text, which blanks may double; Windows takes 31839 characters
)

// eventWriter writes what a command says before there is a log, or when it fails: each Write is an error.
type eventWriter struct{ to events }

// Write implements io.Writer.
func (w *eventWriter) Write(line []byte) (int, error) {
	if err := report(w.to, slog.LevelError, line); err != nil {
		return 0, err
	}
	return len(line), nil
}

func report(to events, level slog.Level, line []byte) error {
	text := forEvent(string(bytes.TrimSpace(line[:min(len(line), maxEvent)])))
	switch {
	case level >= slog.LevelError:
		return to.Error(eventID, text)
	case level >= slog.LevelWarn:
		return to.Warning(eventID, text)
	}
	return to.Info(eventID, text)
}

// forEvent keeps the Event Log from putting other texts where a text has %1 or %%1, which may come from outside, and
// from refusing NUL.
func forEvent(text string) string {
	var b strings.Builder
	for i, c := range []byte(text) {
		switch {
		case c == 0:
			c = ' '
		case i > 0 && text[i-1] == '%' && (c == '%' || c == '!' || '0' <= c && c <= '9'):
			b.WriteByte(' ')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// handler writes as [log] says, without time and level, which events have themselves.
func (w *eventWriter) handler(c config.Log) slog.Handler {
	line := new(eventLine)
	return eventHandler{newHandler(&line.text, c, func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}), w.to, line}
}

// eventLine is where one record at a time is written.
type eventLine struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// eventHandler makes one event of each record.
type eventHandler struct {
	slog.Handler
	to   events
	line *eventLine
}

// Handle implements slog.Handler.
func (h eventHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.text.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	return report(h.to, r.Level, h.line.text.Bytes())
}

// WithAttrs implements slog.Handler.
func (h eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return eventHandler{h.Handler.WithAttrs(attrs), h.to, h.line}
}

// WithGroup implements slog.Handler.
func (h eventHandler) WithGroup(name string) slog.Handler {
	return eventHandler{h.Handler.WithGroup(name), h.to, h.line}
}
