package site

import (
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/rooms"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/headers"
)

// madeAtOnce bounds the relays that are made at once. Each waits for the engine
// for a moment, and a thousand moments are a minute.
const madeAtOnce = 64

// openRooms makes the relay of every room.
func (s *Site) openRooms(cfg relay.Config) error {
	cfg.Leaving, cfg.Requesting = s.Rooms.Leaving, new(atomic.Int64)
	all := s.Rooms.All()
	made, errs := make([]*relay.Relay, len(all)), make([]error, len(all))
	slots := make(chan struct{}, madeAtOnce)
	var done sync.WaitGroup
	for i, r := range all {
		slots <- struct{}{}
		done.Go(func() {
			defer func() { <-slots }()
			made[i], errs[i] = s.openRoom(r, cfg)
		})
	}
	done.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	for i, r := range all {
		r.Serve(made[i])
	}
	if !s.Rooms.Named() {
		s.Relay = made[0]
	}
	return nil
}

// openRoom makes the relay of a room.
func (s *Site) openRoom(r *rooms.Room, cfg relay.Config) (*relay.Relay, error) {
	cfg.Room, cfg.Log, cfg.Lives = r.Name, r.Log, s.recorded(r.Name)
	if s.cfg.ShowWatching {
		cfg.Watching = r.Watching
	}
	if r.Name != "" {
		cfg.Logger, cfg.Thinned = cfg.Logger.With("room", r.Name), cfg.Thinned.With("room", r.Name)
	}
	return relay.New(cfg)
}

// roomPages serves the page of every room at /r/NAME/.
func (s *Site) roomPages(pages *http.ServeMux, secure *headers.Middleware) {
	for _, r := range s.Rooms.All() {
		at := "/r/" + r.Name
		files := http.StripPrefix(at, s.page.Room(r.Name).Handler(func(req *http.Request) string {
			if root := s.address(req); root != "" {
				return root + at[1:] + "/"
			}
			return ""
		}))
		pages.Handle(at+"/{$}", secure.Handler(files))
		pages.Handle(at+"/", files)
		pages.HandleFunc(at, func(w http.ResponseWriter, req *http.Request) {
			// http.Redirect would leave out the query, and the path below which a
			// proxy serves the site.
			to := url.URL{Path: r.Name + "/", RawQuery: req.URL.RawQuery}
			w.Header().Set("Location", to.String())
			w.WriteHeader(http.StatusPermanentRedirect)
		})
	}
}

const (
	listedFor   = time.Second      // that the list of rooms is as it was
	listedShare = 20               // of its time at most is for making the list
	liveFor     = 15 * time.Second // after a message, as on the page
)

// listed is the list of rooms as it was a moment ago, so that a stranger cannot
// make the server look at all rooms at every request. With BROADCAST_DELAY, a
// look takes as long as the histories are.
type listed struct {
	mu    sync.Mutex
	until time.Time
	list  []web.Listed
}

// rooms returns the func that lists all rooms.
func (l *listed) rooms(all *rooms.Rooms) func() []web.Listed {
	return func() []web.Listed {
		l.mu.Lock()
		defer l.mu.Unlock()
		if began := time.Now(); l.list == nil || began.After(l.until) {
			l.list = nil
			for _, r := range all.All() {
				l.list = append(l.list, listOne(r))
			}
			l.until = time.Now().Add(max(listedFor, listedShare*time.Since(began)))
		}
		return l.list
	}
}

func listOne(r *rooms.Room) web.Listed {
	one := web.Listed{Name: r.Name, State: web.Empty}
	relay := r.Relay()
	if relay == nil {
		return one // the engine has not answered yet
	}
	g := relay.Glance()
	if one.Life = g.Life; g.Memory >= 0 {
		one.Percent = &g.Memory
	}
	switch {
	case g.Latest.IsZero():
	case r.Log.Now().Sub(g.Latest) < liveFor:
		one.State = web.Live
	default:
		one.State = web.Quiet
	}
	return one
}
