package site

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/relayguard/relayguard/examples/server/relay"
)

// door serves requests with a handler that can be replaced.
type door struct{ atomic.Pointer[http.Handler] }

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*d.Load()).ServeHTTP(w, r) }

// open makes the handlers serve the listeners.
func (s *Site) open(public, operator http.Handler) {
	if s.engine == nil {
		s.Handler, s.Operator = public, operator
		return
	}
	s.Handler.(*door).Store(&public)
	s.Operator.(*door).Store(&operator)
}

// await makes the handlers refuse what needs the engine until [Site.open].
// The page is served, and its WebSocket is refused for a moment. So a node
// never shows an empty history because it could not read the real one.
func (s *Site) await() error {
	mux, err := s.pages()
	if err != nil {
		return err
	}
	starting := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "5")
		plain(w, http.StatusServiceUnavailable, "starting")
	})
	paths := []string{"/readyz", "/ws", relay.EventsPath, "/auth/", reportPath}
	for _, r := range s.Rooms.All() {
		if s.Lives != nil {
			paths = append(paths, pageOf(r)+livesName, pageOf(r)+livesName+"/")
		}
	}
	for _, path := range paths {
		mux.Handle(path, starting)
	}
	mux.HandleFunc(relay.PostPath, relay.Starting)
	public, operator := new(door), new(door)
	s.Handler, s.Operator = public, operator
	s.open(s.secure.Handler(Recovered(s.thin, mux)), s.secure.Handler(starting))
	return nil
}

// begin assembles the site as soon as the engine answers. It returns the error
// of ctx if that ends before.
func (s *Site) begin(ctx context.Context) error {
	if s.engine == nil {
		return nil
	}
	if err := s.openHistory(ctx); err != nil {
		return err
	}
	return s.assemble()
}
