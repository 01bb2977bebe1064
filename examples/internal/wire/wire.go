// Package wire is the relay's protocol: the messages that a publisher sends,
// the check that every one of them passes, and the frames that viewers receive.
// The server, the device and the load generator share it, so that there is one
// place to read what goes over the wire.
package wire

import (
	"bytes"
	"encoding/json"
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
	ID        string  `json:"id,omitempty"`        // a publisher's own, never shown to viewers; empty is none
}

// Memory says how full the device's memory is.
type Memory struct {
	AvailableMB float64 `json:"available_mb"`
	PercentUsed float64 `json:"percent_used"` // 0 to 100
	TotalMB     float64 `json:"total_mb"`
}

// Status says that the device starts anew, and how often it did.
type Status struct {
	IsRestarting *bool    `json:"is_restarting,omitempty"`
	NumRestarts  *float64 `json:"num_restarts,omitempty"`
}

// Restarting reports whether m is a restart signal, which clears the
// conversation.
func (m *Message) Restarting() bool {
	return m.Status != nil && m.Status.IsRestarting != nil && *m.Status.IsRestarting
}

// Bare reports whether m says nothing that is worth keeping: neither text, nor
// memory, nor prompt.
func (m *Message) Bare() bool {
	return m.Text == "" && m.Memory == nil && (m.Prompt == nil || *m.Prompt == "")
}

// Encode returns m as viewers see it: stamped with the time, without the id.
func (m *Message) Encode(now time.Time) []byte {
	out := *m
	out.ID = ""
	out.Timestamp = now.UnixMilli()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	// The text is never put into HTML unescaped by a client of this protocol,
	// and six bytes for each "<" would be paid once per viewer.
	enc.SetEscapeHTML(false)
	// Encoding cannot fail: Decode lets no NaN or infinity in, and a caller
	// that builds one by hand gets a message without the figure it could not
	// say.
	if err := enc.Encode(out); err != nil {
		out.Memory, out.Status = nil, nil
		buf.Reset()
		_ = enc.Encode(out)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// Kind is the type of a frame that carries messages.
type Kind string

const (
	History Kind = "history" // replaces all that the client shows
	Live    Kind = "live"    // is appended
)

// Frame joins encoded messages into the text of one frame. pos is the opaque
// position behind the last of them, which a client that reconnects shows; it
// must need no escaping in JSON. Empty leaves it out.
func Frame(kind Kind, pos string, messages ...[]byte) []byte {
	n := len(`{"type":"","pos":"","messages":[]}`) + len(kind) + len(pos) + len(messages)
	for _, m := range messages {
		n += len(m)
	}
	b := make([]byte, 0, n)
	b = append(b, `{"type":"`...)
	b = append(b, kind...)
	if pos != "" {
		b = append(b, `","pos":"`...)
		b = append(b, pos...)
	}
	b = append(b, `","messages":[`...)
	for i, m := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m...)
	}
	return append(b, `]}`...)
}

// Ack tells a publisher that the message with this id is stored.
func Ack(id string) []byte {
	b, _ := json.Marshal(struct { // a string: cannot fail
		Ack string `json:"ack"`
	}{id})
	return b
}
