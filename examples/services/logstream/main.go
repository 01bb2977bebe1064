// Command logstream takes logs over HTTP while they are written, line by line,
// and shows them live: to a browser, or with curl.
//
//	go run ./examples/services/logstream
//	make 2>&1 | curl -sS -T - -X POST http://127.0.0.1:8080/logs/build-7
//	curl -sS -X POST http://127.0.0.1:8080/logs/build-7/end
//	curl -sSN http://127.0.0.1:8080/logs/build-7
//	open http://127.0.0.1:8080/?log=build-7
//
// A follower that loses its connection goes on where it was. It gets at most
// the last 1,000 lines first, and is told when the log has ended. Anybody who
// reaches the service can write: put it behind your login, or check a token in
// write and end.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/sse"
)

//go:embed page.html
var page []byte

// maxLine is the length of the longest line, in bytes.
const maxLine = 64 << 10

type service struct {
	logs   *history.Set
	events *sse.Server
}

func newService() (*service, error) {
	logs, err := history.NewSet(history.SetConfig{
		Log:      history.Config{Keep: 10_000, MaxBytes: 4 << 20}, // of one log
		MaxLogs:  500,
		MaxBytes: 512 << 20, // of all together
		Idle:     time.Hour,
		// With Store: journal.ForSet(…), the logs survive a restart.
	})
	if err != nil {
		return nil, err
	}
	events, err := sse.New(sse.Config{
		Start: func(*http.Request) history.Position { return history.Last(1000) },
	})
	return &service{logs, events}, err
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /logs/{name}", s.write)
	mux.HandleFunc("POST /logs/{name}/end", s.end)
	mux.HandleFunc("GET /logs/{name}", s.follow)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	return http.NewCrossOriginProtection().Handler(mux) // other sites' pages cannot write
}

// write appends each line of the body to a log, as it arrives.
func (s *service) write(w http.ResponseWriter, r *http.Request) {
	l, release, err := s.logs.Create(r.Context(), r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	defer release()
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, maxLine)
	for err == nil && lines.Scan() {
		_, err = l.Append(r.Context(), lines.Bytes())
	}
	refuse(w, errors.Join(err, lines.Err()))
}

func (s *service) end(w http.ResponseWriter, r *http.Request) {
	l, release, err := s.logs.Acquire(r.Context(), r.PathValue("name"))
	if err == nil {
		defer release()
		err = l.Finish(r.Context())
	}
	refuse(w, err)
}

func (s *service) follow(w http.ResponseWriter, r *http.Request) {
	l, release, err := s.logs.Acquire(r.Context(), r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	defer release()
	s.events.Serve(w, r, l)
}

// refuse answers with the status of err, or 204 if there is none.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for known, as := range map[error]int{
		history.ErrName:     http.StatusBadRequest,
		history.ErrNotExist: http.StatusNotFound,
		history.ErrFinished: http.StatusConflict,
		history.ErrFull:     http.StatusInsufficientStorage,
		history.ErrClosed:   http.StatusServiceUnavailable,
		bufio.ErrTooLong:    http.StatusRequestEntityTooLarge,
	} {
		if errors.Is(err, known) {
			status = as
		}
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Error(w, http.StatusText(status), status)
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "listen on this `address`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	listener, err := net.Listen("tcp", *addr)
	if err == nil {
		slog.Info("listening", "addr", *addr)
		err = run(ctx, listener, 5*time.Second)
	}
	stop()
	if err != nil {
		slog.Error("the service ends", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. Then clients that still send have the time grace.
func run(ctx context.Context, listener net.Listener, grace time.Duration) error {
	s, err := newService()
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.logs.Close() // ends the streams, for which Shutdown waits
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close() // of a quiet build, whose next line may be hours away
}
