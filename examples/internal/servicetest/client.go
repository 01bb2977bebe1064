package servicetest

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/relayguard/relayguard/examples/internal/client"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// visitor opens WebSockets: like a browser if the header has an Origin, like a
// program otherwise.
type visitor struct {
	t   testing.TB
	url string // without a path
}

// dial opens a WebSocket, or returns nil and the response of a refusal. From is
// the client's address, or empty.
func (c *visitor) dial(path, from string, header http.Header, subprotocols ...string) (*websocket.Conn, *http.Response) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	dialer := net.Dialer{}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	transport := &http.Transport{DialContext: dialer.DialContext}
	c.t.Cleanup(transport.CloseIdleConnections)
	ws, res, err := websocket.Dial(ctx, strings.Replace(c.url, "http", "ws", 1)+path, &websocket.DialOptions{
		HTTPHeader: header, Subprotocols: subprotocols, HTTPClient: client.New(&http.Client{Transport: transport}),
	})
	if res == nil {
		c.t.Fatalf("%s: %v", path, err)
	}
	if err != nil {
		return nil, res
	}
	c.t.Cleanup(func() { ws.CloseNow() })
	return ws, res
}

// read returns the next message of ws.
func read(t testing.TB, ws *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	_, text, err := ws.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// expect fails the test unless the next message of ws is want.
func expect(t testing.TB, ws *websocket.Conn, want string) {
	t.Helper()
	if got := read(t, ws); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// expectClose fails the test unless ws is closed with the code.
func expectClose(t testing.TB, ws *websocket.Conn, code websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	if _, text, err := ws.Read(ctx); websocket.CloseStatus(err) != code {
		t.Fatalf("got %q and %v, want the close code %d", text, err, code)
	}
}

func write(t testing.TB, ws *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// leaveNone fails the test if more goroutines run at its end than now. It looks
// after the cleanups that are registered later.
func leaveNone(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		testkit.Eventually(t, "the goroutines of the service end", func() bool { return runtime.NumGoroutine() <= before })
	})
}
