package tracker

import (
	"context"
	"log/slog"
	"slices"
)

// handler sends the records of errors to the tracker, and passes all records on
// to the log.
type handler struct {
	slog.Handler
	to      *Tracker
	attrs   map[string]string // attributes of events, added by WithAttrs
	grouped bool              // further attributes are in a group, and not sent
}

// sent are the names of the attributes that an event is made of.
var sent = []string{"error", "type", "value"}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		attrs := make(map[string]string, len(sent))
		for name, value := range h.attrs {
			attrs[name] = value
		}
		if !h.grouped {
			r.Attrs(func(a slog.Attr) bool { return keep(attrs, a) })
		}
		h.to.Send(r.Message, attrs)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &handler{Handler: h.Handler.WithAttrs(attrs), to: h.to, attrs: make(map[string]string), grouped: h.grouped}
	for name, value := range h.attrs {
		with.attrs[name] = value
	}
	for _, a := range attrs {
		if !h.grouped {
			keep(with.attrs, a)
		}
	}
	return with
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{Handler: h.Handler.WithGroup(name), to: h.to, attrs: h.attrs, grouped: h.grouped || name != ""}
}

// keep adds a to attrs if a is in sent. It returns true, so that
// [slog.Record.Attrs] goes on to the next attribute.
func keep(attrs map[string]string, a slog.Attr) bool {
	if slices.Contains(sent, a.Key) {
		attrs[a.Key] = textOf(a.Value)
	}
	return true
}
