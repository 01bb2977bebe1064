package wsconn_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// ReadMessage returns both kinds of message, and only a text must be UTF-8. The
// limit is the same. Read refuses a binary message at its header.
func TestBinaryMessages(t *testing.T) {
	big := strings.Repeat("\xff", 4096)
	split := append(part(opBinary, "\xff"), frame(opContinuation, "\x00")...)
	for _, row := range []struct {
		name   string
		send   []byte
		binary bool
		want   string
		err    error // of ReadMessage
		text   error // of Read, nil: the same
	}{
		{"a text", frame(opText, "hi"), false, "hi", nil, nil},
		{"a text that is not UTF-8", frame(opText, "\xff"), false, "", wsauth.ErrInvalidUTF8, nil},
		{"binary", frame(opBinary, big), true, big, nil, wsauth.ErrBinary},
		{"binary in fragments", split, true, "\xff\x00", nil, wsauth.ErrBinary},
		{"binary, empty", frame(opBinary, ""), true, "", nil, wsauth.ErrBinary},
		{"binary, too big", frame(opBinary, big+"x"), false, "", wsauth.ErrTooBig, wsauth.ErrBinary},
	} {
		for _, both := range []bool{true, false} {
			want := row.err
			if !both && row.text != nil {
				want = row.text
			}
			t.Run(row.name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
					go peer.Write(row.send)
					var got []byte
					var binary bool
					var err error
					if both {
						got, binary, err = conn.ReadMessage(t.Context())
					} else {
						got, err = conn.Read(t.Context())
					}
					if !errors.Is(err, want) || err == nil && (string(got) != row.want || binary != (both && row.binary)) {
						t.Errorf("both: %t: %.9q, binary: %t, %v", both, got, binary, err)
					}
				})
			})
		}
	}
}

func TestWriteBinary(t *testing.T) {
	inBubble(t, func(t *testing.T, conn *wsconn.Conn, peer *client) {
		for _, n := range []int{0, 126, 65536} {
			data := bytes.Repeat([]byte{0xff}, n)
			go conn.WriteBinary(t.Context(), data)
			wantFrame(t, peer, opBinary, string(data))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := conn.WriteBinary(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
