package wsauth_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// A plain implementation of RFC 7515 and RFC 7519 accepts every token that
// HS256 accepts.
func FuzzVerify(f *testing.F) {
	f.Add(forge(common, good(""), secret))
	f.Add(forge(`{"alg":"HS256","kid":"x"}`, good(`,"aud":["a"],"scope":"publish"`), secret))
	f.Add(forge(`{"alg":"none"}`, good(""), nil))
	f.Add("..")
	v := newHS256(f, nil)
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.VerifyAt([]byte(token), now)
		if err != nil {
			reasonOf(t, err)
			return
		}
		parts := strings.Split(token, ".")
		enc := base64.RawURLEncoding.Strict()
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(parts[0] + "." + parts[1]))
		if signature, err := enc.DecodeString(parts[2]); err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
			t.Fatalf("accepted a signature that is none: %q", token)
		}
		_ = id
	})
}

// The claims are signed, since no fuzzer finds a valid signature. encoding/json
// reads the same values from accepted claims.
func FuzzClaims(f *testing.F) {
	f.Add(good(""))
	f.Add(good(`,"aud":[],"jti":"\ud83d\ude00","nbf":1,"iat":2,"role":"admin","scope":"publish admin"`))
	f.Add(`{"device":"pi-1","exp":0}`)
	v := newHS256(f, nil)
	f.Fuzz(func(t *testing.T, claims string) {
		id, err := v.VerifyAt([]byte(forge(common, claims, secret)), now)
		if err != nil {
			reasonOf(t, err)
			return
		}
		var plain map[string]any
		dec := json.NewDecoder(strings.NewReader(claims))
		dec.UseNumber()
		if err := dec.Decode(&plain); err != nil || dec.More() {
			t.Fatalf("accepted what is no JSON object: %q %v", claims, err)
		}
		if plain["device"] != id.Device || id.Device != "pi-1" && id.Device != "pi-2" {
			t.Fatalf("device %q of %q", id.Device, claims)
		}
		if exp, err := plain["exp"].(json.Number).Int64(); err != nil || exp != id.ExpiresAt.Unix() || exp <= now.Unix() {
			t.Fatalf("exp %v of %q", id.ExpiresAt, claims)
		}
		if jti, ok := plain["jti"]; ok && jti != id.TokenID {
			t.Fatalf("jti %q of %q", id.TokenID, claims)
		}
	})
}

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
					if v.Rotate(wsauth.Key{Secret: other}) != nil || v.Rotate(wsauth.Key{Secret: secret}) != nil {
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
