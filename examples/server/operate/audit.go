package operate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
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
			http.Error(w, strconv.Itoa(trail.MaxFollowers)+" clients are following already", http.StatusServiceUnavailable)
			return
		}
		defer leave()
		c.follow(w, r, entries, last)
	})
}

// heartbeat is the interval of the empty lines to a follower. If the follower
// is gone, the next line fails.
const heartbeat = 30 * time.Second

// follow writes entries and then each entry after last, one a line, until the
// client leaves or the server stops.
func (c *Config) follow(w http.ResponseWriter, r *http.Request, entries []trail.Entry, last uint64) {
	control := http.NewResponseController(w)
	// Following has no time limit. From now on, the server reads only to notice
	// that the client is gone.
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

// Audit asks for the newest n events.
func (c *Client) Audit(ctx context.Context, n int) ([]trail.Entry, error) {
	return get[[]trail.Entry](ctx, c, http.MethodGet, "/audit?n="+strconv.Itoa(n))
}

// FollowAudit calls entry with the newest n events and then with each new one,
// until entry returns an error or the server stops. It always returns an error.
func (c *Client) FollowAudit(ctx context.Context, n int, entry func(trail.Entry) error) error {
	res, err := c.ask(ctx, http.MethodGet, "/audit?follow=true&n="+strconv.Itoa(n), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // a heartbeat
		}
		var e trail.Entry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			return errForeign
		}
		if err := entry(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the server has ended the stream of events, as it does when it stops")
}
