package relay

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// cursor is where a viewer begins.
type cursor struct {
	reader *history.Reader
	fresh  bool // there is a history to show
}

// cursor goes on where the client says that it was. A position that cannot be read
// counts as none: the client then gets the history, which is right in every case.
func (r *Relay) cursor(req *http.Request) cursor {
	since, err := history.ParsePosition(req.URL.Query().Get("since"))
	if err != nil {
		since = history.Oldest
	}
	return cursor{
		reader: r.cfg.Log.Reader(since),
		fresh:  since == history.Oldest && r.cfg.Log.Len() > 0,
	}
}

// view sends conn all that the log holds behind the cursor, and then all that
// comes, until ctx or the connection ends.
func (r *Relay) view(ctx context.Context, conn *wsconn.Conn, from cursor) error {
	for first := true; ; first = false {
		batch, err := from.reader.Next(ctx)
		if err != nil {
			return err
		}
		// A position that is not of this epoch, or of another server's log, says nothing
		// about what the client shows.
		whole := first && (from.fresh || batch.Reset)
		if err := conn.WriteFrame(r.frames.get(batch, whole)); err != nil {
			return err
		}
		r.counts.wrote(batch, whole)
	}
}

// frame lays out a batch for viewers. With fresh, or where the batch does not
// continue what the viewer shows, the frame replaces it.
func frame(b history.Batch, fresh bool) []byte {
	messages := make([][]byte, 0, len(b.Entries)+1)
	kind := wire.Live
	switch {
	case b.Reset && b.Note != nil && !fresh:
		// The note is the restart signal. It clears the viewer's page, so what
		// follows it is appended.
		if leads(b, fresh) {
			messages = append(messages, Shown(b.Note))
		}
	case fresh, b.Reset, b.Missed > 0:
		kind = wire.History
	}
	for _, e := range b.Entries {
		messages = append(messages, Shown(e.Data))
	}
	return wire.Frame(kind, b.To.String(), messages...)
}

// leads reports whether the note of b is a message of its own before the entries.
// Where the restart signal is kept, it is the first entry too.
func leads(b history.Batch, fresh bool) bool {
	return b.Reset && b.Note != nil && !fresh && (len(b.Entries) == 0 || !bytes.Equal(b.Entries[0].Data, b.Note))
}

// frameCache shares one encoded frame among all viewers that moved from the same
// position to the same position. Viewers that keep up ask for the same frame within
// moments of each other, so it remembers only the newest few; of whole histories,
// which may be large, only the newest.
type frameCache struct {
	mu     sync.Mutex
	live   [16]frameSlot
	next   int
	joined frameSlot

	encoded atomic.Uint64
}

type frameKey struct {
	from, to history.Position
	fresh    bool
}

type frameSlot struct {
	key   frameKey
	frame func() *wsconn.Frame
}

func (c *frameCache) get(b history.Batch, fresh bool) *wsconn.Frame {
	return c.slot(b, fresh).frame()
}

func (c *frameCache) slot(b history.Batch, fresh bool) frameSlot {
	key := frameKey{from: b.From, to: b.To, fresh: fresh}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range append(c.live[:], c.joined) {
		if s.frame != nil && s.key == key {
			return s
		}
	}
	// Encoding happens outside the lock, once; others at the same cursor wait for
	// that one and nobody else does.
	s := frameSlot{key, sync.OnceValue(func() *wsconn.Frame {
		c.encoded.Add(1)
		return wsconn.NewFrame(frame(b, fresh))
	})}
	if fresh || b.Reset || b.Missed > 0 {
		c.joined = s
		return s
	}
	c.live[c.next] = s
	c.next = (c.next + 1) % len(c.live)
	return s
}

// forget drops all frames.
func (c *frameCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.live[:])
	c.joined = frameSlot{}
}
