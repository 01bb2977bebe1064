package transports_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Other implementations negotiate compression with wsconn, decompress its
// frames, and are understood when they compress theirs.
func TestDeflate(t *testing.T) {
	up, err := wsconn.New(wsconn.Config{Compress: func(*http.Request) bool { return true }, ReadLimit: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat(`{"text":"word "}`, 2000)
	frame := wsconn.NewCompressedFrame([]byte(long))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(1000, "")
		for {
			if conn.WriteFrame(frame) != nil || conn.Write(context.Background(), []byte("plain")) != nil {
				return
			}
			msg, err := conn.Read(context.Background())
			if err != nil || conn.Write(context.Background(), msg) != nil {
				return
			}
		}
	}))
	defer server.Close()

	type dial func(t *testing.T) (extensions string, read func() string, write func(string))
	viaCoder := func(mode coder.CompressionMode) dial {
		return func(t *testing.T) (string, func() string, func(string)) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			ws, res, err := coder.Dial(ctx, server.URL, &coder.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ws.CloseNow() })
			ws.SetReadLimit(-1)
			return res.Header.Get("Sec-WebSocket-Extensions"), func() string {
					_, msg, err := ws.Read(ctx)
					if err != nil {
						t.Fatal(err)
					}
					return string(msg)
				}, func(s string) {
					if err := ws.Write(ctx, coder.MessageText, []byte(s)); err != nil {
						t.Fatal(err)
					}
				}
		}
	}
	for name, connect := range map[string]dial{
		"coder with context":    viaCoder(coder.CompressionContextTakeover),
		"coder without context": viaCoder(coder.CompressionNoContextTakeover),
		"gorilla": func(t *testing.T) (string, func() string, func(string)) {
			dialer := gorilla.Dialer{EnableCompression: true, HandshakeTimeout: patience}
			ws, res, err := dialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ws.Close() })
			return res.Header.Get("Sec-WebSocket-Extensions"), func() string {
					_, r, err := ws.NextReader()
					var b bytes.Buffer
					if err == nil {
						_, err = io.Copy(&b, r)
					}
					if err != nil {
						t.Fatal(err)
					}
					return b.String()
				}, func(s string) {
					if err := ws.WriteMessage(gorilla.TextMessage, []byte(s)); err != nil {
						t.Fatal(err)
					}
				}
		},
	} {
		t.Run(name, func(t *testing.T) {
			extensions, read, write := connect(t)
			if !strings.HasPrefix(extensions, "permessage-deflate") {
				t.Fatalf("no compression was negotiated: %q", extensions)
			}
			for _, said := range []string{"hi", strings.Repeat("a long message ", 4000), "", "hi"} {
				if got := read(); got != long {
					t.Fatalf("%.40q", got)
				}
				if got := read(); got != "plain" {
					t.Fatalf("%.40q", got)
				}
				write(said)
				if got := read(); got != said {
					t.Fatalf("%.40q, want %.40q", got, said)
				}
			}
		})
	}
}
