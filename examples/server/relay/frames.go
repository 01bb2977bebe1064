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

// A frame carries at most pieceBytes of messages, or one message that is
// larger. This bounds the memory of a viewer that does not take its frame. A
// long history is sent in pieces that end at sequence numbers which are
// multiples of pieceCount, so that viewers get mostly the same pieces, at
// whatever time they join.
const (
	pieceBytes = 64 << 10
	pieceCount = 256
)

// piece returns the first part of b, which goes into one frame.
func piece(b history.Batch) history.Batch {
	size := 0
	for i, e := range b.Entries {
		if size += len(e.Data); i > 0 && size > pieceBytes {
			return b.First(i)
		}
		if len(b.Entries) > pieceCount && e.Seq%pieceCount == 0 {
			return b.First(i + 1)
		}
	}
	return b
}

// shared is a frame for all viewers that move between the same two positions.
type shared struct {
	frame *wsconn.Frame
	event func() []byte // the frame for streams; the first of them makes it
	load
}

// load holds the properties of a frame that are counted.
type load struct {
	messages int
	live     bool      // appended to the viewer's page
	oldest   time.Time // when its first entry was stored; zero if it has none
}

// compressFrom is the size of a text from which on a frame is compressed for
// viewers that accept it. A smaller one fits into a packet as it is.
const compressFrom = 1 << 10

// encode makes the frame of b. A live frame of one message is never compressed:
// most are short, and its viewers wait for it.
func encode(b history.Batch, whole bool, watching int) shared {
	text, kind := layout(b, whole, watching)
	s := shared{load: load{messages: len(b.Entries), live: kind == wire.Live}}
	if leads(b, whole) {
		s.messages++
	}
	if len(text) >= compressFrom && (!s.live || s.messages > 1) {
		s.frame = wsconn.NewCompressedFrame(text)
	} else {
		s.frame = wsconn.NewFrame(text)
	}
	if len(b.Entries) > 0 {
		s.oldest = b.Entries[0].At
	}
	frame, to := s.frame, b.To
	s.event = sync.OnceValue(func() []byte { return eventOf(to.String(), frame.Text()) })
	return s
}

// layout returns the text and the kind of a frame, which says how many watch
// unless that is 0. The frame replaces the content of the viewer's page if
// whole is set, or if b does not continue that content.
func layout(b history.Batch, whole bool, watching int) ([]byte, wire.Kind) {
	messages := make([][]byte, 0, len(b.Entries)+1)
	kind := wire.Live
	switch {
	case b.Reset && b.Note != nil && !whole:
		// The note is the restart signal. It clears the viewer's page, so the
		// entries after it are appended.
		if leads(b, whole) {
			messages = append(messages, Shown(b.Note))
		}
	case whole, b.Reset, b.Missed > 0:
		kind = wire.History
	}
	for _, e := range b.Entries {
		messages = append(messages, Shown(e.Data))
	}
	head := wire.Head{Kind: kind, Pos: b.To.String(), Watching: watching}
	if kind == wire.History {
		state := before(b)
		head.State, messages = after(state, b.Entries), told(state, messages)
	}
	return head.Frame(messages...), kind
}

// leads reports whether the note of b goes before the entries as a message of
// its own. If the restart signal is kept, it is the first entry, and the note
// is left out.
func leads(b history.Batch, whole bool) bool {
	return b.Reset && b.Note != nil && !whole && (len(b.Entries) == 0 || !bytes.Equal(b.Entries[0].Data, b.Note))
}

// frameCache holds the newest frames. Viewers that keep up need the same frame
// within moments of each other; viewers that join need the same pieces of the
// history.
type frameCache struct {
	mu     sync.Mutex
	live   frameRing
	pieces frameRing

	watching func() int // of the frames; nil: they do not say

	forgotten atomic.Uint64 // calls of forget, counted under mu
	encoded   atomic.Uint64
}

// frameRing holds two megabytes at most, if no message is larger than a piece,
// and their compressed form, which is smaller. If streams have got all of them,
// it holds as much again as events.
type frameRing struct {
	slots [32]frameSlot
	next  int
}

type frameKey struct {
	from, to history.Position
	first    uint64 // of the first entry: trimming by age may have removed entries after from
	whole    bool
}

type frameSlot struct {
	key   frameKey
	frame func() *shared
}

// get returns the frame of b. since is the value that forgotten had before b
// was read from the log.
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
	// The frame is encoded once, outside the lock. Only the viewers that get
	// this frame wait for it.
	frame := sync.OnceValue(func() *shared {
		c.encoded.Add(1)
		watching := 0
		if c.watching != nil {
			watching = c.watching()
		}
		s := encode(b, whole, watching)
		return &s
	})
	if since == c.forgotten.Load() { // else b may hold entries that were cleared meanwhile
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
