package site

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Bounds on idle and slow peers, and on the stop. The last two together are
// shorter than the five seconds within which the process must end. So are
// viewersGrace and the 1.5 seconds for which the lives that wait are written.
const (
	headerWait = 5 * time.Second
	bodyWait   = 10 * time.Second
	answerWait = 30 * time.Second
	idleWait   = 2 * time.Minute
	maxHeader  = 16 << 10 // bytes

	viewersGrace  = 3 * time.Second
	requestsGrace = time.Second
)

// Serve serves the public listener and the operator's listeners until ctx ends
// or a listener fails. Then it stops in this order: /readyz fails, all viewers
// get close code 1001, and the listeners close last, so that a load balancer
// can see /readyz fail. At the end it closes s. With REDIS_URL, Serve also
// waits for the engine, while /readyz says "starting", and ends if the engine
// cannot be used.
func (s *Site) Serve(ctx context.Context, public net.Listener, operators ...net.Listener) error {
	first, second := s.server(s.Handler), s.server(s.Operator)
	first.ConnContext, second.ConnContext = relay.ConnContext, operate.ConnContext
	var background sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	defer background.Wait()
	defer stop()
	begun, unusable := make(chan struct{}), make(chan error, 1)
	background.Go(func() {
		err := s.begin(running)
		if err == nil {
			s.recordLives()
		}
		close(begun)
		switch {
		case err == nil:
			background.Go(func() { s.Brake.Run(running) })
			background.Go(func() { s.countViewers(running) })
			s.Authority.Run(running)
		case running.Err() == nil:
			unusable <- err
		}
	})
	if s.acme != nil {
		background.Go(func() { s.acme.Run(running) })
	}
	end := func() {
		stop()
		<-begun
		s.drain(first, second)
	}
	listeners := 1 + len(operators)
	served := make(chan error, listeners)
	go func() {
		if s.cert != nil {
			first.TLSConfig = s.cert.TLS()
			served <- first.ServeTLS(wsconn.Listener(public), "", "")
		} else {
			served <- first.Serve(public)
		}
	}()
	for _, ln := range operators {
		go func() { served <- second.Serve(ln) }()
	}
	var failed error
	for ended := 0; ended < listeners; {
		select {
		case <-ctx.Done():
			end()
			for ; ended < listeners; ended++ {
				<-served // http.ErrServerClosed: asked for
			}
		case err := <-unusable:
			failed = errors.Join(failed, err)
			end()
		case err := <-served:
			if ended++; !errors.Is(err, http.ErrServerClosed) {
				failed = errors.Join(failed, err)
				end()
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
		ConnState:         s.idle.changed,
		// net/http would answer "OPTIONS *" by itself, without our headers.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     httpLog(s.thin),
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
		_ = srv.Close() // an answer is one packet, so none is cut in two
		<-done
	}
}

func (s *Site) drain(servers ...*http.Server) {
	s.stopping.Store(true)
	s.Trail.Close()
	if s.Rooms.Ready() {
		s.log.Info("stopping", "connections", s.Rooms.Len())
		viewers, cancel := context.WithTimeout(context.Background(), viewersGrace)
		defer cancel()
		if err := s.Rooms.Shutdown(viewers); err != nil {
			s.log.Warn("connections cut", "error", err)
		}
		s.endLives() // only now: a device could publish a restart signal until here
	}
	if s.Watch != nil {
		s.Watch.Close()
	}
	requests, cancel := context.WithTimeout(context.Background(), requestsGrace)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(requests); err != nil {
			_ = srv.Close()
		}
	}
}
