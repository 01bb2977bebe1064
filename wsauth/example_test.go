package wsauth_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// This server accepts messages only from clients that have sent a valid token
// with the scope "publish".
func Example() {
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Subjects: []string{"pi-1"},
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

// A stranger may have the token of pi-1. Revoke ends its sessions immediately,
// and pi-1 needs a new token.
func ExampleGate_Revoke() {
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Subjects: []string{"pi-1"},
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
	stolen, err := tokens.Sign(wsauth.ClaimSet{Subject: "pi-1", IssuedAt: noon.Add(-time.Hour), ExpiresAt: noon.Add(time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	_, err = gate.Verify(context.Background(), []byte(stolen), noon)
	fmt.Println(err)
	fmt.Println(gate.Revoke("pi-1", noon), "sessions ended")
	_, err = gate.Verify(context.Background(), []byte(stolen), noon)
	fmt.Println(err)
	// Output:
	// <nil>
	// 0 sessions ended
	// wsauth: token refused: revoked
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
