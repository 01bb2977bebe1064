package operate

import (
	"context"
	"net/http"
	"time"
)

// Held says that viewers are held.
type Held struct {
	Since time.Time     `json:"since"`
	Delay time.Duration `json:"delay_ns"` // BROADCAST_DELAY: they see what was published as long before
	// All reports that an engine tells it to the other servers, which know it
	// within the time that the hold's configuration says.
	All bool `json:"all"`
}

func (c *Config) handleHold(mux *http.ServeMux) {
	mux.HandleFunc("POST /hold", func(w http.ResponseWriter, r *http.Request) {
		since, err := c.Hold.Hold(r.Context())
		switch {
		case err != nil && since.IsZero():
			http.Error(w, "Viewers are not held: "+err.Error(), http.StatusInternalServerError)
		case err != nil:
			http.Error(w, "Viewers are held, but a restart of the server will release them: "+err.Error(), http.StatusInternalServerError)
		default:
			answer(w, Held{since, c.Delay, c.Hold.Shared()})
		}
	})
	mux.HandleFunc("DELETE /hold", func(w http.ResponseWriter, r *http.Request) {
		since, _ := c.Hold.Held()
		err := c.Hold.Release(r.Context()) // also if another server holds them since a moment
		found(w, "hold: viewers see what is published", !since.IsZero(), err)
	})
}

// Hold holds viewers: they see nothing more until Release.
func (c *Client) Hold(ctx context.Context) (Held, error) {
	return get[Held](ctx, c, http.MethodPost, "/hold")
}

// Release lets viewers see what was published since Hold and not erased.
func (c *Client) Release(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/hold")
}
