//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// fake is a server that makes the mistakes that a test asks for.
type fake struct {
	*httptest.Server
	// alter, if not nil, returns the frames that viewers get instead of message
	// n.
	alter func(n int, frame []byte) [][]byte
	// after is sent to viewers after the last message of -start.
	after []byte
	// answer is the answer to a token.
	answer string
	// refuse, if not 0, is the status of every connection after the first
	// admit.
	refuse, admit int

	mu      sync.Mutex
	viewers []net.Conn
	dialled int
	asked   []string
}

func newFake(t *testing.T) *fake {
	f := &fake{answer: `{"status":"authenticated"}`}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", f.serve)
	mux.HandleFunc("POST /start", f.start)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		f.mu.Lock()
		for _, c := range f.viewers {
			c.Close()
		}
		f.mu.Unlock()
		f.Close()
	})
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.dialled++
	refuse := f.refuse != 0 && f.dialled > f.admit
	f.mu.Unlock()
	if refuse {
		w.WriteHeader(f.refuse)
		return
	}
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	f.mu.Lock() // a client that is connected must get all later messages
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	f.viewers = append(f.viewers, conn)
	f.mu.Unlock()
	f.read(conn, rw.Reader)
}

// read reads the client's frames. Their mask is zero, so the payload is not
// masked.
func (f *fake) read(conn net.Conn, r *bufio.Reader) {
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			return
		}
		size := int(head[1] & 0x7f)
		if size == 126 {
			if _, err := io.ReadFull(r, head[2:4]); err != nil {
				return
			}
			size = int(head[2])<<8 | int(head[3])
		}
		payload := make([]byte, 4+size)
		if _, err := io.ReadFull(r, payload); err != nil || head[0]&0xf == opClose {
			return
		}
		f.hear(conn, payload[4:])
	}
}

// hear answers a message of a client.
func (f *fake) hear(conn net.Conn, text []byte) {
	var in struct{ Token, Text, ID string }
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, string(text))
	switch err := json.Unmarshal(text, &in); {
	case err != nil:
		conn.Write(serverFrame(0x81, "hello yourself"))
	case in.Token != "":
		conn.Write(serverFrame(0x81, f.answer))
	default:
		_, count, _ := strings.Cut(in.ID, "-")
		n, _ := strconv.Atoi(count)
		message, _ := json.Marshal(wire.Message{Text: in.Text})
		conn.Write(serverFrame(0x81, string(wire.Ack(in.ID, false))))
		f.broadcast(n, serverFrame(0x81, string(wire.Frame(wire.Live, "", message))))
	}
}

// broadcast sends message n to the viewers. The caller has locked mu.
func (f *fake) broadcast(n int, frame []byte) {
	frames := [][]byte{frame}
	if f.alter != nil {
		frames = f.alter(n, frame)
	}
	for _, c := range f.viewers {
		c.Write(bytes.Join(frames, nil))
	}
}

// start publishes the text of each message in a frame of its own, without JSON.
func (f *fake) start(w http.ResponseWriter, r *http.Request) {
	count, _ := strconv.Atoi(r.FormValue("count"))
	size, _ := strconv.Atoi(r.FormValue("size"))
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range count {
		f.broadcast(n, serverFrame(0x81, string(mark.Append(nil, r.FormValue("run"), int64(n), time.Now(), size))))
	}
	for _, c := range f.viewers {
		c.Write(f.after)
	}
	fmt.Fprintf(w, `{"published":%d,"seconds":1}`, count)
}

func (f *fake) url() string { return "ws" + strings.TrimPrefix(f.URL, "http") + "/ws" }

// measured runs the command with -json and returns its report, its exit code
// and the text on its standard error.
func measured(t *testing.T, args ...string) (r report, code int, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"-json"}, args...), "a token", &out, &errs)
	if code != exitUsage {
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatalf("%v in %q; stderr: %s", err, &out, &errs)
		}
	}
	return r, code, errs.String()
}
