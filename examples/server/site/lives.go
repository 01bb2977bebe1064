package site

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/rooms"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/ratelimit"
)

// openLives opens the store of LIVES_DIR, if that is set. A disk that fails
// later does not end the relay: the life is lost, and the log and a metric say
// so.
func (s *Site) openLives() (err error) {
	if s.Lives, err = s.cfg.OpenLives(s.log); s.Lives == nil || err != nil {
		return err
	}
	s.page = s.page.KeepingLives()
	s.log.Info("lives that end are kept", "dir", s.cfg.LivesDir, "lives", s.Lives.Stats().Lives)
	return nil
}

// recorded returns what the relay of a room does with lives.
func (s *Site) recorded(room string) relay.Lives {
	if s.Lives == nil {
		return relay.Lives{}
	}
	keep := func(r lives.Recording) {
		r.Room = room
		s.Lives.Keep(r)
	}
	return relay.Lives{Ended: keep, MaxBytes: s.cfg.LivesMaxBytes, Shared: s.engine != nil}
}

// recordLives records and keeps the lives of all rooms until [Site.endLives].
// [Site.closeLives] waits until what has ended is on the disk.
func (s *Site) recordLives() {
	if s.Lives == nil {
		return
	}
	var looking context.Context
	looking, s.endLives = context.WithCancel(context.Background())
	keeping, stop := context.WithCancel(context.Background())
	s.recording.Go(func() { s.Lives.Run(keeping) })
	var recording sync.WaitGroup
	for _, r := range s.Rooms.All() {
		recording.Go(func() { r.Relay().Record(looking) })
	}
	s.recording.Go(func() {
		recording.Wait()
		stop()
	})
}

func (s *Site) closeLives() error {
	if s.Lives == nil {
		return nil
	}
	s.endLives()
	s.recording.Wait()
	return s.Lives.Close()
}

// livesName is the list of the lives of a room, beside its page. A life is at
// livesName/ID, and its frames are at livesName/ID.jsonl.
const (
	livesName  = "lives"
	framesName = ".jsonl"
)

// pageOf returns where the page of a room is.
func pageOf(r *rooms.Room) string {
	if r.Name == "" {
		return "/"
	}
	return "/r/" + r.Name + "/"
}

// The bounds on reading lives. A reader takes a quarter of a megabyte, and
// readSlots of them at a time are served. The slowest has readWait for a life.
const (
	readSlots = 256
	readWait  = 10 * time.Minute
)

// handleLives adds the pages of the lives that are kept, if they are. Reading
// the frames of a life counts as a stream of events: it holds a slot of the
// limiter.
func (s *Site) handleLives(pages *http.ServeMux) error {
	if s.Lives == nil {
		return nil
	}
	secure, err := s.pagePolicy()
	if err != nil {
		return err
	}
	slots := make(chan struct{}, readSlots)
	for _, r := range s.Rooms.All() {
		s.roomLives(pages, secure, slots, r)
	}
	return nil
}

func (s *Site) roomLives(pages *http.ServeMux, secure *headers.Middleware, slots chan struct{}, room *rooms.Room) {
	page := s.page.Room(room.Name)
	pages.Handle(pageOf(room)+livesName, s.admitted(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		list := s.Lives.List(room.Name)
		if strings.Contains(r.Header.Get("Accept"), "application/json") {
			listLives(w, r, list)
			return
		}
		secure.Handler(page.ListHandler(list)).ServeHTTP(w, r)
	})))
	frames := s.Watch.Limiter().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			s.lifeFrames(w, r, room)
		default:
			w.Header().Set("Retry-After", "5")
			http.Error(w, "Too many lives are read now", http.StatusServiceUnavailable)
		}
	}))
	one := s.admitted(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		life, ok := s.life(room, r.PathValue("life"))
		if !ok {
			http.Error(w, "Not found", http.StatusNotFound)
			return
		}
		secure.Handler(page.LifeHandler(life)).ServeHTTP(w, r)
	}))
	pages.HandleFunc(pageOf(room)+livesName+"/{life}", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasSuffix(r.PathValue("life"), framesName):
			one.ServeHTTP(w, r)
		case onlyRead(w, r):
		case foreign(r):
			http.Error(w, "Forbidden", http.StatusForbidden)
		default:
			frames.ServeHTTP(w, r)
		}
	})
}

// life returns a life of a room. One that cannot be read may be of any room.
func (s *Site) life(room *rooms.Room, id string) (lives.Life, bool) {
	life, err := s.Lives.Find(id)
	return life, err == nil && (life.Room == room.Name || life.Unreadable)
}

// pagePolicy returns the middleware of pages for visitors.
func (s *Site) pagePolicy() (*headers.Middleware, error) {
	return s.secure.With(func(p *headers.Policy) {
		s.page.Policy(p)
		web.EmbedIn(p, s.cfg.EmbedOrigins)
	})
}

// admitted refuses a client that could open no connection now, and counts
// nothing.
func (s *Site) admitted(next http.Handler) http.Handler {
	limiter := s.Watch.Limiter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if onlyRead(w, r) {
			return
		}
		if d := limiter.Check(ratelimit.Key{Addr: s.clients.Addr(r)}); !d.Allowed {
			limiter.Refuse(w, r, d)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// onlyRead answers a request that does not read, and reports whether it did.
func onlyRead(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return false
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
	return true
}

// foreign reports whether a page of another site made the browser ask. It must
// not cost the visitor's address a slot.
func foreign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

func listLives(w http.ResponseWriter, r *http.Request, list []lives.Life) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet {
		_ = json.NewEncoder(w).Encode(map[string]any{"lives": list}) // fails only if the client is gone
	}
}

// lifeFrames writes the frames of a life, a line each: a history frame, live
// frames, and {"end":true}. Each frame has one message, with its time. The
// connection is cut if the life turns out to be damaged, or is erased.
func (s *Site) lifeFrames(w http.ResponseWriter, r *http.Request, room *rooms.Room) {
	id := strings.TrimSuffix(r.PathValue("life"), framesName)
	life, ok := s.life(room, id)
	switch {
	case !ok:
		http.Error(w, "Not found", http.StatusNotFound)
		return
	case life.Unreadable:
		http.Error(w, "This life cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readWait)
	defer cancel()
	out := bufio.NewWriterSize(operate.Unhurried(w), 32<<10)
	kind := wire.History
	err := s.Lives.Read(ctx, id, func(e history.Entry) error {
		_, err := out.Write(append(wire.Frame(kind, "", e.Data), '\n'))
		kind = wire.Live
		return err
	})
	if err == nil {
		_, _ = out.WriteString(`{"end":true}` + "\n")
		err = out.Flush()
	}
	if err != nil {
		// The store has logged that it is damaged.
		panic(http.ErrAbortHandler) // cut the connection, or the life would look complete
	}
}
