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

// This server answers 401 before the upgrade, and lets a client read only the
// rooms that its token names, such as with the scope "read:garden".
func ExampleGate_Authenticate() {
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:       []jwtauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		AnySubject: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: tokens, Dialect: wsauth.NoDialect{}, OnExpiry: wsauth.OnExpiryClose})
	if err != nil {
		log.Fatal(err)
	}
	upgrader, err := wsconn.New(wsconn.Config{})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /rooms/{room}", func(w http.ResponseWriter, r *http.Request) {
		id, err := gate.Authenticate(w, r, wsauth.FromBearer, wsauth.FromCookie("token", wsauth.Origins{}))
		if err != nil {
			return // Authenticate has answered the request
		}
		if !id.Can(wsauth.Read, r.PathValue("room")) {
			http.Error(w, "Forbidden", http.StatusForbidden)
			return
		}
		conn, err := upgrader.Accept(w, r)
		if err != nil {
			return // Accept has answered the request
		}
		session, err := gate.AttachIdentity(r.Context(), conn, wsauth.Peer{Addr: wsauth.RemoteAddr(r)}, id)
		if err != nil {
			return // AttachIdentity has closed the connection
		}
		defer session.Close(1000, "")
		for {
			if _, err := session.Next(r.Context()); err != nil {
				return
			}
		}
	})
}

// This server has its own logins and needs no tokens. The session of a user
// ends when the user is logged out.
func ExampleGate_AttachIdentity() {
	type login struct {
		user  string
		begun time.Time
	}
	var logins map[string]login // by the value of the cookie
	loginOf := func(r *http.Request) (login, bool) {
		cookie, err := r.Cookie("session")
		if err != nil {
			return login{}, false
		}
		found, ok := logins[cookie.Value]
		return found, ok
	}
	gate, err := wsauth.New(wsauth.Config{Dialect: wsauth.NoDialect{}, OnExpiry: wsauth.OnExpiryClose, MaxLifetime: 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	upgrader, err := wsconn.New(wsconn.Config{}) // which checks the origin
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		known, ok := loginOf(r)
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		conn, err := upgrader.Accept(w, r)
		if err != nil {
			return // Accept has answered the request
		}
		session, err := gate.AttachIdentity(r.Context(), conn, wsauth.Peer{Addr: wsauth.RemoteAddr(r)}, wsauth.Identity{
			Subject: known.user, IssuedAt: known.begun, Permissions: []string{wsauth.Read},
		})
		if err != nil {
			return // AttachIdentity has closed the connection
		}
		defer session.Close(1000, "")
		for {
			if _, err := session.Next(r.Context()); err != nil {
				return
			}
		}
	})
	http.HandleFunc("POST /logout", func(_ http.ResponseWriter, r *http.Request) {
		if known, ok := loginOf(r); ok {
			gate.Revoke(known.user, time.Now())
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
