package doctor

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// Opcodes of RFC 6455 section 5.2.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
)

const (
	// maxMessage is the largest WebSocket message that next accepts, in bytes.
	// A history of 1,200 long messages fits into it.
	maxMessage = 32 << 20
	// maxSocket limits the bytes that are read from one connection.
	maxSocket = 48 << 20
)

var (
	errNotWebSocket = errors.New("the answer 101 is not the handshake of a WebSocket")
	errTooLarge     = errors.New("the server sent more than the doctor reads")
)

// socket is a WebSocket client that trusts nothing. The doctor uses no library,
// because a library would hide the bytes that the checks compare, and would
// answer a close frame that a check must leave unanswered.
type socket struct {
	p    *probe
	conn net.Conn
	left *io.LimitedReader
	r    *bufio.Reader
}

// upgrade opens a WebSocket that may carry no secret. header holds names and
// values in turn. If the server refuses, the socket is nil and the answer holds
// the refusal.
func (p *probe) upgrade(header ...string) (*socket, answer) {
	return p.upgradeOver(p.insecureTLS(), header...)
}

func (p *probe) upgradeOver(cfg *tls.Config, header ...string) (*socket, answer) {
	conn, err := p.connect(cfg)
	if err != nil {
		return nil, answer{err: err}
	}
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: relay-doctor\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", p.url.EscapedPath()+p.socket(), p.url.Host, key)
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", header[i], header[i+1])
	}
	b.WriteString("\r\n")
	s := &socket{p: p, conn: conn, left: &io.LimitedReader{R: conn, N: maxHeader}}
	s.r = bufio.NewReader(s.left)
	if _, err := conn.Write(b.Bytes()); err != nil {
		conn.Close()
		return nil, answer{err: err}
	}
	res, err := http.ReadResponse(s.r, nil)
	if err != nil {
		conn.Close()
		return nil, answer{err: err}
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		return nil, read(res)
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if res.Header.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		conn.Close()
		return nil, answer{err: errNotWebSocket}
	}
	s.left.N = maxSocket
	return s, answer{status: res.StatusCode, proto: 1, header: res.Header}
}

// send writes one masked frame.
func (s *socket) send(op byte, payload []byte) error {
	var mask [4]byte
	rand.Read(mask[:])
	_, err := s.conn.Write(wire.AppendFrame(nil, 0x80|op, payload, mask))
	return err
}

// frame reads one frame of at most most bytes. It allocates memory for bytes
// that have arrived, not for those that the header announces.
func (s *socket) frame(most int64) (first byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(s.r, head[:2]); err != nil {
		return 0, nil, s.explain(err)
	}
	first = head[0]
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		_, err = io.ReadFull(s.r, head[:2])
		size = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		_, err = io.ReadFull(s.r, head[:8])
		size = binary.BigEndian.Uint64(head[:8])
	}
	if err != nil {
		return 0, nil, s.explain(err)
	}
	if most < 0 || size > uint64(most) {
		return 0, nil, errTooLarge
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, s.r, int64(size)); err != nil {
		return 0, nil, s.explain(err)
	}
	return first, b.Bytes(), nil
}

func (s *socket) explain(err error) error {
	if s.left.N <= 0 {
		return errTooLarge
	}
	return err
}

// next reads the next message or close frame, and answers pings.
func (s *socket) next() (op byte, payload []byte, err error) {
	var message []byte
	var kind byte
	for {
		first, payload, err := s.frame(maxMessage - int64(len(message)))
		if err != nil {
			return 0, nil, err
		}
		switch op := first & 0x0f; {
		case op == opClose:
			return op, payload, nil
		case op == opPing:
			if err := s.send(10, payload); err != nil {
				return 0, nil, err
			}
		case op == 1, op == 2, op == 0:
			if op != 0 {
				kind = op
			}
			message = append(message, payload...)
			if first&0x80 != 0 {
				return kind, message, nil
			}
		}
	}
}

// ending is the server's reaction to a message that it must refuse.
type ending struct {
	answers []string // the messages that are not part of the stream
	code    int      // the code of the close frame, 0 without a frame
	gone    bool     // the server ended the connection
	why     error    // the error that ended reading
}

// end reads until the server ends the connection, but at most for wait, and
// then closes s. If mute is set, it does not answer the close frame, like a
// peer that tries to keep its connection.
func (s *socket) end(wait time.Duration, mute bool) (e ending) {
	defer s.conn.Close()
	_ = s.conn.SetDeadline(s.p.within(wait))
	for e.code == 0 {
		op, payload, err := s.next()
		if err != nil {
			e.ended(err)
			return e
		}
		switch op {
		case opClose:
			e.code = 1005
			if len(payload) >= 2 {
				e.code = int(binary.BigEndian.Uint16(payload))
			}
			if !mute {
				_ = s.send(opClose, payload) // a server that has ended the connection needs no answer
			}
		case opText:
			var m struct{ Type *string }
			if json.Unmarshal(payload, &m) != nil || m.Type == nil {
				e.answers = append(e.answers, string(payload))
			}
		}
	}
	_, err := io.Copy(io.Discard, s.r)
	if err == nil {
		err = io.EOF
	}
	e.ended(err)
	return e
}

func (e *ending) ended(err error) {
	e.gone = !isTimeout(err) && !errors.Is(err, errTooLarge)
	e.why = err
}

// leave closes the connection with the closing handshake, as a browser does.
func (s *socket) leave() {
	defer s.conn.Close()
	_ = s.conn.SetDeadline(s.p.within(min(2*time.Second, s.p.Timeout)))
	if s.send(opClose, []byte{0x03, 0xe8}) != nil {
		return
	}
	for {
		if op, _, err := s.next(); err != nil || op == opClose {
			return
		}
	}
}
