package lives

import (
	"time"

	"github.com/relayguard/relayguard/history"
)

// Life describes a life. Its times are those of its first and last message.
type Life struct {
	ID   string `json:"id"`
	Room string `json:"room,omitempty"` // empty: the only conversation
	// Number counts the lives of the device from 1. Nil: the device did not say.
	Number *int64    `json:"number,omitempty"`
	Began  time.Time `json:"began,omitzero"`
	Ended  time.Time `json:"ended"` // when the restart signal came
	// Cause is why it ended: "restart", a restart signal.
	Cause string `json:"cause,omitempty"`
	// MemoryPercent is how full the device's memory was at the end, from 0 to
	// 100. Nil: the device did not say.
	MemoryPercent *float64 `json:"memory_percent,omitempty"`
	Messages      int      `json:"messages"`
	// Bytes is the size of the messages; that of the file if it is unreadable.
	Bytes int64 `json:"bytes"`
	// Truncated means that the end is missing, because the life was larger than
	// a life may be.
	Truncated bool `json:"truncated,omitempty"`
	// Incomplete means that messages are missing: the beginning, if the server
	// started later, or what the history had dropped before it was recorded.
	Incomplete bool `json:"incomplete,omitempty"`
	// Unreadable means that the file cannot be opened; see [ErrUnreadable]. Only
	// ID, Ended and Bytes are then known.
	Unreadable bool `json:"unreadable,omitempty"`
}

// Recording is a life that has ended, with its messages as viewers got them.
// The store gives it its ID.
type Recording struct {
	Life
	Entries []history.Entry
}

// Stats are figures of a store.
type Stats struct {
	Lives      int
	Unreadable int
	Bytes      int64  // of the files
	Failed     uint64 // lives that are not kept, or not removed, because of an error
}
