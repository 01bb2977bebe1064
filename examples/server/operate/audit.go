package operate

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/examples/server/trail"
)

func (c *Config) handleAudit(mux *http.ServeMux) {
	mux.HandleFunc("GET /audit", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		n := 100
		var since time.Time
		var err error
		if text := query.Get("n"); text != "" {
			if n, err = strconv.Atoi(text); err != nil || n < 0 || n > trail.Length {
				http.Error(w, "n must be a number up to "+strconv.Itoa(trail.Length), http.StatusBadRequest)
				return
			}
		}
		if text := query.Get("since"); text != "" {
			if since, err = time.Parse(time.RFC3339, text); err != nil {
				http.Error(w, "since must be a time like 2026-11-24T18:00:00Z", http.StatusBadRequest)
				return
			}
			if query.Get("n") == "" {
				n = trail.Length
			}
		}
		followed, err := flagged(query, "follow")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		entries, last := c.Trail.Newest(n, since)
		if !followed {
			answer(w, append([]trail.Entry{}, entries...))
			return
		}
		leave, ok := c.Trail.Follow()
		if !ok {
			http.Error(w, strconv.Itoa(trail.MaxFollowers)+" are following already", http.StatusServiceUnavailable)
			return
		}
		defer leave()
		c.follow(w, r, entries, last)
	})
}

// heartbeat is how soon a follower that is gone is found out.
const heartbeat = 30 * time.Second

// follow writes entries and all that come after last, one a line, until the reader
// leaves or the server stops.
func (c *Config) follow(w http.ResponseWriter, r *http.Request, entries []trail.Entry, last uint64) {
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
		if control.Flush() != nil || c.Trail.Closed() {
			return
		}
		var changed <-chan struct{}
		if entries, changed = c.Trail.After(last); len(entries) > 0 {
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
