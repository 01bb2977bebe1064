package main

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const writeWait = 10 * time.Second

// bare does the least possible work: it encodes one frame and writes it to
// every socket in a loop. It answers no ping, and reads only to notice the end
// of a connection.
type bare struct {
	hub *hub[*bareViewer, []byte]
	to  []*bareViewer
}

type bareViewer struct {
	mu   sync.Mutex
	conn net.Conn
}

func newBare(keep int) *bare { return &bare{hub: newHub[*bareViewer](keep, textFrame)} }

// textFrame returns text in one frame, without a mask, as servers send it (RFC
// 6455, section 5.2).
func textFrame(text []byte) []byte {
	b := make([]byte, 0, 10+len(text))
	switch n := len(text); {
	case n <= 125:
		b = append(b, 0x81, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x81, 127), uint64(n))
	}
	return append(b, text...)
}

func (p *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if key == "" {
		http.Error(w, "WebSocket only", http.StatusUpgradeRequired)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
	if err != nil {
		conn.Close()
		return
	}
	go p.serve(&bareViewer{conn: conn}) // so that net/http can release the request
}

func (p *bare) serve(v *bareViewer) {
	defer v.conn.Close()
	var history []byte
	v.mu.Lock() // so that messages are written after the history
	p.hub.join(v, func(f []byte) { history = f })
	v.write(history)
	v.mu.Unlock()
	defer p.hub.leave(v)
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{v.conn}, make([]byte, 128))
}

func (v *bareViewer) write(frame []byte) {
	_ = v.conn.SetWriteDeadline(time.Now().Add(writeWait))
	if _, err := v.conn.Write(frame); err != nil {
		v.conn.Close()
	}
}

func (p *bare) publish(message []byte) error {
	var frame []byte
	frame, p.to = p.hub.add(message, p.to)
	for _, v := range p.to {
		v.mu.Lock()
		v.write(frame)
		v.mu.Unlock()
	}
	return nil
}
