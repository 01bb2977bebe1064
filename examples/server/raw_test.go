package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// raw is a connection on which the test writes every byte itself, for input
// that no WebSocket library sends.
type raw struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	mute bool // answers no close
}

// upgraded returns a raw connection after its 101.
func upgraded(t *testing.T, addr string) *raw {
	t.Helper()
	conn := stubborn(t, addr)
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", res.Status)
	}
	return &raw{t: t, conn: conn, r: r}
}

// Opcodes, RFC 6455 section 5.2, with the FIN bit set.
const (
	finText   = 0x81
	finBinary = 0x82
	finClose  = 0x88
	finPing   = 0x89
)

// clientFrame returns payload in one masked frame. The mask is zero, so that
// the bytes on the wire are readable.
func clientFrame(first byte, payload []byte) []byte {
	return wire.AppendFrame(nil, first, payload, [4]byte{})
}

func (c *raw) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

// rest returns every byte that the server sends until the connection ends,
// which can be with a reset. Unless c is mute, it answers a close frame, as an
// honest client does.
func (c *raw) rest() []byte {
	c.t.Helper()
	var b []byte
	buf := make([]byte, 4096)
	for answered := c.mute; ; {
		n, err := c.r.Read(buf)
		b = append(b, buf[:n]...)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			c.t.Fatalf("the connection is still open, after %q", b)
		}
		if err != nil {
			return b
		}
		// The last frame is the close frame: two bytes, and a payload that fits
		// them.
		if i := bytes.LastIndexByte(b, finClose); !answered && i >= 0 && i+1 < len(b) && len(b) == i+2+int(b[i+1]) {
			answered = true
			_, _ = c.conn.Write(clientFrame(finClose, b[i+2:]))
		}
	}
}

// readTexts reads frames until it has n messages, and counts the frames.
func (c *raw) readTexts(n int) (texts []string, frames int) {
	c.t.Helper()
	for len(texts) < n {
		_, more := c.readFrame()
		texts = append(texts, more...)
		frames++
	}
	return texts, frames
}

// readFrame reads the next frame that carries messages.
func (c *raw) readFrame() (kind string, texts []string) {
	c.t.Helper()
	for {
		_, payload := c.readAny()
		var frame struct {
			Type     string
			Messages []struct{ Text string }
		}
		if err := json.Unmarshal(payload, &frame); err != nil || frame.Type == "" {
			continue // a ping
		}
		for _, m := range frame.Messages {
			texts = append(texts, m.Text)
		}
		return frame.Type, texts
	}
}

// readAny reads a frame of any kind.
func (c *raw) readAny() (first byte, payload []byte) {
	c.t.Helper()
	head := make([]byte, 10)
	c.read(head[:2])
	first = head[0]
	size := uint64(head[1])
	switch size {
	case 126:
		c.read(head[:2])
		size = uint64(binary.BigEndian.Uint16(head))
	case 127:
		c.read(head[:8])
		size = binary.BigEndian.Uint64(head[:8])
	}
	payload = make([]byte, size)
	c.read(payload)
	return first, payload
}

func (c *raw) read(b []byte) {
	c.t.Helper()
	if _, err := io.ReadFull(c.r, b); err != nil {
		c.t.Fatalf("reading: %v", err)
	}
}

// parse splits a server's bytes into messages, without pings, and the code of
// the close frame, which is 0 without one.
func parse(t *testing.T, b []byte) (messages []string, code int) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 2 || code != 0 {
			t.Fatalf("%d bytes after the last frame", len(b))
		}
		op, n, head := b[0], int(b[1]), 2
		switch n {
		case 126:
			n, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, head = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		if len(b) < head+n {
			t.Fatalf("a frame of %d bytes is cut off", n)
		}
		payload := b[head : head+n]
		b = b[head+n:]
		switch op {
		case finText:
			messages = append(messages, string(payload))
		case finClose:
			code = 1005
			if n >= 2 {
				code = int(binary.BigEndian.Uint16(payload))
			}
		}
	}
	return messages, code
}

func goroutines() int { return runtime.NumGoroutine() }
