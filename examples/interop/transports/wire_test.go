package transports_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// A message that arrives together with the handshake is delivered.
func TestEarlyMessage(t *testing.T) {
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		accepted := make(chan transports.Conn, 1)
		server := httptest.NewServer(s.handler(t, accepted))
		defer server.Close()
		raw, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if _, err := io.WriteString(raw, handshake+"\r\n"+string(frame(opText, "early"))); err != nil {
			t.Fatal(err)
		}
		conn := <-accepted
		defer conn.Abort()
		if msg, err := conn.Read(t.Context()); string(msg) != "early" || err != nil {
			t.Errorf("%q %v", msg, err)
		}
	})
}

// Over TLS, whose Close may wait for the peer, every end has the same bound.
func TestTLS(t *testing.T) {
	onEach(t, brief, func(t *testing.T, s stage) {
		accepted := make(chan transports.Conn, 1)
		server := httptest.NewTLSServer(s.handler(t, accepted))
		defer server.Close()
		trusted := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		trusted.NextProtos = []string{"http/1.1"}
		trusted.ServerName = "example.com"
		for _, row := range ends {
			raw, err := tls.Dial("tcp", server.Listener.Addr().String(), trusted)
			if err != nil {
				t.Fatal(err)
			}
			p := hello(t, raw)
			conn := <-accepted
			meet(t, row.name, conn, p, func(p *peer) { p.Write(header(opText, 1<<40)) }, row.end)
			p.Close()
		}
	})
}
