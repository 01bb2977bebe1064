package operate

import (
	"context"
	"net/http"
)

// Watching is how many connections watch.
type Watching struct {
	Here int `json:"here"` // on this server
	All  int `json:"all"`  // on all servers that share an engine, as of some seconds ago
}

func (c *Config) handleWatching(mux *http.ServeMux) {
	mux.HandleFunc("GET /watching", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, Watching{c.History.Relay.Watching(), c.Watching()})
	})
}

// Watching asks how many watch.
func (c *Client) Watching(ctx context.Context) (Watching, error) {
	return get[Watching](ctx, c, http.MethodGet, "/watching")
}
