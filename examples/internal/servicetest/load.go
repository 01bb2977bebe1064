package servicetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/relayguard/relayguard/examples/internal/client"
)

// Load does the work of many clients for a benchmark, each from an address of
// its own, because the services limit what an address may do. It needs Linux,
// where every address of 127.0.0.0/8 is one of the machine.
type Load struct {
	tb  testing.TB
	url string

	got     chan struct{} // a message was received by one client
	writer  *websocket.Conn
	readers int
	senders []*http.Client
	header  http.Header
}

// NewChatLoad joins the room of a chat with so many members.
func NewChatLoad(tb testing.TB, url string, p *Provider, members int) *Load {
	l := &Load{tb: tb, url: url, got: make(chan struct{}, members), readers: members}
	for i := range members {
		header := bearer(p.Token(tb, fmt.Sprint("user-", i), "read publish", nil))
		l.writer = l.follow("/rooms/lobby", i, header)
	}
	l.header = bearer(p.Token(tb, "guest", "read:attic", nil))
	l.senders = senders(tb, 250)
	return l
}

// NewDashboardLoad opens so many WebSockets of a dashboard, started with
// [Users].
func NewDashboardLoad(tb testing.TB, url string, sockets int) *Load {
	l := &Load{tb: tb, url: url, got: make(chan struct{}, sockets), readers: sockets}
	d := &dashboard{visitor: &visitor{tb, url}, http: client.New(nil)}
	l.header = http.Header{"Cookie": {"session=" + d.enter("bob")}}
	for i := range sockets {
		l.follow("/live", i, l.header)
	}
	l.senders = senders(tb, 2)
	return l
}

func address(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/250, 1+i%250) }

func senders(tb testing.TB, n int) (all []*http.Client) {
	for i := range n {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address(i))}}
		transport := &http.Transport{DialContext: dialer.DialContext}
		tb.Cleanup(transport.CloseIdleConnections)
		all = append(all, client.New(&http.Client{Transport: transport}))
	}
	return all
}

// follow opens a WebSocket and counts its messages.
func (l *Load) follow(path string, i int, header http.Header) *websocket.Conn {
	ws, res := (&visitor{l.tb, l.url}).dial(path, address(i), header)
	if ws == nil {
		l.tb.Fatal(res.Status)
	}
	go func() {
		for {
			if _, _, err := ws.Read(context.Background()); err != nil {
				return
			}
			l.got <- struct{}{}
		}
	}()
	return ws
}

func (l *Load) await(messages int) {
	for range messages * l.readers {
		<-l.got
	}
}

// Say sends messages of one member, and waits until all members have them.
func (l *Load) Say(messages int) {
	go func() {
		for range messages {
			if err := l.writer.Write(context.Background(), websocket.MessageText, []byte("Has the train arrived yet?")); err != nil {
				l.tb.Error(err)
				return
			}
		}
	}()
	l.await(messages)
}

// Knock sends requests with a valid token for a room that its user may not
// read.
func (l *Load) Knock(requests int) {
	for i := range requests {
		l.send(i, "GET", "/rooms/lobby", "", http.StatusForbidden)
	}
}

// Publish publishes values, and waits until all WebSockets have them.
func (l *Load) Publish(values int) {
	go func() {
		for i := range values {
			l.send(i, "POST", "/topics/sales", `{"eur":12345}`, http.StatusNoContent)
		}
	}()
	l.await(values)
}

func (l *Load) send(i int, method, path, body string, want int) {
	req, err := http.NewRequest(method, l.url+path, strings.NewReader(body))
	if err != nil {
		l.tb.Error(err)
		return
	}
	req.Header = l.header.Clone()
	req.Header.Set("Content-Type", "application/json")
	res, err := l.senders[i%len(l.senders)].Do(req)
	if err != nil {
		l.tb.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != want {
		l.tb.Errorf("%s %s: %s", method, path, res.Status)
	}
}
