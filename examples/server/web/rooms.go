package web

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
)

// States of a listed room.
const (
	Live  = "live"      // there was a message just now
	Quiet = "roomQuiet" // there was one before
	Empty = "roomEmpty" // there is none
)

// Listed is a room in the list of rooms.
type Listed struct {
	Name    string   `json:"name"`
	State   string   `json:"state"`
	Percent *float64 `json:"percent,omitempty"` // of the memory; nil if it is not known
	Life    int      `json:"life,omitempty"`    // from 1; 0 if it is not known
}

// Room returns the page of a room. Serve it at /r/NAME/ below the list. It shares
// the files of p.
func (p *Page) Room(name string) *Page {
	room := *p
	room.settings.Room = name
	return &room
}

// Rooms serves the list of rooms at "/", the same as JSON at "/rooms.json", and
// the parts of the page next to it. It is otherwise like [Page.Handler]. list
// returns the rooms, and is called for each request.
func (p *Page) Rooms(address func(*http.Request) string, list func() []Listed) http.Handler {
	files := p.Handler(address)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			files.ServeHTTP(w, r) // refuses it
			return
		}
		switch r.URL.Path {
		case "/":
			show(w, r, "rooms.html", listView{p.view(r, address(r)), list()})
		case "/rooms.json":
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			if r.Method == http.MethodGet {
				_ = json.NewEncoder(w).Encode(map[string][]Listed{"rooms": list()}) // fails only if the client is gone
			}
		default:
			files.ServeHTTP(w, r)
		}
	})
}

// listView is what the template of the list shows.
type listView struct {
	view
	Listed []Listed
}

// Figure returns the room's memory in words.
func (v listView) Figure(r Listed) string {
	if r.Percent == nil {
		return "–"
	}
	return v.Fill("percent", "n", v.Value(r))
}

// Value returns the memory in whole per cent.
func (listView) Value(r Listed) string {
	return strconv.Itoa(int(math.Round(max(0, min(*r.Percent, 100)))))
}

// LifeOf returns the room's life in words, or "".
func (v listView) LifeOf(r Listed) string {
	if r.Life == 0 {
		return ""
	}
	return v.Fill("life", "n", strconv.Itoa(r.Life))
}
