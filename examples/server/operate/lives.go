package operate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/relayguard/relayguard/examples/server/lives"
)

func (c *Config) handleLives(mux *http.ServeMux) {
	keeping := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if c.Lives == nil {
				http.Error(w, "This server keeps no lives: LIVES_DIR is not set", http.StatusNotFound)
				return
			}
			next(w, r)
		}
	}
	mux.HandleFunc("GET /lives", keeping(func(w http.ResponseWriter, r *http.Request) {
		if query := r.URL.Query(); query.Has("room") {
			answer(w, c.Lives.List(query.Get("room")))
			return
		}
		answer(w, c.Lives.All())
	}))
	mux.HandleFunc("DELETE /lives/{id}", keeping(func(w http.ResponseWriter, r *http.Request) {
		err := c.Lives.Erase(r.PathValue("id"))
		ok := !errors.Is(err, lives.ErrNotFound)
		if !ok {
			err = nil
		}
		found(w, "life "+strconv.Quote(r.PathValue("id"))+": `server lives` lists them", ok, err)
	}))
	mux.HandleFunc("DELETE /lives", keeping(func(w http.ResponseWriter, _ *http.Request) {
		_, err := c.Lives.EraseAll()
		found(w, "lives", true, err)
	}))
}

// Lives asks for the lives that are kept: of the room of c, or of all rooms if
// that is empty.
func (c *Client) Lives(ctx context.Context) ([]lives.Life, error) {
	return get[[]lives.Life](ctx, c, http.MethodGet, c.inRoom("/lives"))
}

// EraseLife erases one life.
func (c *Client) EraseLife(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/lives/"+url.PathEscape(id))
}

// EraseLives erases all lives that are kept.
func (c *Client) EraseLives(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/lives")
}
