package relay

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A frame carries at most pieceBytes of messages, or one that is larger, so
// that a viewer who does not take it holds no more than that. A long history
// goes out in pieces that end where a sequence number is a multiple of
// pieceCount: whoever joins when, most of them are the same.
const (
	pieceBytes = 64 << 10
	pieceCount = 256
)

// piece is the part of b that goes into one frame.
func piece(b history.Batch) history.Batch {
	size := 0
	for i, e := range b.Entries {
		if size += len(e.Data); i > 0 && size > pieceBytes {
			return b.Head(i)
		}
		if len(b.Entries) > pieceCount && e.Seq%pieceCount == 0 {
			return b.Head(i + 1)
		}
	}
	return b
}

// shared is a frame that all viewers get who move from the same position to the
// same position.
type shared struct {
	frame *wsconn.Frame
	load
}

// load is what a frame is counted by.
type load struct {
	messages int
	live     bool      // appended to what the viewer shows
	oldest   time.Time // when the first of its entries was stored; zero without any
}

func encode(b history.Batch, whole bool) shared {
	text, kind := layout(b, whole)
	s := shared{wsconn.NewFrame(text), load{messages: len(b.Entries), live: kind == wire.Live}}
	if leads(b, whole) {
		s.messages++
	}
	if len(b.Entries) > 0 {
		s.oldest = b.Entries[0].At
	}
	return s
}

// layout is the text of a frame. With whole, or where the batch does not
// continue what the viewer shows, the frame replaces it.
func layout(b history.Batch, whole bool) ([]byte, wire.Kind) {
	messages := make([][]byte, 0, len(b.Entries)+1)
	kind := wire.Live
	switch {
	case b.Reset && b.Note != nil && !whole:
		// The note is the restart signal. It clears the viewer's page, so what
		// follows it is appended.
		if leads(b, whole) {
			messages = append(messages, Shown(b.Note))
		}
	case whole, b.Reset, b.Missed > 0:
		kind = wire.History
	}
	for _, e := range b.Entries {
		messages = append(messages, Shown(e.Data))
	}
	return wire.Frame(kind, b.To.String(), messages...), kind
}

// leads reports whether the note of b is a message of its own before the
// entries. Where the restart signal is kept, it is the first entry too.
func leads(b history.Batch, whole bool) bool {
	return b.Reset && b.Note != nil && !whole && (len(b.Entries) == 0 || !bytes.Equal(b.Entries[0].Data, b.Note))
}

// frameCache remembers the newest frames. Viewers that keep up ask for the same
// one within moments of each other; those that join, for the same pieces of the
// history.
type frameCache struct {
	mu     sync.Mutex
	live   frameRing
	pieces frameRing

	forgotten atomic.Uint64 // calls of forget, counted under mu
	encoded   atomic.Uint64
}

// frameRing holds two megabytes at the most, where messages are not larger than
// a piece.
type frameRing struct {
	slots [32]frameSlot
	next  int
}

type frameKey struct {
	from, to history.Position
	first    uint64 // the first entry: age may have taken others since from
	whole    bool
}

type frameSlot struct {
	key   frameKey
	frame func() *shared
}

// get returns the frame of b. since is what forgotten said before b was read
// from the log.
func (c *frameCache) get(b history.Batch, whole bool, since uint64) *shared {
	return c.slot(b, whole, since)()
}

func (c *frameCache) slot(b history.Batch, whole bool, since uint64) func() *shared {
	key := frameKey{from: b.From, to: b.To, whole: whole}
	if len(b.Entries) > 0 {
		key.first = b.Entries[0].Seq
	}
	ring := &c.live
	if whole || b.Reset || b.Missed > 0 || len(b.Entries) > pieceCount/4 {
		ring = &c.pieces
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range ring.slots {
		if s := &ring.slots[i]; s.frame != nil && s.key == key {
			return s.frame
		}
	}
	// Encoding happens outside the lock, once; others at the same cursor wait
	// for that one and nobody else does.
	frame := sync.OnceValue(func() *shared {
		c.encoded.Add(1)
		s := encode(b, whole)
		return &s
	})
	if since == c.forgotten.Load() { // else b may be of what was cleared meanwhile
		ring.slots[ring.next] = frameSlot{key, frame}
		ring.next = (ring.next + 1) % len(ring.slots)
	}
	return frame
}

// forget drops all frames.
func (c *frameCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten.Add(1)
	c.live, c.pieces = frameRing{}, frameRing{}
}
