package transports_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// The libraries decompress what a client has compressed. The read limit counts
// what comes out, so that a small message cannot fill the memory.
func TestCompression(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, up := range map[string]transports.Accept{
		"coder": func(w http.ResponseWriter, r *http.Request) (transports.Conn, error) {
			rw := adapter.Wrap(w)
			ws, err := coder.Accept(rw, r, &coder.AcceptOptions{CompressionMode: coder.CompressionContextTakeover})
			if err != nil {
				return nil, err
			}
			return wsadapter.Coder(ws, rw), nil
		},
		"gorilla": func(w http.ResponseWriter, r *http.Request) (transports.Conn, error) {
			rw := adapter.Wrap(w)
			ws, err := (&gorilla.Upgrader{EnableCompression: true}).Upgrade(rw, r, nil)
			if err != nil {
				return nil, err
			}
			return wsadapter.Gorilla(ws, rw), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, err := up(w, r)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close(1009, "")
				for {
					msg, err := conn.Read(context.Background())
					if err != nil {
						ended <- err
						return
					}
					_ = conn.Write(context.Background(), msg)
				}
			}))
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			client, res, err := coder.Dial(ctx, server.URL, &coder.DialOptions{
				CompressionMode: coder.CompressionContextTakeover, CompressionThreshold: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.CloseNow()
			if res.Header.Get("Sec-WebSocket-Extensions") == "" {
				t.Fatal("no compression was negotiated")
			}
			for _, text := range []string{"hi", strings.Repeat("x", 4096), "hi"} {
				if err := client.Write(ctx, coder.MessageText, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := client.Read(ctx); string(got) != text || err != nil {
					t.Errorf("%.9q, %v", got, err)
				}
			}
			if err := client.Write(ctx, coder.MessageText, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := client.Read(ctx); coder.CloseStatus(err) != 1009 {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, wsauth.ErrTooBig) {
				t.Error(err)
			}
		})
	}
}
