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
	Room        string     `json:"room,omitempty"` // empty without ROOMS
	Permissions []string   `json:"permissions"`
	Addr        netip.Addr `json:"addr"`
	TokenID     string     `json:"token_id,omitempty"`
	Since       time.Time  `json:"since"`
	EndsAt      time.Time  `json:"ends_at"`        // unless it is refreshed
	Node        string     `json:"node,omitempty"` // the server that has it, if several share an engine
}

// Family is a family of refresh tokens. A device gets each token in exchange
// for the one before it.
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

// Families are the families of refresh tokens that can still be refreshed.
type Families struct {
	Families   []Family `json:"families"`
	Unreadable string   `json:"unreadable,omitempty"` // why others could not be read
}

// Key is the usage of one key of the ring, in which the signing key is the
// first. It does not hold the secret.
type Key struct {
	Signs bool       `json:"signs"`
	Count uint64     `json:"count"`          // tokens accepted since the server has had the key
	Last  *time.Time `json:"last,omitempty"` // when the newest of them was accepted
}

func (c *Config) handleSessions(mux *http.ServeMux) {
	issuer := c.Authority.Issuer() // nil: there are no refresh tokens
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, r *http.Request) {
		list := []Session{}
		all, err := c.Authority.Gate().AllSessions(r.Context())
		if err != nil {
			http.Error(w, "The sessions of other servers cannot be read: "+err.Error(), http.StatusInternalServerError)
			return
		}
		for _, s := range all {
			list = append(list, Session{
				ID: s.ID, Device: s.Identity.Subject, Role: s.Identity.Role, Permissions: s.Identity.Permissions,
				Room: s.Peer.ID, Addr: s.Peer.Addr, TokenID: s.Identity.TokenID, Since: s.Since, EndsAt: s.EndsAt, Node: s.Node,
			})
		}
		answer(w, list)
	})
	mux.HandleFunc("DELETE /sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		ok, err := c.Authority.Gate().EndContext(r.Context(), r.PathValue("id"))
		found(w, "session "+r.PathValue("id"), ok, err)
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
		if time.Until(before) > time.Minute {
			http.Error(w, "before must not be more than a minute in the future: it would refuse tokens that are not made yet", http.StatusBadRequest)
			return
		}
		device := r.PathValue("device")
		force, err := flagged(r.URL.Query(), "force")
		if refused(w, err) {
			return
		}
		if !force && !c.Authority.Knows(r.Context(), device) {
			http.Error(w, fmt.Sprintf("No device %q is known: it is not in ALLOWED_DEVICE_ID, and has neither a session nor a family of refresh tokens. Force it (-force) to revoke its tokens all the same", device), http.StatusNotFound)
			return
		}
		done, err := c.Authority.Revoke(r.Context(), caller(r), device, before)
		if err != nil {
			// The sessions have ended; only writing the revocation failed.
			http.Error(w, fmt.Sprintf("Ended %d sessions and %d families of refresh tokens, but not all could be revoked: %v",
				done.Sessions, done.Families, err), http.StatusInternalServerError)
			return
		}
		answer(w, done)
	})
	mux.HandleFunc("DELETE /devices/{device}/revoke", func(w http.ResponseWriter, r *http.Request) {
		ok, err := c.Authority.Unrevoke(r.Context(), r.PathValue("device"))
		found(w, "revocation of device "+r.PathValue("device"), ok, err)
	})
	mux.HandleFunc("GET /families", func(w http.ResponseWriter, r *http.Request) {
		list := Families{Families: []Family{}}
		if issuer != nil {
			all, err := issuer.Families(r.Context())
			if err != nil {
				list.Unreadable = err.Error() // the other families can still be ended
			}
			for _, f := range all {
				list.Families = append(list.Families, Family{
					ID: f.ID, Device: f.Subject, Role: f.Role, Refreshes: f.Generation - 1,
					IssuedAt: f.IssuedAt, RotatedAt: f.RotatedAt, ValidUntil: f.ValidUntil, EndsAt: f.EndsAt,
				})
			}
		}
		answer(w, list)
	})
	mux.HandleFunc("DELETE /families/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if issuer == nil {
			found(w, "family "+id+" (without AUTH_DIR and REDIS_URL there are none)", false, nil)
			return
		}
		ok, err := issuer.RevokeFamily(r.Context(), id)
		found(w, "family "+id, ok, err)
	})
	mux.HandleFunc("POST /families/{id}/prolong", func(w http.ResponseWriter, r *http.Request) {
		id, ok, err := r.PathValue("id"), false, error(nil)
		if issuer != nil {
			_, ok, err = issuer.Prolong(r.Context(), id)
		}
		found(w, "family "+id+" that can still be refreshed", ok, err)
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
			http.Error(w, "The secrets are unchanged: "+err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// found answers 204 if ok, 404 with the name of what is missing if not, and 500
// if err is not nil.
func found(w http.ResponseWriter, name string, ok bool, err error) {
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !ok:
		http.Error(w, "There is no "+name, http.StatusNotFound)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// Sessions asks for the connections that may publish.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return get[[]Session](ctx, c, http.MethodGet, "/sessions")
}

// EndSession closes the session with an ID. Its token stays valid.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/sessions/"+url.PathEscape(id))
}

// Revoke revokes all tokens of a device that were issued before a time. If the
// time is zero, that is now.
func (c *Client) Revoke(ctx context.Context, device string, before time.Time, force bool) (authority.Revoked, error) {
	query := url.Values{}
	if !before.IsZero() {
		query.Set("before", before.Format(time.RFC3339Nano))
	}
	if force {
		query.Set("force", "true")
	}
	path := "/devices/" + url.PathEscape(device) + "/revoke?" + query.Encode()
	return get[authority.Revoked](ctx, c, http.MethodPost, path)
}

// Unrevoke takes back the revocations of a device.
func (c *Client) Unrevoke(ctx context.Context, device string) error {
	return c.do(ctx, http.MethodDelete, "/devices/"+url.PathEscape(device)+"/revoke")
}

// Families asks for the families of refresh tokens.
func (c *Client) Families(ctx context.Context) (Families, error) {
	return get[Families](ctx, c, http.MethodGet, "/families")
}

// EndFamily ends the family with an ID, and revokes the access tokens of its
// device that were issued until now.
func (c *Client) EndFamily(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/families/"+url.PathEscape(id))
}

// ProlongFamily lets a family be refreshed as long as a new one.
func (c *Client) ProlongFamily(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, "/families/"+url.PathEscape(id)+"/prolong")
}

// Keys asks for the usage of the keys.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	return get[[]Key](ctx, c, http.MethodGet, "/keys")
}

// Reload makes the server read the secrets again, as SIGHUP does.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/keys/reload")
}
