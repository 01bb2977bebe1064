// Package trail keeps the newest security events in memory, for an operator
// without access to the log.
package trail

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Kind is the kind of event that an [Entry] reports. The set is closed.
type Kind string

// Kinds.
const (
	KindAuth       Kind = "auth"       // an event of the audit: Outcome is its kind
	KindRefused    Kind = "refused"    // refused connections, as often as in the log: Outcome is the reason
	KindSuspicious Kind = "suspicious" // see package suspect: Outcome is its kind
	KindBlock      Kind = "block"      // Outcome is operator, penalty or lifted
	KindOperator   Kind = "operator"   // a call on the operator's listener: Outcome is done, failed or refused, Device the caller
	KindMissed     Kind = "missed"     // a follower was too slow: it does not get Count entries
)

// Entry is one line of the trail. It never holds a token.
type Entry struct {
	Seq       uint64     `json:"seq,omitempty"` // counts up in the order of the events
	Time      time.Time  `json:"time"`
	Kind      Kind       `json:"kind"`
	Outcome   string     `json:"outcome,omitempty"`
	Addr      string     `json:"addr,omitempty"` // or a network
	Reason    string     `json:"reason,omitempty"`
	Device    string     `json:"device,omitempty"`
	TokenID   string     `json:"token_id,omitempty"`
	KeyID     string     `json:"key_id,omitempty"`
	SessionID string     `json:"session_id,omitempty"`
	Room      string     `json:"room,omitempty"`  // of the session
	Until     *time.Time `json:"until,omitempty"` // end of the permission, or of the block
	Count     uint64     `json:"count,omitempty"`
	Detail    string     `json:"detail,omitempty"` // may quote a stranger's text
}

// FromEvent returns the entry for an event of the audit.
func FromEvent(e wsauth.Event) Entry {
	entry := Entry{
		Time: e.Time, Kind: KindAuth, Outcome: string(e.Kind), Addr: e.Peer.Addr.String(), Reason: string(e.Reason),
		Device: e.Subject, TokenID: e.TokenID, KeyID: e.KeyID, SessionID: e.SessionID, Room: e.Peer.ID, Detail: e.Detail,
	}
	if !e.ExpiresAt.IsZero() {
		entry.Until = &e.ExpiresAt
	}
	return entry
}

// Bounds of a trail.
const (
	Length       = 1000 // entries kept
	MaxFollowers = 8
	maxField     = 256 // bytes of a text, which a stranger may have chosen
)

// Trail keeps the newest [Length] entries in memory. It is safe for concurrent
// use.
//
// Strangers can cause most of the entries, and no kind of entry may push out
// the others. So if the trail is full, the next entry takes the place of the
// oldest of the kind that has most. Authentication events are three kinds here:
// refused tokens, foreign origins, and the others, which need a valid token. At
// least the newest hundred of each kind are kept.
type Trail struct {
	mu        sync.Mutex
	rings     [rings][]Entry // by the ring of an entry; each in the order of Seq
	kept      int            // entries in all rings
	last      uint64         // Seq of the newest entry; 0 if there is none
	changed   chan struct{}
	closed    bool
	followers int
}

// rings is the number of values of [Entry.ring].
const rings = 8

// ring returns the number of the kind with which e shares its room.
func (e *Entry) ring() int {
	switch e.Kind {
	case KindAuth:
		switch wsauth.EventKind(e.Outcome) {
		case wsauth.EventRefused, wsauth.EventPairRefused:
			return 1
		case wsauth.EventOriginRefused:
			return 2
		}
		return 3
	case KindRefused:
		return 4
	case KindSuspicious:
		return 5
	case KindBlock:
		return 6
	case KindOperator:
		return 7
	}
	return 0
}

// New returns an empty trail.
func New() *Trail { return &Trail{changed: make(chan struct{})} }

// Add appends e, and sets its Seq. It cuts long texts.
func (t *Trail) Add(e Entry) {
	for _, field := range []*string{&e.Outcome, &e.Addr, &e.Reason, &e.Device, &e.TokenID, &e.KeyID, &e.SessionID, &e.Detail} {
		if len(*field) > maxField {
			*field = strings.Clone(strings.ToValidUTF8((*field)[:maxField], "")) + "…"
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	e.Seq = t.last
	ring := &t.rings[e.ring()]
	*ring = append(*ring, e)
	if t.kept++; t.kept > Length {
		most := &t.rings[0]
		for i := range t.rings {
			if len(t.rings[i]) > len(*most) {
				most = &t.rings[i]
			}
		}
		(*most)[0] = Entry{} // releases its texts
		*most = (*most)[1:]
		t.kept--
	}
	if !t.closed {
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// after returns the kept entries after seq in the order of Seq. The caller
// holds the lock.
func (t *Trail) after(seq uint64) (entries []Entry) {
	for _, ring := range t.rings {
		first := sort.Search(len(ring), func(i int) bool { return ring[i].Seq > seq })
		entries = append(entries, ring[first:]...)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return entries
}

// After returns the entries after seq that are still kept, and a channel. The
// channel is closed when there are more entries, or when the trail is closed.
// If some entries after seq are no longer kept, the first entry is a
// [KindMissed] with their number.
func (t *Trail) After(seq uint64) (entries []Entry, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries = t.after(seq)
	if seq < t.last {
		if missed := t.last - seq - uint64(len(entries)); missed > 0 {
			entries = slices.Insert(entries, 0, Entry{Time: time.Now(), Kind: KindMissed, Count: missed})
		}
	}
	return entries, t.changed
}

// Newest returns those of the newest n entries that are not older than since,
// oldest first. last is the Seq of the newest entry: pass it to [Trail.After]
// to get the entries that follow.
func (t *Trail) Newest(n int, since time.Time) (entries []Entry, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries = t.after(0)
	entries = entries[max(len(entries)-max(n, 0), 0):]
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Time.Before(since) })
	return entries, t.last
}

// Close ends all followers, present and future.
func (t *Trail) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.changed)
	}
}

// Closed reports whether Close was called.
func (t *Trail) Closed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Followers returns how many places of [MaxFollowers] are taken.
func (t *Trail) Followers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.followers
}

// Follow takes one of the [MaxFollowers] places, and reports whether one was
// free. If ok, the caller must call leave to give the place back.
func (t *Trail) Follow() (leave func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers == MaxFollowers {
		return nil, false
	}
	t.followers++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.followers--
	}, true
}
