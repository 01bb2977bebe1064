package browser_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// wire is a TCP proxy that keeps what passes through it.
type wire struct {
	addr string

	mu    sync.Mutex
	conns []*passed
}

// passed is what the two sides of a connection have sent.
type passed struct {
	mu             sync.Mutex
	client, server bytes.Buffer
}

func (p *passed) copies() (client, server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client.String(), p.server.String()
}

func tap(t *testing.T, addr string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: ln.Addr().String()}
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			p := &passed{}
			w.mu.Lock()
			w.conns = append(w.conns, p)
			w.mu.Unlock()
			pass := func(to, from net.Conn, kept *bytes.Buffer) {
				defer to.Close()
				buf := make([]byte, 32<<10)
				for {
					n, err := from.Read(buf)
					p.mu.Lock()
					kept.Write(buf[:n])
					p.mu.Unlock()
					if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
						return
					}
				}
			}
			serving.Go(func() { pass(server, client, &p.client) })
			serving.Go(func() { pass(client, server, &p.server) })
		}
	})
	return w
}

// sockets returns what was sent on the WebSocket connections after each
// handshake, and the heads of the server's answers.
func (w *wire) sockets() (client, server, heads []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.conns {
		asked, answered := p.copies()
		head, frames, ok := strings.Cut(answered, "\r\n\r\n")
		if !ok || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			continue
		}
		_, sent, _ := strings.Cut(asked, "\r\n\r\n")
		client, server, heads = append(client, sent), append(server, frames), append(heads, head)
	}
	return client, server, heads
}

// opening returns the first bytes of the server's data frames, and the sum of
// their payloads.
func opening(t *testing.T, wire string) (first []byte, sum int) {
	t.Helper()
	r := strings.NewReader(wire)
	for r.Len() > 0 {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatal(err)
		}
		n := int(head[1])
		for i, more := 0, map[int]int{126: 2, 127: 8}[n]; i < more; i++ {
			if i == 0 {
				n = 0
			}
			b, _ := r.ReadByte()
			n = n<<8 | int(b)
		}
		if _, err := r.Seek(int64(n), io.SeekCurrent); err != nil {
			t.Fatal(err)
		}
		if head[0]&0x8 == 0 {
			first, sum = append(first, head[0]), sum+n
		}
	}
	return first, sum
}

// published waits until a text is in the history.
func published(t *testing.T, server *relay.Server, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), relay.Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+server.Addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(`"`+text+`"`)) {
			return
		}
	}
}

// TestCompressedHistory opens the page on a long history: the browser agrees to
// compression, gets the history in compressed frames, and shows all of it. Live
// words come as they are.
func TestCompressedHistory(t *testing.T) {
	server := relay.New(t)
	server.Start()
	device := publisher(t, server)
	const words = 1000
	for i := range words {
		device(fmt.Sprintf(`{"text":"word%d "}`, i))
	}
	published(t, server, fmt.Sprintf("word%d ", words-1))
	through := tap(t, server.Addr)
	b := open(t, "http://"+through.addr+"/")
	b.shows("#text", "word0 ")
	b.shows("#text", fmt.Sprintf("word%d ", words-1))
	if n := value[int](b, fmt.Sprintf(`[...Array(%d).keys()].filter((i) => document.querySelector('#text').textContent.includes('word' + i + ' ')).length`, words)); n != words {
		t.Errorf("the page shows %d of %d words", n, words)
	}
	device(`{"text":"A live word."}`)
	b.shows("#text", "A live word.")
	b.silent()

	_, sent, heads := through.sockets()
	if len(sent) != 1 {
		t.Fatalf("%d connections", len(sent))
	}
	if !strings.Contains(heads[0], "\r\nSec-Websocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover") {
		t.Errorf("the browser and the server have not agreed:\n%s", heads[0])
	}
	first, sum := opening(t, sent[0])
	if len(first) < 2 || !slices.Equal(first, append(bytes.Repeat([]byte{0xc1}, len(first)-1), 0x81)) {
		t.Errorf("the frames begin with % x, want c1 for the history and 81 for the live word", first)
	}
	t.Logf("%d words in %d frames of %d bytes", words+1, len(first), sum)
	if sum > words*20 {
		t.Errorf("%d bytes for %d words", sum, words)
	}
}

// TestBrowserCompresses shows why the server accepts compressed messages: a
// browser that has agreed to compression compresses what it sends, whatever
// its size, and a page that publishes must not be disconnected for that.
func TestBrowserCompresses(t *testing.T) {
	server := relay.New(t)
	server.Start()
	through := tap(t, server.Addr)
	b := open(t, "http://"+through.addr+"/")
	b.says("Quiet")
	got := value[string](b, fmt.Sprintf(`new Promise((done) => {
		const ws = new WebSocket('ws://' + location.host + '/ws?watch=0');
		ws.onopen = () => ws.send(JSON.stringify({ token: %q }));
		ws.onclose = (e) => done('closed with ' + e.code);
		ws.onmessage = (e) => {
			const said = JSON.parse(e.data);
			if (said.status === 'authenticated') {
				ws.send(JSON.stringify({ text: 'From a browser: ' + 'again and '.repeat(1000), id: '1' }));
				ws.send(JSON.stringify({ text: ' and again.', id: '2' }));
			} else if (said.ack === '2') {
				done(ws.extensions);
			}
		};
	})`, server.Token()))
	if !strings.HasPrefix(got, "permessage-deflate") {
		t.Fatal(got)
	}
	b.shows("#text", "From a browser: again and again")
	b.shows("#text", " and again.")
	b.silent()
	clients, _, _ := through.sockets()
	if len(clients) != 2 {
		t.Fatalf("%d connections", len(clients))
	}
	if first := clients[1][0]; first != 0xc1 {
		t.Errorf("the first frame of the browser begins with %#x: if browsers no longer compress, the server need not accept it", first)
	}
	if len(clients[1]) > 2000 {
		t.Errorf("the browser has sent %d bytes", len(clients[1]))
	}
}
