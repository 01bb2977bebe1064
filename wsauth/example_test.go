package wsauth_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A WebSocket on which only those who have shown a token are listened to.
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
			return // it is answered
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

// An incident: somebody else may have pi-1's token. The session on it ends at once, and only a new token helps.
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
	fmt.Println(gate.Revoke("pi-1", noon), "sessions were open on it")
	_, err = gate.VerifyAt([]byte(stolen), noon)
	fmt.Println(err)
	// Output:
	// <nil>
	// 0 sessions were open on it
	// wsauth: token refused: revoked
}

// Anybody can write claims. Reading them without checking the signature, here to see "quickly" whose token it is,
// believes the sender.
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
