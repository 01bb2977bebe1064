package wsauth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// A session never returns a message before a valid token, nor text that is not
// JSON. It never authorizes without a valid authentication, and it ends after
// any input. Lines of the input are messages. "T" is a valid token, "B" an
// invalid one, "K" a rotation that withdraws the key, "R" a revocation of the
// device, and "X" a call of End.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"T\n{\"text\":\"x\"}\nT\n5", "{}\nT", "B\nT", "T\nB\n{}", `{"token":null}`, "T\n{\"token\":\"a\",\"token\":\"b\"}\n{}",
		"T\n1\nK\n2\nT\n3", "T\n1\nR\n2\nT\n3", "T\nX\n1", "K\nR\nT\n1",
	} {
		f.Add([]byte(seed))
	}
	good := live("pi-1")
	f.Fuzz(func(t *testing.T, input []byte) {
		gate, v, _ := newGate(t, wsauth.Config{})
		conn := newScript()
		s := gate.Attach(conn, wsauth.Peer{})
		shown, right, revoked, over := false, false, false, false
		for line := range bytes.SplitSeq(input, []byte("\n")) {
			var happens any
			switch string(line) {
			case "T":
				conn.in = append(conn.in, func() { shown, right = true, !revoked })
				happens = tokenMessage(good)
			case "B":
				happens = tokenMessage(good + "x")
			case "K":
				happens = func() {
					if v.Rotate(jwtauth.Key{Secret: other}) != nil || v.Rotate(jwtauth.Key{Secret: secret}) != nil {
						t.Fatal("no rotation")
					}
					right = false
				}
			case "R":
				happens = func() { gate.Revoke("pi-1", time.Now()); right, revoked = false, true }
			case "X":
				happens = func() { over = gate.End(s.ID()) }
			default:
				happens = string(line)
			}
			conn.in = append(conn.in, happens)
		}
		conn.in = append(conn.in, errors.New("gone"))
		for n := 0; ; n++ {
			msg, err := s.Next(t.Context())
			if err != nil {
				break
			}
			if n > len(input) {
				t.Fatal("no end")
			}
			if may := s.Authorize(wsauth.Publish) == nil; !shown || over || may != right || !json.Valid(msg) {
				t.Fatalf("returned %q, authorized %t; shown %t, right %t, over %t", msg, may, shown, right, over)
			}
		}
		s.Close(1000, "")
		conn.mu.Lock()
		defer conn.mu.Unlock()
		if conn.closes != 1 {
			t.Fatalf("closed %d times", conn.closes)
		}
		if list := gate.Sessions(); list != nil {
			t.Fatalf("left: %+v", list)
		}
	})
}
