package site

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Bounds on what a peer may do before it has said anything useful, and on the
// stop. Together the two last stay below the five seconds that a supervisor
// should have to wait.
const (
	headerWait = 5 * time.Second
	bodyWait   = 10 * time.Second
	answerWait = 30 * time.Second
	idleWait   = 2 * time.Minute
	maxHeader  = 16 << 10 // bytes

	viewersGrace  = 3 * time.Second
	requestsGrace = time.Second
)

// Serve answers on public, and on operator unless it is nil, until ctx ends.
// Then it stops in order: not ready, 1001 to all viewers, and last the
// listeners, so that readiness can be seen failing.
func (s *Site) Serve(ctx context.Context, public, operator net.Listener) error {
	first, second := s.server(s.Handler), s.server(s.Operator)
	served := make(chan error, 2)
	go func() {
		if s.cert != nil {
			first.TLSConfig = s.cert.TLS()
			served <- first.ServeTLS(public, "", "")
		} else {
			served <- first.Serve(public)
		}
	}()
	if operator != nil {
		go func() { served <- second.Serve(operator) }()
	} else {
		served <- http.ErrServerClosed
	}
	var failed error
	for ended := 0; ended < 2; {
		select {
		case <-ctx.Done():
			s.drain(first, second)
			for ; ended < 2; ended++ {
				<-served // http.ErrServerClosed: asked for
			}
		case err := <-served:
			if ended++; !errors.Is(err, http.ErrServerClosed) {
				failed = errors.Join(failed, err)
				s.drain(first, second)
			}
		}
	}
	return errors.Join(failed, s.Close())
}

func (s *Site) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       bodyWait,
		WriteTimeout:      answerWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxHeader,
		// net/http would answer "OPTIONS *" by itself, without our headers.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// background serves h on ln until stop is called.
func (s *Site) background(ln net.Listener, h http.Handler) (stop func()) {
	srv := s.server(h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("redirect ended", "error", err)
		}
	}()
	return func() {
		_ = srv.Close() // an answer is one packet, and nothing is lost with it
		<-done
	}
}

func (s *Site) drain(servers ...*http.Server) {
	s.stopping.Store(true)
	s.log.Info("stopping", "connections", s.Relay.Len())
	s.Trail.Close()
	viewers, cancel := context.WithTimeout(context.Background(), viewersGrace)
	defer cancel()
	if err := s.Relay.Shutdown(viewers); err != nil {
		s.log.Warn("connections cut", "error", err)
	}
	requests, cancel := context.WithTimeout(context.Background(), requestsGrace)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(requests); err != nil {
			_ = srv.Close()
		}
	}
}
