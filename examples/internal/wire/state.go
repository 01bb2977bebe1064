package wire

import (
	"bytes"
	"encoding/json"
)

// State is what was said once and still holds: the last prompt, the last memory
// figures, and the last status, field by field. A restart signal begins a new
// one. That the device restarts is an event and does not hold, but that it does
// not restart holds, if the device said so.
type State struct {
	Prompt *string `json:"prompt,omitempty"`
	Status *Status `json:"status,omitempty"`
	Memory *Memory `json:"memory,omitempty"`

	timestamp int64 // of the newest message that said any of it
}

// IsZero reports whether nothing holds.
func (s *State) IsZero() bool { return s.Prompt == nil && s.Status == nil && s.Memory == nil }

// Take changes s as m does.
func (s *State) Take(m *Message) {
	if m.Restarting() {
		*s = State{}
	}
	told := false
	if m.Prompt != nil {
		s.Prompt, told = m.Prompt, true
	}
	if m.Memory != nil {
		s.Memory, told = m.Memory, true
	}
	if m.Status != nil {
		var now Status
		if s.Status != nil {
			now = *s.Status
		}
		if m.Status.NumRestarts != nil {
			now.NumRestarts, told = m.Status.NumRestarts, true
		}
		if m.Status.IsRestarting != nil && !*m.Status.IsRestarting {
			now.IsRestarting, told = m.Status.IsRestarting, true
		}
		if now != (Status{}) {
			s.Status = &now
		}
	}
	if told {
		s.timestamp = max(s.timestamp, m.Timestamp)
	}
}

// Fill gives m what it lacks of s, so that a client that reads only messages
// knows it too. It reports whether that was anything. A restart signal lacks
// nothing, because what was before it does not hold.
func (s *State) Fill(m *Message) (filled bool) {
	if m.Restarting() {
		return false
	}
	if m.Prompt == nil && s.Prompt != nil {
		m.Prompt, filled = s.Prompt, true
	}
	if m.Memory == nil && s.Memory != nil {
		m.Memory, filled = s.Memory, true
	}
	switch {
	case s.Status == nil:
	case m.Status == nil:
		m.Status, filled = s.Status, true
	case m.Status.NumRestarts == nil && s.Status.NumRestarts != nil:
		both := Status{m.Status.IsRestarting, s.Status.NumRestarts}
		m.Status, filled = &both, true
	}
	return filled
}

// Message returns a message without text that says s. Its time is that of the
// newest message that said any of it.
func (s *State) Message() Message {
	return Message{Prompt: s.Prompt, Status: s.Status, Memory: s.Memory, Timestamp: s.timestamp}
}

// Parts returns messages that say each part of m that can hold: its prompt, its
// memory figures and the fields of its status. If m is a restart signal, the
// parts that it does not have are nil: they end.
func Parts(m *Message) map[string]*Message {
	parts := make(map[string]*Message)
	if m.Restarting() {
		parts = map[string]*Message{"prompt": nil, "memory": nil, "num_restarts": nil, "is_restarting": nil}
	}
	if m.Prompt != nil {
		parts["prompt"] = &Message{Prompt: m.Prompt, Timestamp: m.Timestamp}
	}
	if m.Memory != nil {
		parts["memory"] = &Message{Memory: m.Memory, Timestamp: m.Timestamp}
	}
	if m.Status != nil && m.Status.NumRestarts != nil {
		parts["num_restarts"] = &Message{Status: &Status{NumRestarts: m.Status.NumRestarts}, Timestamp: m.Timestamp}
	}
	if m.Status != nil && m.Status.IsRestarting != nil && !m.Restarting() {
		parts["is_restarting"] = &Message{Status: &Status{IsRestarting: m.Status.IsRestarting}, Timestamp: m.Timestamp}
	}
	return parts
}

// Stored parses what [Message.Encode] has made, with its time. ok is false for
// anything else.
func Stored(data []byte) (m Message, ok bool) {
	return m, json.Unmarshal(data, &m) == nil
}

// Says reports whether the encoded message may say anything that can hold. In a
// text, the quotes of these names are escaped.
func Says(encoded []byte) bool {
	for _, name := range [...]string{`"memory":`, `"status":`, `"prompt":`} {
		if bytes.Contains(encoded, []byte(name)) {
			return true
		}
	}
	return false
}
