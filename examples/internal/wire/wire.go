// Package wire is the relay's protocol: the messages that a publisher sends,
// the check that every message must pass, and the frames that viewers receive.
// The server, the device and the load generator share the package, so that the
// protocol is defined in one place.
package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// MaxID is the longest id of a message, in characters.
const MaxID = 64

// Message is one piece of the stream. Optional fields are pointers, because an
// absent field and an empty one differ on the wire.
type Message struct {
	Text      string  `json:"text"`
	Memory    *Memory `json:"memory,omitempty"`
	Status    *Status `json:"status,omitempty"`
	Prompt    *string `json:"prompt,omitempty"`
	Timestamp int64   `json:"timestamp,omitempty"` // milliseconds since 1970, set by the server
	ID        string  `json:"id,omitempty"`        // chosen by the publisher, never sent to viewers; empty if it has none
}

// Memory reports how full the device's memory is.
type Memory struct {
	AvailableMB float64 `json:"available_mb"`
	PercentUsed float64 `json:"percent_used"` // 0 to 100
	TotalMB     float64 `json:"total_mb"`
}

// Status reports whether the device is restarting, and how often it has
// restarted.
type Status struct {
	IsRestarting *bool    `json:"is_restarting,omitempty"`
	NumRestarts  *float64 `json:"num_restarts,omitempty"`
}

// Restarting reports whether m is a restart signal, which clears the
// conversation.
func (m *Message) Restarting() bool {
	return m.Status != nil && m.Status.IsRestarting != nil && *m.Status.IsRestarting
}

// Bare reports whether m has nothing to keep: no text, no memory and no prompt.
func (m *Message) Bare() bool {
	return m.Text == "" && m.Memory == nil && (m.Prompt == nil || *m.Prompt == "")
}

// Encode returns m in the form that viewers get: with now as the timestamp, and
// without the id.
func (m *Message) Encode(now time.Time) []byte {
	out := *m
	out.Timestamp = now.UnixMilli()
	return out.Bytes()
}

// Bytes returns m in the form that viewers get, with its own timestamp and
// without the id.
func (m *Message) Bytes() []byte {
	out := *m
	out.ID = ""
	b, err := compact(out)
	// The encoding of a decoded message cannot fail, because Decode accepts no
	// NaN or infinity. A message that a caller builds with such a number is
	// encoded without memory and status.
	if err != nil {
		out.Memory, out.Status = nil, nil
		b, _ = compact(out)
	}
	return b
}

// compact returns v in JSON. A client of this protocol never puts the text into
// HTML unescaped, and an escaped "<" would cost six bytes for each viewer.
func compact(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// Kind is the type of a frame that carries messages.
type Kind string

const (
	History Kind = "history" // replaces all messages that the client shows
	Live    Kind = "live"    // is appended to the messages that the client shows
)

// Frame joins encoded messages into the text of one frame. pos is the opaque
// position after the last message, which a client sends when it reconnects. It
// must need no escaping in JSON. If it is empty, the frame has no position.
func Frame(kind Kind, pos string, messages ...[]byte) []byte {
	return Head{Kind: kind, Pos: pos}.Frame(messages...)
}

// Head is what a frame says besides its messages.
type Head struct {
	Kind     Kind
	Pos      string
	State    State // what holds at Pos
	Watching int   // how many watch; 0: the frame does not say
}

// Frame is [Frame] with everything that h says.
func (h Head) Frame(messages ...[]byte) []byte {
	kind, pos := h.Kind, h.Pos
	var holds []byte
	if !h.State.IsZero() {
		holds, _ = compact(h.State) // of decoded messages: cannot fail
	}
	n := len(`{"type":"","pos":"","state":,"watching":1234567,"messages":[]}`) + len(kind) + len(pos) + len(holds) + len(messages)
	for _, m := range messages {
		n += len(m)
	}
	b := make([]byte, 0, n)
	b = append(b, `{"type":"`...)
	b = append(b, kind...)
	b = append(b, '"')
	if pos != "" {
		b = append(b, `,"pos":"`...)
		b = append(b, pos...)
		b = append(b, '"')
	}
	if holds != nil {
		b = append(b, `,"state":`...)
		b = append(b, holds...)
	}
	if h.Watching > 0 {
		b = append(b, `,"watching":`...)
		b = strconv.AppendInt(b, int64(h.Watching), 10)
	}
	b = append(b, `,"messages":[`...)
	for i, m := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m...)
	}
	return append(b, `]}`...)
}

// Ack returns the answer to a publisher whose message with this id is stored.
// duplicate is set if it was stored before.
func Ack(id string, duplicate bool) []byte {
	b, _ := json.Marshal(struct { // a string and a bool: cannot fail
		Ack       string `json:"ack"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{id, duplicate})
	return b
}
