package wsauth_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// This server accepts messages only from clients that have sent a valid token.
func Example() {
	tokens, err := wsauth.NewHS256(wsauth.HS256Config{
		Keys:    []wsauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Devices: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: tokens})
	if err != nil {
		log.Fatal(err)
	}
	upgrader, err := wsconn.New(wsconn.Config{})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Accept(w, r)
		if err != nil {
			return // Accept has answered the request
		}
		session := gate.Attach(conn, wsauth.Peer{})
		defer session.Close(1000, "")
		for {
			msg, err := session.Next(r.Context())
			if err != nil {
				return
			}
			if session.Authorize(wsauth.Publish) == nil {
				fmt.Println(len(msg), "bytes to publish")
			}
		}
	})
}

func ExampleHS256() {
	tokens, err := wsauth.NewHS256(wsauth.HS256Config{
		Keys:    []wsauth.Key{{ID: "2026", Secret: []byte("32 random bytes, from the environment")}},
		Devices: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	token, err := tokens.Sign(wsauth.Claims{Device: "pi-1", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	id, err := tokens.Verify([]byte(token))
	fmt.Println(id.Device, id.Can(wsauth.Publish), id.Can(wsauth.Admin), err)
	_, err = tokens.Verify([]byte(token + "="))
	fmt.Println(err)
	// Output:
	// pi-1 true false <nil>
	// wsauth: token refused: malformed
}

// A stranger may have the token of pi-1. Revoke ends its sessions immediately,
// and pi-1 needs a new token.
func ExampleGate_Revoke() {
	tokens, err := wsauth.NewHS256(wsauth.HS256Config{
		Keys:    []wsauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Devices: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{
		Verifier: tokens,
		OnExpiry: wsauth.OnExpiryClose,
		Audit:    wsauth.AuditLog(slog.Default()),
	})
	if err != nil {
		log.Fatal(err)
	}
	noon := time.Now()
	stolen, err := tokens.Sign(wsauth.Claims{Device: "pi-1", IssuedAt: noon.Add(-time.Hour), ExpiresAt: noon.Add(time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	_, err = gate.VerifyAt([]byte(stolen), noon)
	fmt.Println(err)
	fmt.Println(gate.Revoke("pi-1", noon), "sessions ended")
	_, err = gate.VerifyAt([]byte(stolen), noon)
	fmt.Println(err)
	// Output:
	// <nil>
	// 0 sessions ended
	// wsauth: token refused: revoked
}

// Anyone can write claims. Without a check of the signature, this code believes
// any sender.
func ExampleHS256_incorrect() {
	forged := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"device":"pi-1","exp":9999999999}`)) + "."

	var claims struct{ Device string }
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(forged, ".")[1])
	_ = json.Unmarshal(payload, &claims)
	fmt.Println("wrong:", claims.Device)

	tokens, err := wsauth.NewHS256(wsauth.HS256Config{
		Keys:    []wsauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Devices: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = tokens.Verify([]byte(forged))
	fmt.Println("right:", err)
	// Output:
	// wrong: pi-1
	// right: wsauth: token refused: malformed
}

// A comparison of hosts is not enough: anyone in the network can change a page
// that comes over http://.
func ExampleOrigins_Check_incorrect() {
	r := httptest.NewRequest("GET", "https://relay.example/ws", nil)
	r.Header.Set("Origin", "http://relay.example")

	fmt.Println("wrong:", r.Header.Get("Origin") == "http://"+r.Host || r.Header.Get("Origin") == "https://"+r.Host)
	fmt.Println("right:", wsauth.Origins{}.Check(r))
	// Output:
	// wrong: true
	// right: wsauth: origin "http://relay.example" is not among ["https://relay.example"]
}
