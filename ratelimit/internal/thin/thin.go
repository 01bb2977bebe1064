// Package thin thins out events for a log, without losing count of them.
package thin

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	atOnce  = 10  // events that are told at once
	maxKeys = 256 // that are counted one by one
	patient = 60  // periods after which a burst that goes on is told of
)

// Thinner tells of some events at once, and counts the others by key. A count
// is told with the next event of its key, or after the burst of its key has
// ended, which is two periods without an event.
//
// It tells of ten events at once, then of one in a period, and likewise of
// bursts that have ended. It counts 256 keys one by one, and others by a
// wider key. It has a timer while there are counts to tell, and nothing
// otherwise.
type Thinner[K comparable, V any] struct {
	every time.Duration
	tell  func(v V, left uint64)
	wider func(K) K
	keep  func(K, V) V

	mu           sync.Mutex
	events, ends *rate.Limiter
	bursts       map[K]*burst[V]
	ticking      bool
}

// burst is what was not told of one key.
type burst[V any] struct {
	one         V // of them
	count       uint64
	first, last time.Time
}

// New returns a Thinner that calls tell with an event, and with the number of
// events of the same key that it has left out since the call before. every is
// the period; if it is negative, all events are told.
//
// wider returns the key that stands for many keys, of which there must be few.
// keep returns what may be held of an event until its burst has ended, and told
// under the key.
func New[K comparable, V any](every time.Duration, tell func(v V, left uint64), wider func(K) K, keep func(K, V) V) *Thinner[K, V] {
	limit := rate.Inf
	if every > 0 {
		limit = rate.Every(every)
	}
	return &Thinner[K, V]{
		every: every, tell: tell, wider: wider, keep: keep, bursts: make(map[K]*burst[V]),
		events: rate.NewLimiter(limit, atOnce), ends: rate.NewLimiter(limit, atOnce),
	}
}

// Add tells of an event, or counts it. Any goroutine may call Add. It calls
// tell in its own.
func (t *Thinner[K, V]) Add(key K, v V) {
	now := time.Now()
	t.mu.Lock()
	b := t.bursts[key]
	if t.events.AllowN(now, 1) {
		var left uint64
		if b != nil {
			left = b.count
			delete(t.bursts, key)
		}
		t.mu.Unlock()
		t.tell(v, left)
		return
	}
	defer t.mu.Unlock()
	if b == nil && len(t.bursts) >= maxKeys {
		key = t.wider(key)
		b = t.bursts[key]
	}
	if b == nil {
		b = &burst[V]{one: t.keep(key, v), first: now}
		t.bursts[key] = b
	}
	b.count++
	b.last = now
	if !t.ticking {
		t.ticking = true
		time.AfterFunc(t.every, t.tick)
	}
}

// due reports whether the burst has ended, or has gone on for long.
func (t *Thinner[K, V]) due(b *burst[V], now time.Time) bool {
	return (now.Sub(b.last) >= 2*t.every || now.Sub(b.first) >= patient*t.every) && t.ends.AllowN(now, 1)
}

// tick tells of the bursts that have ended. It runs again after a period while
// there are others.
func (t *Thinner[K, V]) tick() {
	now := time.Now()
	var ended []burst[V]
	t.mu.Lock()
	for key, b := range t.bursts {
		if t.due(b, now) {
			ended = append(ended, *b)
			delete(t.bursts, key)
		}
	}
	if t.ticking = len(t.bursts) > 0; t.ticking {
		time.AfterFunc(t.every, t.tick)
	}
	t.mu.Unlock()
	for _, b := range ended {
		t.tell(b.one, b.count-1)
	}
}

// maxText is the number of bytes that are kept of each text of a request.
const maxText = 1 << 10

// Request returns what may be held of a request after its handler has returned:
// the rest would keep the buffers of the connection, or a large header, alive.
// The texts are cut to 1 KiB.
func Request(r *http.Request) *http.Request {
	kept := &http.Request{
		Method: clip(r.Method), Proto: clip(r.Proto), ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Host: clip(r.Host), RequestURI: clip(r.RequestURI), RemoteAddr: clip(r.RemoteAddr),
		URL: new(url.URL), Header: make(http.Header), Body: http.NoBody,
	}
	if u := r.URL; u != nil {
		*kept.URL = url.URL{
			Scheme: clip(u.Scheme), Opaque: clip(u.Opaque), Host: clip(u.Host),
			Path: clip(u.Path), RawPath: clip(u.RawPath), RawQuery: clip(u.RawQuery),
		}
	}
	return kept
}

// clip also copies a short text, which may be a part of a long one.
func clip(s string) string { return strings.Clone(s[:min(len(s), maxText)]) }
