package transports_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// A service on gorilla/websocket puts its connections on a gate.
func Example_gorilla() {
	gate, adapter, origins := guards()
	upgrader := gorilla.Upgrader{
		CheckOrigin: func(r *http.Request) bool { return origins.Check(r) == nil },
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := adapter.Wrap(w)
		ws, err := upgrader.Upgrade(rw, r, w.Header())
		if err != nil {
			return // Upgrade has answered the request
		}
		session := gate.Attach(wsadapter.Gorilla(ws, rw), wsauth.Peer{Addr: wsauth.RemoteAddr(r)})
		serve(session)
	})
	show(handler)
	// Output:
	// {"error":"Authentication failed"}
	// closed with 4401
}

// A service on coder/websocket puts its connections on a gate.
func Example_coder() {
	gate, adapter, origins := guards()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := origins.Check(r); err != nil {
			http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
			return
		}
		rw := adapter.Wrap(w)
		ws, err := coder.Accept(rw, r, &coder.AcceptOptions{
			InsecureSkipVerify: true, // origins.Check has been called
		})
		if err != nil {
			return // Accept has answered the request
		}
		session := gate.Attach(wsadapter.Coder(ws, rw), wsauth.Peer{Addr: wsauth.RemoteAddr(r)})
		serve(session)
	})
	show(handler)
	// Output:
	// {"error":"Authentication failed"}
	// closed with 4401
}

// guards returns what both services have, once.
func guards() (*wsauth.Gate, *wsadapter.Adapter, wsauth.Origins) {
	tokens, err := verifier(secret, "pi-1")
	if err != nil {
		log.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: tokens})
	if err != nil {
		log.Fatal(err)
	}
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return gate, adapter, wsauth.Origins{}
}

// serve prints what an authenticated client sends.
func serve(session *wsauth.Session) {
	defer session.Close(1000, "")
	for {
		msg, err := session.Next(context.Background())
		if err != nil {
			return
		}
		fmt.Printf("%s\n", msg)
	}
}

// show sends a bad token and prints the answer.
func show(handler http.Handler) {
	server := httptest.NewServer(handler)
	defer server.Close()
	ctx := context.Background()
	client, _, err := coder.Dial(ctx, server.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseNow()
	if err := client.Write(ctx, coder.MessageText, []byte(`{"token":"a.b.c"}`)); err != nil {
		log.Fatal(err)
	}
	_, answer, err := client.Read(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer))
	_, _, err = client.Read(ctx)
	fmt.Println("closed with", int(coder.CloseStatus(err)))
}
