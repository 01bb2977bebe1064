// Command logstream is the service of the same name in examples/services,
// written with github.com/tmaxmax/go-sse. The same test passes for both.
//
// It lacks some of what the other service has: it bounds the lines of a log but
// not their bytes, forgets no log, sends a new client all kept lines, does not
// say when lines are missing or when the service has restarted meanwhile, and a
// client that stalls holds up the others of its log until its deadline.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tmaxmax/go-sse"
)

//go:embed page.html
var page []byte

const (
	maxLine      = 64 << 10
	maxLogs      = 500
	keep         = 1000
	pingEvery    = 15 * time.Second
	writeTimeout = time.Second
)

// topic and pings are the topics of a log's messages.
var topic, pings = []string{"lines"}, []string{"pings"}

var (
	errName     = errors.New("malformed name")
	errNotExist = errors.New("no such log")
	errFinished = errors.New("the log has ended")
	errFull     = errors.New("too many logs")
	names       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	endType     = sse.Type("end")
)

// stream is one log.
type stream struct {
	joe *sse.Joe

	mu    sync.Mutex
	last  int // the id of the last message
	ended bool
}

// replayer keeps all messages but the pings.
type replayer struct{ sse.Replayer }

func (r replayer) Put(m *sse.Message, topics []string) (*sse.Message, error) {
	if topics[0] == pings[0] {
		return m, nil
	}
	return r.Replayer.Put(m, topics)
}

// newStream returns a log with a message before the first line, with the id 0,
// because a client without an id gets nothing from a FiniteReplayer.
func newStream() (*stream, error) {
	kept, err := sse.NewFiniteReplayer(keep, true)
	if err != nil {
		return nil, err
	}
	s := &stream{joe: &sse.Joe{Replayer: replayer{kept}}, last: -1}
	begin := &sse.Message{}
	begin.AppendComment("begin")
	return s, s.publish(begin)
}

func (s *stream) publish(m *sse.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errFinished
	}
	s.last++
	s.ended = m.Type == endType
	return s.joe.Publish(m, topic)
}

// atEnd reports whether id is that of the end.
func (s *stream) atEnd(id sse.EventID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended && id.String() == strconv.Itoa(s.last)
}

// client ends its session after the end of the log.
type client struct {
	*sse.Session
	control *http.ResponseController
}

func (c client) Send(m *sse.Message) error {
	if err := c.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if err := c.Session.Send(m); err != nil {
		return err
	}
	if m.Type == endType {
		return errors.Join(c.Flush(), errFinished)
	}
	return nil
}

func (c client) Flush() error {
	return errors.Join(c.Session.Flush(), c.control.SetWriteDeadline(time.Time{}))
}

type service struct {
	mu   sync.Mutex
	logs map[string]*stream
}

func (s *service) find(name string, create bool) (*stream, error) {
	if !names.MatchString(name) {
		return nil, errName
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logs[name]
	switch {
	case l != nil:
		return l, nil
	case !create:
		return nil, errNotExist
	case len(s.logs) >= maxLogs:
		return nil, errFull
	}
	l, err := newStream()
	if err == nil {
		s.logs[name] = l
	}
	return l, err
}

// ping keeps idle connections open until ctx ends.
func (s *service) ping(ctx context.Context) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	m := &sse.Message{}
	m.AppendComment("ping")
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		for _, l := range s.logs {
			go l.joe.Publish(m, pings)
		}
		s.mu.Unlock()
	}
}

func (s *service) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.logs {
		l.joe.Shutdown(context.Background())
	}
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /logs/{name}", s.write)
	mux.HandleFunc("POST /logs/{name}/end", s.end)
	mux.HandleFunc("GET /logs/{name}", s.follow)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	return http.NewCrossOriginProtection().Handler(mux)
}

func (s *service) write(w http.ResponseWriter, r *http.Request) {
	l, err := s.find(r.PathValue("name"), true)
	if err != nil {
		refuse(w, err)
		return
	}
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, maxLine)
	for err == nil && lines.Scan() {
		m := &sse.Message{}
		m.AppendData(lines.Text() + "\n") // without it, an empty line would be lost
		err = l.publish(m)
	}
	refuse(w, errors.Join(err, lines.Err()))
}

func (s *service) end(w http.ResponseWriter, r *http.Request) {
	l, err := s.find(r.PathValue("name"), false)
	if err == nil {
		m := &sse.Message{Type: endType}
		m.AppendData("\n")
		if err = l.publish(m); errors.Is(err, errFinished) {
			err = nil // it was ended before
		}
	}
	refuse(w, err)
}

func (s *service) follow(w http.ResponseWriter, r *http.Request) {
	l, err := s.find(r.PathValue("name"), false)
	if err != nil {
		refuse(w, err)
		return
	}
	session, err := sse.Upgrade(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	if l.atEnd(session.LastEventID) {
		refuse(w, nil)
		return
	}
	if !session.LastEventID.IsSet() {
		session.LastEventID = sse.ID("0")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // the deadline would outlive the response
	}
	l.joe.Subscribe(r.Context(), sse.Subscription{
		Client:      client{session, http.NewResponseController(w)},
		LastEventID: session.LastEventID,
		Topics:      append(topic, pings...),
	})
}

// refuse answers with the status of err, or 204 if there is none.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for known, as := range map[error]int{
		errName:               http.StatusBadRequest,
		errNotExist:           http.StatusNotFound,
		errFinished:           http.StatusConflict,
		errFull:               http.StatusInsufficientStorage,
		sse.ErrProviderClosed: http.StatusServiceUnavailable,
		bufio.ErrTooLong:      http.StatusRequestEntityTooLarge,
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
	if err := run(*addr); err != nil {
		slog.Error("the service ends", "error", err)
		os.Exit(1)
	}
}

func run(addr string) error {
	s := &service{logs: map[string]*stream{}}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go s.ping(ctx)
	server := &http.Server{Addr: addr, Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	slog.Info("listening", "addr", addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close() // of a quiet build, whose next line may be hours away
}
