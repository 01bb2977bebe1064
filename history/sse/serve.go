package sse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/relayguard/relayguard/history"
)

// errMethod is returned for another method than GET or HEAD.
var errMethod = errors.New("sse: the method is not GET")

// Serve answers r with the entries of log, and returns when the stream is over:
//
//	handler := func(w http.ResponseWriter, r *http.Request) {
//		log, release, err := logs.Acquire(r.Context(), r.PathValue("name"))
//		if err != nil {
//			http.Error(w, "there is no such log", http.StatusNotFound)
//			return
//		}
//		defer release()
//		events.Serve(w, r, log)
//	}
//
// Check the client's permission before the call. Headers that are set in w are
// kept, except Cache-Control, Connection, Content-Type and X-Accel-Buffering.
//
// The error is nil if the client was told that the log is finished, and
// [history.ErrClosed] if the log was closed. It is that of the request's
// context if the client went away, and wraps [os.ErrDeadlineExceeded] (HTTP/1)
// if the client did not take what was sent. The client always has an answer, so
// the error is only for a log of the service.
//
// w must support flushing and write deadlines, itself or by an Unwrap method as
// [http.ResponseController] describes. If it does not, the answer is 500 and
// the error wraps [errors.ErrUnsupported]: without deadlines, a client that
// stalls would hold its goroutine.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, log *history.Log) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return errMethod
	}
	c := client{w: w, control: http.NewResponseController(w), timeout: s.cfg.WriteTimeout, log: log}
	comesBack := c.start(r, s.cfg.Start)
	switch _, err := log.Reader(c.reader.Position()).TryNext(); {
	case errors.Is(err, history.ErrFinished) && comesBack:
		w.WriteHeader(http.StatusNoContent)
		return nil
	case errors.Is(err, history.ErrClosed):
		w.Header().Set("Retry-After", strconv.Itoa(int((s.retry()+time.Second-1)/time.Second)))
		http.Error(w, "the log is closed: try again later", http.StatusServiceUnavailable)
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // for nginx
	if r.ProtoMajor == 1 {
		// The last deadline would hold for the next request too.
		h.Set("Connection", "close")
	}
	if r.Method == http.MethodHead {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	defer c.end()
	return c.follow(r.Context(), s)
}

// retry returns a random time after which a client should connect again.
func (s *Server) retry() time.Duration { return s.cfg.Retry + rand.N(s.cfg.Retry) }

// client is a client with its stream.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	log     *history.Log
	reader  *history.Reader
	lost    bool // the next event must be a reset
}

// start sets the reader, and reports whether the client was here before.
func (c *client) start(r *http.Request, start func(*http.Request) history.Position) (comesBack bool) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		p, err := history.ParsePosition(id)
		c.lost = err != nil
		if err == nil && start != nil { // it may be a position of another log
			b := c.log.Since(p)
			c.lost = b.Reset && b.Note == nil
		}
		if !c.lost {
			c.reader = c.log.Reader(p)
			return true
		}
	}
	from := history.Oldest()
	if start != nil {
		from = start(r)
	}
	c.reader = c.log.Reader(from)
	return false
}

// open sends the head of the response.
func (c *client) open() error {
	if err := c.deadline(); err != nil {
		return c.refuse(err)
	}
	if err := c.control.Flush(); errors.Is(err, errors.ErrUnsupported) {
		return c.refuse(err)
	} else if err != nil {
		return fmt.Errorf("sse: %w", err)
	}
	return nil
}

func (c *client) refuse(err error) error {
	for _, name := range []string{"Connection", "X-Accel-Buffering"} {
		c.w.Header().Del(name)
	}
	http.Error(c.w, "this server cannot stream", http.StatusInternalServerError)
	return fmt.Errorf("sse: the ResponseWriter cannot stream: %w", err)
}

func (c *client) deadline() error {
	return c.control.SetWriteDeadline(time.Now().Add(c.timeout))
}

// end bounds what the server still writes after the handler.
func (c *client) end() { c.deadline() }

// follow sends the log until its end.
func (c *client) follow(ctx context.Context, s *Server) error {
	ping := time.NewTimer(s.cfg.Ping)
	defer ping.Stop()
	buf := take()
	if c.lost {
		*buf = appendStart(*buf, s.retry(), "")
		*buf = appendEvent(*buf, "reset", "", nil)
	} else { // the id, so that a break before the first event loses nothing
		*buf = appendStart(*buf, s.retry(), c.reader.Position().String())
	}
	for {
		b, err := c.reader.TryNext()
		switch {
		case errors.Is(err, history.ErrFinished):
			*buf = appendEvent(*buf, "end", c.reader.Position().String(), nil)
			return c.write(ctx, *buf)
		case err != nil:
			return err
		case !b.Empty():
			if part := piece(b); len(part.Entries) < len(b.Entries) {
				c.reader = c.log.Reader(part.To)
				b = part
			}
			*buf = appendBatch(*buf, b)
			b = history.Batch{} // a write that stalls must not hold its entries
		}
		if len(*buf) > 0 {
			if err := c.write(ctx, *buf); err != nil {
				return err
			}
			*buf = (*buf)[:0]
			ping.Reset(s.cfg.Ping)
			continue
		}
		give(buf)
		select {
		case <-c.reader.Changed():
			buf = take()
		case <-ping.C:
			buf = take()
			*buf = append(*buf, ":\n\n"...)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write writes b to the client before the deadline.
func (c *client) write(ctx context.Context, b []byte) error {
	err := c.deadline()
	if err == nil {
		_, err = c.w.Write(b)
	}
	if err == nil {
		err = c.control.Flush()
	}
	if err == nil {
		// HTTP/2 resets the stream at the deadline even if nothing is written.
		err = c.control.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		return ctx.Err()
	}
	return fmt.Errorf("sse: %w", err)
}

// buffers holds the buffers of streams that write nothing.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func take() *[]byte { return buffers.Get().(*[]byte) }

func give(buf *[]byte) {
	if cap(*buf) <= 2*pieceBytes {
		*buf = (*buf)[:0]
		buffers.Put(buf)
	}
}
