// Command peers does the relay's fan-out with other libraries, so that command
// fanout can compare them with the relay. A viewer connects to /ws and gets the
// newest messages in one frame, and then each published message in a frame of
// its own. Each library is used as its own documentation recommends. Command
// peers has no authentication and no limits, which is an advantage over the
// relay.
//
//	peers -peer bare|parked|reading|gws|gorilla|centrifuge|melody -listen 127.0.0.1:3100 -history 1000
//
// parked and reading are the relay's own transport, package wsconn, with its
// viewers parked and with a goroutine for each.
//
// POST /start?run=…&first=…&count=…&rate=…&size=… publishes messages and then
// answers {"published":N,"seconds":S}. The load generator (examples/load) sends
// this request with -publish=false -start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
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
	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// peer is the fan-out with one library.
type peer interface {
	// ServeHTTP upgrades the connection of a viewer.
	http.Handler
	// publish sends an encoded message to all viewers, and keeps it for later
	// ones.
	publish(message []byte) error
}

var peers = map[string]func(keep int) (peer, error){
	"bare":       func(keep int) (peer, error) { return newBare(keep), nil },
	"parked":     newOurs(true),
	"reading":    newOurs(false),
	"gws":        func(keep int) (peer, error) { return newGWS(keep), nil },
	"gorilla":    func(keep int) (peer, error) { return newGorilla(keep), nil },
	"centrifuge": newCentrifuge,
	"melody":     func(keep int) (peer, error) { return newMelody(keep), nil },
}

func main() {
	stderr := terminal.Guard(os.Stderr)
	log.SetOutput(stderr)
	flag.CommandLine.SetOutput(stderr)
	name := flag.String("peer", "bare", "the library: bare, parked, reading, gws, gorilla, centrifuge or melody")
	listen := flag.String("listen", "127.0.0.1:3100", "the address to listen on")
	keep := flag.Int("history", 1000, "messages that a new viewer gets")
	flag.Parse()
	if err := run(*name, *listen, *keep); err != nil {
		fmt.Fprintln(stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(name, listen string, keep int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	make, ok := peers[name]
	if !ok {
		return fmt.Errorf("-peer %q is not one of bare, parked, reading, gws, gorilla, centrifuge, melody", name)
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

// start publishes the messages that the request describes.
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

// hub keeps the viewers and the published messages. All libraries except
// centrifuge need it. F is the library's type for a frame, which is made once
// for all viewers.
type hub[C comparable, F any] struct {
	keep   int
	encode func([]byte) F

	mu       sync.Mutex
	messages [][]byte
	history  *F // if nil, it has not been made since the last message
	viewers  map[C]struct{}
}

func newHub[C comparable, F any](keep int, encode func([]byte) F) *hub[C, F] {
	return &hub[C, F]{keep: keep, encode: encode, viewers: map[C]struct{}{}}
}

// join adds a viewer. If there is a history, it calls first with it, before the
// viewer can get any message.
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

// leave removes viewer, and reports whether it was there.
func (h *hub[C, F]) leave(viewer C) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.viewers[viewer]
	delete(h.viewers, viewer)
	return ok
}

// add keeps a message, and returns its frame and the viewers to send it to.
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
