package wsconn_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A message is encoded once and written to every connection.
func ExampleConn_WriteFrame() {
	var viewers []*wsconn.Conn
	frame := wsconn.NewFrame([]byte(`{"type":"live","messages":[]}`))
	for _, v := range viewers {
		_ = v.WriteFrame(frame)
	}
	fmt.Println(frame.Len(), "bytes on the wire")
	// Output: 31 bytes on the wire
}

// A connection that only watches has no goroutine. It gets one when its client
// sends a message, or has gone.
func ExampleConn_Park() {
	var serve func(conn *wsconn.Conn)
	serve = func(conn *wsconn.Conn) {
		for !conn.Park(func() { serve(conn) }) {
			msg, err := conn.Read(context.Background())
			if err != nil {
				_ = conn.Close(1000, "")
				return
			}
			fmt.Printf("%d bytes", len(msg))
		}
	}
	up, err := wsconn.New(wsconn.Config{})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /watch", func(w http.ResponseWriter, r *http.Request) {
		if conn, err := up.Accept(w, r); err == nil {
			go serve(conn) // the handler returns, so that net/http frees the request
		}
	})
}

func ExampleUpgrader_Accept() {
	up, err := wsconn.New(wsconn.Config{Origins: wsauth.Origins{Allow: []string{"https://relay.example"}}})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /echo", func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Accept(w, r)
		if err != nil {
			return // Accept has answered the request
		}
		defer conn.Close(1000, "")
		for {
			msg, err := conn.Read(context.Background())
			if err != nil {
				return
			}
			_ = conn.Write(context.Background(), msg)
		}
	})
}
