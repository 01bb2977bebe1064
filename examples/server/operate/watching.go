package operate

import (
	"context"
	"net/http"
)

// Watching is how many connections watch.
type Watching struct {
	Here  int            `json:"here"` // on this server
	All   int            `json:"all"`  // on all servers that share an engine, as of some seconds ago
	Rooms []RoomWatching `json:"rooms,omitempty"`
}

// RoomWatching is how many connections watch a room.
type RoomWatching struct {
	Room string `json:"room"`
	Here int    `json:"here"`
	All  int    `json:"all"`
}

func (c *Config) handleWatching(mux *http.ServeMux) {
	mux.HandleFunc("GET /watching", func(w http.ResponseWriter, _ *http.Request) {
		rooms := c.History.Rooms
		n := Watching{Here: rooms.Here(), All: rooms.Watching()}
		if rooms.Named() {
			for _, r := range rooms.All() {
				n.Rooms = append(n.Rooms, RoomWatching{r.Name, r.Relay().Watching(), r.Watching()})
			}
		}
		answer(w, n)
	})
}

// Watching asks how many watch.
func (c *Client) Watching(ctx context.Context) (Watching, error) {
	return get[Watching](ctx, c, http.MethodGet, "/watching")
}
