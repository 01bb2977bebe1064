package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// Session is a connection that may publish.
type Session struct {
	ID          string     `json:"id"`
	Device      string     `json:"device"`
	Role        string     `json:"role"`
	Permissions []string   `json:"permissions"`
	Addr        netip.Addr `json:"addr"`
	TokenID     string     `json:"token_id,omitempty"`
	Since       time.Time  `json:"since"`
	EndsAt      time.Time  `json:"ends_at"` // unless it is refreshed
}

// Family is a line of refresh tokens, each got for the one before.
type Family struct {
	ID         string    `json:"id"`
	Device     string    `json:"device"`
	Role       string    `json:"role,omitempty"`
	Refreshes  uint64    `json:"refreshes"`
	IssuedAt   time.Time `json:"issued_at"`
	RotatedAt  time.Time `json:"rotated_at"`
	ValidUntil time.Time `json:"valid_until"` // unless it is refreshed
	EndsAt     time.Time `json:"ends_at"`
}

// Families are the lines that can still be refreshed.
type Families struct {
	Families   []Family `json:"families"`
	Unreadable string   `json:"unreadable,omitempty"` // why others could not be read
}

// Key is one of the ring, the signing one first. It says nothing of the secret.
type Key struct {
	Signs bool       `json:"signs"`
	Count uint64     `json:"count"`          // tokens accepted since the server knows the key
	Last  *time.Time `json:"last,omitempty"` // when the last one was
}

// Revoked is what a revocation has ended.
type Revoked struct {
	Device   string    `json:"device"`
	Before   time.Time `json:"before"`   // later than asked for where a line of refresh tokens ended
	Sessions int       `json:"sessions"` // that lost their right
	Families int       `json:"families"` // of refresh tokens
	Lasting  bool      `json:"lasting"`  // also over a restart of the server
}

// RevokeFunc makes all tokens of a device that were issued before a time worthless.
type RevokeFunc func(ctx context.Context, device string, before time.Time) (Revoked, error)

func (c *Config) handleSessions(mux *http.ServeMux) {
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, _ *http.Request) {
		list := []Session{}
		for _, s := range c.Gate.Sessions() {
			list = append(list, Session{
				ID: s.ID, Device: s.Identity.Device, Role: s.Identity.Role, Permissions: s.Identity.Permissions,
				Addr: s.Peer.Addr, TokenID: s.Identity.TokenID, Since: s.Since, EndsAt: s.EndsAt,
			})
		}
		answer(w, list)
	})
	mux.HandleFunc("DELETE /sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		found(w, c.Gate.End(r.PathValue("id")), nil)
	})
	mux.HandleFunc("POST /devices/{device}/revoke", func(w http.ResponseWriter, r *http.Request) {
		before := time.Now()
		if text := r.URL.Query().Get("before"); text != "" {
			var err error
			if before, err = time.Parse(time.RFC3339, text); err != nil || before.UTC().Year() > 9999 {
				http.Error(w, "before must be a time like 2026-11-24T18:00:00Z", http.StatusBadRequest)
				return
			}
		}
		done, err := c.Revoke(r.Context(), r.PathValue("device"), before)
		if err != nil {
			// The sessions are ended all the same; what failed is to make it last.
			http.Error(w, fmt.Sprintf("Ended %d sessions and %d lines of refresh tokens, but not all could be revoked: %v",
				done.Sessions, done.Families, err), http.StatusInternalServerError)
			return
		}
		answer(w, done)
	})
	mux.HandleFunc("GET /families", func(w http.ResponseWriter, r *http.Request) {
		list := Families{Families: []Family{}}
		if c.Issuer != nil {
			all, err := c.Issuer.Families(r.Context())
			if err != nil {
				list.Unreadable = err.Error() // the others can be ended all the same
			}
			for _, f := range all {
				list.Families = append(list.Families, Family{
					ID: f.ID, Device: f.Device, Role: f.Role, Refreshes: f.Generation - 1,
					IssuedAt: f.IssuedAt, RotatedAt: f.RotatedAt, ValidUntil: f.ValidUntil, EndsAt: f.EndsAt,
				})
			}
		}
		answer(w, list)
	})
	mux.HandleFunc("DELETE /families/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c.Issuer == nil {
			found(w, false, nil)
			return
		}
		ok, err := c.Issuer.RevokeFamily(r.Context(), r.PathValue("id"))
		found(w, ok, err)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		list := []Key{}
		for i, k := range c.Keys() {
			key := Key{Signs: i == 0, Count: k.Count}
			if !k.Last.IsZero() {
				key.Last = &k.Last
			}
			list = append(list, key)
		}
		answer(w, list)
	})
	mux.HandleFunc("POST /keys/reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := c.Reload(); err != nil {
			http.Error(w, "The secrets stay as they were: "+err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func found(w http.ResponseWriter, ok bool, err error) {
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !ok:
		http.Error(w, "Not found", http.StatusNotFound)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
