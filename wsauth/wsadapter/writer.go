package wsadapter

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/wsauth/internal/hijack"
	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// ResponseWriter is what a library upgrades: see [Adapter.Wrap].
type ResponseWriter struct {
	http.ResponseWriter
	cfg  *Config
	conn *Conn // nil before Hijack
}

// Unwrap returns the ResponseWriter below, for [http.ResponseController].
func (w *ResponseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the status, but no 101 if the connection cannot be
// hijacked: coder's library looks for a Hijacker only here, and sends the 101
// before it hijacks. Without the 101, it can still send its 500.
func (w *ResponseWriter) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols && !hijack.Possible(w.ResponseWriter) {
		for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept", "Sec-Websocket-Protocol"} {
			w.Header().Del(name)
		}
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

// Hijack implements [http.Hijacker]. The library calls it. It also finds the
// Hijacker below other wrappers.
func (w *ResponseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.conn = newConn(w.cfg, raw)
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	w.conn.early = bytes.Clone(early)
	p := &pipe{Conn: raw, c: w.conn}
	// The buffers hold frame headers and control frames, and are big enough for
	// gorilla to keep them.
	return p, bufio.NewReadWriter(bufio.NewReaderSize(p, 512), bufio.NewWriterSize(p, 512)), nil
}

// WriteHeaderNow sends the 101 if the server is gin, whose WriteHeader only
// stores the status. Coder's library calls it. The writer of gin may be below
// those of other middleware.
func (w *ResponseWriter) WriteHeaderNow() {
	for inner := w.ResponseWriter; ; {
		if now, ok := inner.(interface{ WriteHeaderNow() }); ok {
			now.WriteHeaderNow()
			return
		}
		outer, ok := inner.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		inner = outer.Unwrap()
	}
}

// pipe is the net.Conn as the library sees it. Before the Conn is attached, it
// passes everything on: gorilla writes the 101 to it.
type pipe struct {
	net.Conn
	c *Conn
}

func (p *pipe) Read(b []byte) (int, error) { return p.c.readRaw(b) }

// Write receives the control frames of the library, each in one piece. It does
// not wait until another frame is written.
func (p *pipe) Write(b []byte) (int, error) {
	if !p.c.attached.Load() {
		return p.Conn.Write(b)
	}
	whole := len(b) >= 2 && len(b) == 2+int(b[1])
	switch {
	case whole && b[0] == wsframe.Pong:
		p.c.sendPong(b)
	case whole && b[0] == wsframe.Close:
		code := 0
		if len(b) >= 4 {
			code = int(b[2])<<8 | int(b[3])
		}
		// Coder's library answers a close frame with the reason of the client,
		// which it does not check (RFC 6455, sections 5.5.1 and 8.1).
		if !utf8.Valid(b[min(4, len(b)):]) {
			code, p.c.malformed = 1007, true
		}
		p.c.refused = true
		p.c.shut(code, "") // the reason of the library may quote the client
	default:
		return 0, errors.New("wsadapter: write to the Conn, not to the library's connection")
	}
	return len(b), nil
}

// Close is called by the library after a close frame or after an error.
func (p *pipe) Close() error {
	if !p.c.attached.Load() {
		p.c.destroy()
		return p.c.hangErr
	}
	return p.c.libraryGone()
}

// The deadlines are the Conn's.

func (p *pipe) SetDeadline(t time.Time) error {
	if p.c.attached.Load() {
		return nil
	}
	return p.Conn.SetDeadline(t)
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	if p.c.attached.Load() {
		return nil
	}
	return p.Conn.SetReadDeadline(t)
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	if p.c.attached.Load() {
		return nil
	}
	return p.Conn.SetWriteDeadline(t)
}
