// Command peers is the relay's fan-out on other libraries, for command fanout
// to measure beside it: viewers connect to /ws, get the newest messages in one
// frame, and then each message in a frame of its own as it is published. Each
// library is used as its own documentation recommends. There is no
// authentication and no limit of any kind, which is in the peers' favour.
//
//	peers -peer bare|gws|gorilla|centrifuge|melody -listen 127.0.0.1:3100 -history 1000
//
// POST /start?run=…&first=…&count=…&rate=…&size=… publishes, and answers
// {"published":N,"seconds":S} when it has. That is what the load generator
// (examples/load) sends with -publish=false -start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// peer is a library's way to do the job.
type peer interface {
	// ServeHTTP takes a viewer.
	http.Handler
	// publish sends an encoded message to everybody, and keeps it for who comes
	// later.
	publish(message []byte) error
}

var peers = map[string]func(keep int) (peer, error){
	"bare":       func(keep int) (peer, error) { return newBare(keep), nil },
	"gws":        func(keep int) (peer, error) { return newGWS(keep), nil },
	"gorilla":    func(keep int) (peer, error) { return newGorilla(keep), nil },
	"centrifuge": newCentrifuge,
	"melody":     func(keep int) (peer, error) { return newMelody(keep), nil },
}

func main() {
	name := flag.String("peer", "bare", "the library: bare, gws, gorilla, centrifuge or melody")
	listen := flag.String("listen", "127.0.0.1:3100", "the address to listen on")
	keep := flag.Int("history", 1000, "messages that a new viewer gets")
	flag.Parse()
	if err := run(*name, *listen, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(name, listen string, keep int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	make, ok := peers[name]
	if !ok {
		return fmt.Errorf("-peer %q is not one of bare, gws, gorilla, centrifuge, melody", name)
	}
	if keep < 1 {
		return errors.New("-history must be at least 1")
	}
	p, err := make(keep)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /ws", p)
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) { start(w, r, p) })
	server := http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// start publishes as the request says.
func start(w http.ResponseWriter, r *http.Request, p peer) {
	run := r.FormValue("run")
	first, err1 := strconv.ParseInt(r.FormValue("first"), 10, 64)
	count, err2 := strconv.ParseInt(r.FormValue("count"), 10, 64)
	rate, err3 := strconv.ParseFloat(r.FormValue("rate"), 64)
	size, err4 := strconv.Atoi(r.FormValue("size"))
	if err := errors.Join(mark.CheckRun(run), err1, err2, err3, err4); err != nil || !(rate > 0) {
		http.Error(w, strings.TrimSpace(fmt.Sprintf("run, first, count, rate and size are required; %v", err)), http.StatusBadRequest)
		return
	}
	begun := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := range count {
		timer.Reset(time.Until(begun.Add(time.Duration(float64(n) / rate * float64(time.Second)))))
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
		now := time.Now()
		m := wire.Message{Text: string(mark.Append(nil, run, first+n, now, size))}
		if err := p.publish(m.Encode(now)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	fmt.Fprintf(w, `{"published":%d,"seconds":%g}`+"\n", count, time.Since(begun).Seconds())
}

// hub is what every library but centrifuge leaves to its user: who watches, and
// what was published. F is a frame in the library's own form, made once for all
// viewers.
type hub[C comparable, F any] struct {
	keep   int
	encode func([]byte) F

	mu       sync.Mutex
	messages [][]byte
	history  *F // nil: not made since the last message
	viewers  map[C]struct{}
}

func newHub[C comparable, F any](keep int, encode func([]byte) F) *hub[C, F] {
	return &hub[C, F]{keep: keep, encode: encode, viewers: map[C]struct{}{}}
}

// join adds a viewer. first is called with the history, where there is one,
// before any message can reach the viewer.
func (h *hub[C, F]) join(viewer C, first func(F)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.messages) > 0 {
		if h.history == nil {
			frame := h.encode(wire.Frame(wire.History, "", h.messages...))
			h.history = &frame
		}
		first(*h.history)
	}
	h.viewers[viewer] = struct{}{}
}

// leave reports whether viewer was there.
func (h *hub[C, F]) leave(viewer C) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.viewers[viewer]
	delete(h.viewers, viewer)
	return ok
}

// add keeps a message, and returns its frame and who gets it.
func (h *hub[C, F]) add(message []byte, to []C) (F, []C) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, message)
	if extra := len(h.messages) - h.keep; extra > h.keep/5 {
		h.messages = slices.Delete(h.messages, 0, extra)
	}
	h.history = nil
	to = to[:0]
	for v := range h.viewers {
		to = append(to, v)
	}
	return h.encode(wire.Frame(wire.Live, "", message)), to
}
