package operate

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// What an [Entry] may be about.
const (
	KindAuth       = "auth"       // of the audit: Outcome is the event's kind
	KindRefused    = "refused"    // a connection over a limit, thinned as in the log: Outcome is the reason
	KindSuspicious = "suspicious" // see package suspect: Outcome is its kind
	KindBlock      = "block"      // Outcome is operator, penalty or lifted
	KindMissed     = "missed"     // a follower was too slow: Count entries are not among what it gets
)

// Entry is one line of the trail. It never holds a token.
type Entry struct {
	Seq       uint64     `json:"seq,omitempty"` // in the order in which they happened
	Time      time.Time  `json:"time"`
	Kind      string     `json:"kind"`
	Outcome   string     `json:"outcome,omitempty"`
	Addr      string     `json:"addr,omitempty"` // or a network
	Reason    string     `json:"reason,omitempty"`
	Device    string     `json:"device,omitempty"`
	TokenID   string     `json:"token_id,omitempty"`
	KeyID     string     `json:"key_id,omitempty"`
	SessionID string     `json:"session_id,omitempty"`
	Until     *time.Time `json:"until,omitempty"` // the right, or the block
	Count     uint64     `json:"count,omitempty"`
	Detail    string     `json:"detail,omitempty"` // quotes a stranger
}

// FromEvent is the entry of an event of the audit.
func FromEvent(e wsauth.Event) Entry {
	entry := Entry{
		Time: e.Time, Kind: KindAuth, Outcome: string(e.Kind), Addr: e.Peer.Addr.String(), Reason: string(e.Reason),
		Device: e.Device, TokenID: e.TokenID, KeyID: e.KeyID, SessionID: e.SessionID, Detail: e.Detail,
	}
	if !e.ExpiresAt.IsZero() {
		entry.Until = &e.ExpiresAt
	}
	return entry
}

// Bounds of a trail.
const (
	TrailLength  = 1000 // entries kept
	maxFollowers = 8
	maxField     = 256 // bytes of what a stranger may have chosen

	heartbeat = 30 * time.Second // a follower that is gone is found out by then
)

// Trail keeps the newest entries in memory, for whoever has no log at hand. It is
// safe for concurrent use.
type Trail struct {
	mu        sync.Mutex
	ring      [TrailLength]Entry
	last      uint64 // Seq of the newest; 0 is none
	changed   chan struct{}
	closed    bool
	followers int
}

// NewTrail returns an empty one.
func NewTrail() *Trail { return &Trail{changed: make(chan struct{})} }

// Add appends e, and gives it its Seq.
func (t *Trail) Add(e Entry) {
	for _, field := range []*string{&e.Addr, &e.Device, &e.TokenID, &e.KeyID, &e.SessionID, &e.Detail} {
		if len(*field) > maxField {
			*field = strings.Clone(strings.ToValidUTF8((*field)[:maxField], "")) + "…"
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	e.Seq = t.last
	t.ring[e.Seq%TrailLength] = e
	if !t.closed {
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// After returns the entries after seq, as far as they are kept, and a channel that
// is closed when there are more, or no more will come. Where some are kept no more,
// the first entry says how many.
func (t *Trail) After(seq uint64) (entries []Entry, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := uint64(1)
	if t.last > TrailLength {
		first = t.last - TrailLength + 1
	}
	if seq+1 < first {
		entries = append(entries, Entry{Time: time.Now(), Kind: KindMissed, Count: first - seq - 1})
		seq = first - 1
	}
	for seq < t.last {
		seq++
		entries = append(entries, t.ring[seq%TrailLength])
	}
	return entries, t.changed
}

// Newest returns the newest n entries of those since a time, oldest first, and the
// Seq after which to go on.
func (t *Trail) Newest(n int, since time.Time) (entries []Entry, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seq := t.last - min(t.last, uint64(min(n, TrailLength)))
	for seq < t.last {
		seq++
		if e := t.ring[seq%TrailLength]; !e.Time.Before(since) {
			entries = append(entries, e)
		}
	}
	return entries, t.last
}

// Close ends every follower, now and later.
func (t *Trail) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.changed)
	}
}

func (t *Trail) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Followers returns how many follow now.
func (t *Trail) Followers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.followers
}

// follow takes a follower's place, if there is one.
func (t *Trail) follow() (leave func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers == maxFollowers {
		return nil, false
	}
	t.followers++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.followers--
	}, true
}

func (c *Config) handleTrail(mux *http.ServeMux) {
	mux.HandleFunc("GET /audit", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		n := 100
		var since time.Time
		var err error
		if text := query.Get("n"); text != "" {
			if n, err = strconv.Atoi(text); err != nil || n < 0 || n > TrailLength {
				http.Error(w, "n must be a number up to "+strconv.Itoa(TrailLength), http.StatusBadRequest)
				return
			}
		}
		if text := query.Get("since"); text != "" {
			if since, err = time.Parse(time.RFC3339, text); err != nil {
				http.Error(w, "since must be a time like 2026-11-24T18:00:00Z", http.StatusBadRequest)
				return
			}
			if query.Get("n") == "" {
				n = TrailLength
			}
		}
		follow, err := flagged(query, "follow")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		entries, last := c.Trail.Newest(n, since)
		if !follow {
			answer(w, append([]Entry{}, entries...))
			return
		}
		leave, ok := c.Trail.follow()
		if !ok {
			http.Error(w, strconv.Itoa(maxFollowers)+" are following already", http.StatusServiceUnavailable)
			return
		}
		defer leave()
		c.Trail.serve(w, r, entries, last)
	})
}

// serve writes entries and all that come after last, one a line, until the reader
// leaves or the server stops.
func (t *Trail) serve(w http.ResponseWriter, r *http.Request, entries []Entry, last uint64) {
	control := http.NewResponseController(w)
	// Following takes any time. What is read from now on is only whether the reader is
	// still there.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Cache-Control", "no-store")
	out := unhurriedWriter{w, control}
	enc := json.NewEncoder(out)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		for _, e := range entries {
			if enc.Encode(e) != nil {
				return
			}
			last = max(last, e.Seq)
		}
		if control.Flush() != nil || t.isClosed() {
			return
		}
		var changed <-chan struct{}
		if entries, changed = t.After(last); len(entries) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-beat.C:
			if _, err := io.WriteString(out, "\n"); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}
