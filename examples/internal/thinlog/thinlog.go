// Package thinlog thins a log whose lines a peer can cause, so that a hostile
// or broken peer does not fill the disk.
package thinlog

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	burst    = 10          // lines with one message in a period
	period   = time.Minute // from the first of them
	maxLines = 256         // messages that are told apart
	maxText  = 512         // bytes of a text in a line
)

// New returns a logger that writes to log at most ten lines with the same
// message in a minute. When the minute ends, it writes the last line that was
// left out, with the number of those in "suppressed". An "addr" that they do
// not share is left out, since the number would not be its own. Long texts are
// cut, but not a "stack".
//
// The caller calls flush at the end, which writes what is still to be written
// and releases the timers. The logger may be used by many goroutines, and also
// after flush.
func New(log *slog.Logger) (thinned *slog.Logger, flush func()) {
	s := &state{lines: map[string]*line{}}
	return slog.New(&handler{log.Handler(), s}), s.flush
}

// state is what a logger and those that were derived from it share.
type state struct {
	mu    sync.Mutex
	lines map[string]*line // by message
}

// line is one message in the current period.
type line struct {
	written    int
	suppressed int
	last       slog.Record  // the last one that was left out
	addr       string       // of all that were left out
	mixed      bool         // they have not all the same
	next       slog.Handler // to which it belongs
	timer      *time.Timer
}

type handler struct {
	next slog.Handler
	*state
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(attrs), h.state}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.state}
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.admit(r) {
		return nil
	}
	return h.next.Handle(ctx, short(r, false))
}

// admit reports whether r is written now.
func (h *handler) admit(r slog.Record) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := r.Message
	l := h.lines[key]
	if l == nil && len(h.lines) >= maxLines {
		key = "" // all further messages count as one
		l = h.lines[key]
	}
	if l == nil {
		l = &line{}
		l.timer = time.AfterFunc(period, func() { h.end(key) })
		h.lines[key] = l
	}
	if l.written < burst {
		l.written++
		return true
	}
	l.suppressed++
	l.last, l.next = r.Clone(), h.next
	addr := addrOf(r)
	l.mixed = l.mixed || l.suppressed > 1 && addr != l.addr
	l.addr = addr
	return false
}

func addrOf(r slog.Record) (addr string) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "addr" {
			addr = a.Value.Resolve().String()
			return false
		}
		return true
	})
	return addr
}

// end ends the period of a message.
func (s *state) end(key string) {
	s.mu.Lock()
	l := s.lines[key]
	delete(s.lines, key)
	s.mu.Unlock()
	if l != nil {
		l.tell()
	}
}

func (s *state) flush() {
	s.mu.Lock()
	lines := s.lines
	s.lines = map[string]*line{}
	s.mu.Unlock()
	for _, l := range lines {
		l.timer.Stop()
		l.tell()
	}
}

// tell writes the last line that was left out, if there is one.
func (l *line) tell() {
	if l.suppressed > 0 {
		r := short(l.last, l.mixed)
		r.AddAttrs(slog.Int("suppressed", l.suppressed))
		_ = l.next.Handle(context.Background(), r)
	}
}

// short returns r with its long texts cut, and, if asked, without its address.
func short(r slog.Record, nameless bool) slog.Record {
	out := slog.NewRecord(r.Time, r.Level, cut(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case nameless && a.Key == "addr":
			return true
		case a.Key == "stack":
			out.AddAttrs(a)
			return true
		}
		switch v := a.Value.Resolve(); v.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(cut(v.String()))
		case slog.KindAny:
			if err, ok := v.Any().(error); ok {
				a.Value = slog.StringValue(cut(err.Error()))
			}
		}
		out.AddAttrs(a)
		return true
	})
	return out
}

func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}
