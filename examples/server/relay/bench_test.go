package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/history"
)

// BenchmarkPublish publishes over a socket until the log has every message. The
// publisher writes as fast as the relay reads, many frames at once. With an id,
// each message is acknowledged. One op is one message of a word and its
// figures.
func BenchmarkPublish(b *testing.B) {
	for _, id := range []bool{false, true} {
		b.Run(map[bool]string{false: "without-id", true: "with-id"}[id], func(b *testing.B) {
			log, err := history.Open(b.Context(), history.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			r, token := newTestRelay(b, Config{Log: log, PublishRate: rate.Inf})
			server := httptest.NewServer(r)
			defer server.Close()
			defer r.Shutdown(b.Context())
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET /?watch=0 HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
			conn.Write(frame(nil, `{"token":"`+token+`"}`))
			go io.Copy(io.Discard, conn) // the answers
			done := log.Reader(history.Latest())

			b.ReportAllocs()
			b.ResetTimer()
			failed := make(chan error, 1)
			go func() {
				var buf bytes.Buffer
				for i := range b.N {
					text := `{"text":" thinking","memory":{"available_mb":1023.5,"percent_used":47.3,"total_mb":1940.1}`
					if id {
						text += `,"id":"` + strconv.Itoa(i) + `"`
					}
					buf.Write(frame(nil, text+"}"))
					if buf.Len() > 32<<10 || i == b.N-1 {
						if _, err := conn.Write(buf.Bytes()); err != nil {
							failed <- err
							return
						}
						buf.Reset()
					}
				}
			}()
			late := time.After(time.Minute)
			for log.Position().Seq() < uint64(b.N) {
				select {
				case <-done.Changed():
					_, err = done.TryNext()
				case err = <-failed:
				case <-late:
					err = errors.New("the messages do not arrive")
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// frame appends a text frame of a client, RFC 6455 section 5.2, whose mask is
// zero.
func frame(b []byte, text string) []byte {
	b = append(b, 0x81)
	if len(text) < 126 {
		b = append(b, 0x80|byte(len(text)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(text)))
	}
	return append(append(b, 0, 0, 0, 0), text...)
}
