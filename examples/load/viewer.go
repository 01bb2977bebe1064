//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
)

// kind is how a viewer reads.
type kind int

const (
	reads  kind = iota // always
	stalls             // never
	drips              // a byte a second
)

// tally holds the counts of several viewers. Viewers share a tally because that
// makes a message cheaper. There are several tallies, so that viewers seldom
// wait for each other.
type tally struct {
	mu                           sync.Mutex
	latency                      histogram
	messages, frames, bytes      int64
	duplicates, disorder, faulty int64
}

// viewer watches, by one connection at a time.
type viewer struct {
	kind   kind
	number int // from 0 on
	finder *mark.Finder
	move   func() *dialled // goes on at another server; nil: stays

	mu      sync.Mutex
	conn    net.Conn // only start and move change it
	stopped bool

	seen      atomic.Int64  // messages, without duplicates
	highest   atomic.Int64  // the number after the highest message
	heard     atomic.Bool   // any whole message has arrived
	target    int64         // the viewer is complete with this number of messages
	completed chan struct{} // closed when it is complete; if target is 0, never
	ended     chan struct{} // closed when it no longer reads

	completedAt time.Time // may be read after completed is closed

	// Until ended is closed, only the reading goroutine uses these.
	server  int // the index of its URL
	tally   *tally
	frames  frameReader
	events  *eventReader // in place of frames
	tail    mark.Tail
	now     int64 // when the bytes arrived that are being parsed
	place   place // used if move is set
	track   track
	code    int    // the code of the close frame
	reason  string // its reason
	told    bool   // the reason says when to come back
	closing bool   // a close frame has arrived
	err     error
}

// newViewer returns a viewer that is not connected. If late is set, it may miss
// the beginning of the run.
func newViewer(k kind, f *mark.Finder, number int, late bool) *viewer {
	return &viewer{kind: k, finder: f, number: number, track: track{late: late}, completed: make(chan struct{}), ended: make(chan struct{})}
}

// start reads from conn until the connection or the measurement ends. If v
// moves, it then reads the next connection. Start does not wait for that.
func (v *viewer) start(conn *dialled) {
	v.mu.Lock()
	v.conn, v.frames.deflate = conn.Conn, conn.deflate
	if conn.events {
		v.events = new(eventReader)
	}
	v.mu.Unlock()
	if v.kind != reads {
		close(v.ended)
		return
	}
	go func() {
		defer close(v.ended)
		for {
			if v.err = v.feed(conn.rest); v.err == nil {
				v.err = v.read()
			}
			if v.move == nil || v.dropped() == "" || errors.Is(v.err, errProtocol) {
				return
			}
			if conn = v.move(); conn == nil {
				return
			}
		}
	}()
}

// buffers are used only while there are bytes to read, so an idle viewer holds
// none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// read reads until the connection or the measurement ends. It makes one system
// call for most deliveries: the runtime's poller reports each arrival, so if a
// call does not fill the buffer, no second call is needed to see that there is
// nothing more.
func (v *viewer) read() error {
	if _, ok := v.conn.(*tls.Conn); ok {
		return v.decrypt()
	}
	raw, err := v.socket()
	if err != nil {
		return err
	}
	var end error
	err = raw.Read(func(fd uintptr) bool {
		end = v.drain(int(fd), false)
		return end != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return v.leftovers(raw)
	}
	return errors.Join(end, err)
}

// decrypt is read for a connection with TLS. It holds a buffer all the time.
func (v *viewer) decrypt() error {
	buf := make([]byte, 4<<10)
	for {
		n, err := v.conn.Read(buf)
		if ferr := v.feed(buf[:n]); ferr != nil {
			return ferr
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // the measurement has ended
		}
		if err != nil {
			return err
		}
	}
}

// socket returns the socket of the connection, also below TLS.
func (v *viewer) socket() (syscall.RawConn, error) {
	conn := v.current()
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return conn.(syscall.Conn).SyscallConn()
}

// leftovers reads the rest when the measurement ends. The poller does not
// report the end of a connection if it arrives together with bytes before it.
func (v *viewer) leftovers(raw syscall.RawConn) (end error) {
	err := raw.Control(func(fd uintptr) { end = v.drain(int(fd), true) })
	return errors.Join(end, err)
}

// drain reads from fd until there is nothing more. If toTheEnd is not set, a
// call that does not fill the buffer is the last.
func (v *viewer) drain(fd int, toTheEnd bool) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := syscall.Read(fd, *buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return nil
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return io.EOF
		}
		if v.kind != reads {
			continue
		}
		if err := v.feed((*buf)[:n]); err != nil {
			return err
		}
		if n < len(*buf) && !toTheEnd {
			return nil
		}
	}
}

// feed parses b, which has just arrived.
func (v *viewer) feed(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	v.now = time.Now().UnixNano()
	v.tally.mu.Lock()
	v.tally.bytes += int64(len(b))
	var err error
	if v.events != nil {
		err = v.events.feed(b, v)
	} else {
		err = v.frames.feed(b, v)
	}
	v.tally.mu.Unlock()
	return err
}

// data implements sink. The caller has locked the tally.
func (v *viewer) data(piece []byte, last bool) error {
	found := v.found
	if v.move != nil {
		v.place.add(piece)
		found = v.place.found
	}
	v.tally.faulty += int64(v.finder.Scan(&v.tail, piece, last, found))
	if last {
		v.place.end(v.found)
		v.tally.frames++
		v.heard.Store(true)
	}
	return nil
}

// found counts the message n, which was sent at the time at.
func (v *viewer) found(n, at int64) {
	v.tally.messages++
	v.tally.latency.add(time.Duration(v.now - at))
	switch v.track.see(n) {
	case duplicate:
		v.tally.duplicates++
		return
	case outOfOrder:
		v.tally.disorder++
	}
	v.highest.Store(v.track.next)
	if seen := v.seen.Add(1); seen == v.target {
		v.completedAt = time.Unix(0, v.now)
		close(v.completed)
	}
}

// control implements sink.
func (v *viewer) control(op byte, payload []byte) error {
	switch op {
	case opPing:
		return v.send(opPong, payload)
	case opClose:
		v.code, v.reason, v.closing = closeCode(payload), string(payload[min(2, len(payload)):]), true
		if len(payload) > maxControl {
			payload = nil
		}
		if v.events == nil {
			_ = v.send(opClose, payload)
		}
		return io.EOF
	}
	return nil
}

// send writes a small frame. It fails if the server does not accept it in time.
func (v *viewer) send(op byte, payload []byte) error {
	conn := v.current()
	_ = conn.SetWriteDeadline(time.Now().Add(dialWait))
	_, err := conn.Write(clientFrame(op, payload))
	return err
}

// current returns the connection, or nil if there never was one.
func (v *viewer) current() net.Conn {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.conn
}

// joined reports whether v has ever been connected.
func (v *viewer) joined() bool { return v.current() != nil }

// drip reads one byte.
func (v *viewer) drip() {
	raw, err := v.socket()
	if err != nil || v.err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		switch n, err := syscall.Read(int(fd), b[:]); {
		case err == nil && n == 0:
			v.err = io.EOF
		case err != nil && err != syscall.EAGAIN && err != syscall.EINTR:
			v.err = os.NewSyscallError("read", err)
		}
	})
}

// open reports whether v reads, and is connected or looks for another server.
func (v *viewer) open() bool {
	if !v.joined() || v.kind != reads {
		return false
	}
	select {
	case <-v.ended:
		return false
	default:
		return true
	}
}

// stop ends the reading goroutine. Afterwards the caller may use the fields
// that only this goroutine used. The connection stays open.
func (v *viewer) stop() {
	v.mu.Lock()
	v.stopped = true
	conn := v.conn
	if conn != nil {
		_ = conn.SetReadDeadline(time.Now())
	}
	v.mu.Unlock()
	if conn == nil {
		return
	}
	<-v.ended
	if v.kind != reads && v.err == nil {
		if raw, err := v.socket(); err == nil {
			v.err = v.leftovers(raw)
		}
	}
}

// dropped returns how the server ended the connection: the close code, or the
// violation of the protocol. If the server did not end it, dropped returns "".
func (v *viewer) dropped() string {
	switch {
	case v.closing:
		return fmt.Sprint(v.code)
	case errors.Is(v.err, errProtocol):
		return v.err.Error()
	case v.err != nil:
		return "1006" // without a close frame (RFC 6455, section 7.1.5)
	}
	return ""
}

// leave sends a close frame and closes the connection.
func (v *viewer) leave() {
	if v.conn == nil {
		return
	}
	if v.events == nil {
		_ = v.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = v.conn.Write(clientFrame(opClose, []byte{1000 >> 8, 1000 & 0xff}))
	}
	v.conn.Close()
}
