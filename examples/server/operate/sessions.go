package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
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

func (c *Config) handleSessions(mux *http.ServeMux) {
	issuer := c.Authority.Issuer() // nil: there are no refresh tokens
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, _ *http.Request) {
		list := []Session{}
		for _, s := range c.Authority.Gate().Sessions() {
			list = append(list, Session{
				ID: s.ID, Device: s.Identity.Device, Role: s.Identity.Role, Permissions: s.Identity.Permissions,
				Addr: s.Peer.Addr, TokenID: s.Identity.TokenID, Since: s.Since, EndsAt: s.EndsAt,
			})
		}
		answer(w, list)
	})
	mux.HandleFunc("DELETE /sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		found(w, c.Authority.Gate().End(r.PathValue("id")), nil)
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
		done, err := c.Authority.Revoke(r.Context(), r.PathValue("device"), before)
		if err != nil {
			// The sessions are ended all the same; what failed is to make it
			// last.
			http.Error(w, fmt.Sprintf("Ended %d sessions and %d lines of refresh tokens, but not all could be revoked: %v",
				done.Sessions, done.Families, err), http.StatusInternalServerError)
			return
		}
		answer(w, done)
	})
	mux.HandleFunc("GET /families", func(w http.ResponseWriter, r *http.Request) {
		list := Families{Families: []Family{}}
		if issuer != nil {
			all, err := issuer.Families(r.Context())
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
		if issuer == nil {
			found(w, false, nil)
			return
		}
		ok, err := issuer.RevokeFamily(r.Context(), r.PathValue("id"))
		found(w, ok, err)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		list := []Key{}
		for i, k := range c.Authority.KeyUsage() {
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

// Sessions asks for the connections that may publish.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return get[[]Session](ctx, c, http.MethodGet, "/sessions")
}

// EndSession closes one of them. Its token stays valid.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/sessions/"+url.PathEscape(id))
}

// Revoke revokes all tokens of a device that were issued before a time; the
// zero time is now.
func (c *Client) Revoke(ctx context.Context, device string, before time.Time) (authority.Revoked, error) {
	path := "/devices/" + url.PathEscape(device) + "/revoke"
	if !before.IsZero() {
		path += "?before=" + url.QueryEscape(before.Format(time.RFC3339Nano))
	}
	return get[authority.Revoked](ctx, c, http.MethodPost, path)
}

// Families asks for the families of refresh tokens.
func (c *Client) Families(ctx context.Context) (Families, error) {
	return get[Families](ctx, c, http.MethodGet, "/families")
}

// EndFamily ends one of them, and the sessions of its device's tokens until
// now.
func (c *Client) EndFamily(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/families/"+url.PathEscape(id))
}

// Keys asks for the ring of keys.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	return get[[]Key](ctx, c, http.MethodGet, "/keys")
}

// Reload has the secrets read again, as SIGHUP does.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/keys/reload")
}
