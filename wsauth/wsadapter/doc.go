// Package wsadapter makes connections of github.com/gorilla/websocket and
// github.com/coder/websocket usable for package wsauth, in one line:
//
//	session := gate.Attach(wsadapter.Gorilla(ws, rw), peer)
//	session := gate.Attach(wsadapter.Coder(ws, rw), peer)
//
// Here, ws is the connection of the library, and rw is the ResponseWriter that
// the library has upgraded. This program prints what clients send whose token
// has the scope "publish", over gorilla/websocket:
//
//	package main
//
//	import (
//		"fmt"
//		"log"
//		"net/http"
//		"os"
//
//		"github.com/gorilla/websocket"
//		"github.com/relayguard/relayguard/wsauth"
//		"github.com/relayguard/relayguard/wsauth/jwtauth"
//		"github.com/relayguard/relayguard/wsauth/wsadapter"
//	)
//
//	func main() {
//		tokens, err := jwtauth.New(jwtauth.Config{
//			Keys:     []jwtauth.Key{{Secret: []byte(os.Getenv("JWT_SECRET"))}},
//			Subjects: []string{"pi-1"},
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//		gate, err := wsauth.New(wsauth.Config{Verifier: tokens})
//		if err != nil {
//			log.Fatal(err)
//		}
//		adapter, err := wsadapter.New(wsadapter.Config{})
//		if err != nil {
//			log.Fatal(err)
//		}
//		var origins wsauth.Origins
//		upgrader := websocket.Upgrader{
//			CheckOrigin: func(r *http.Request) bool { return origins.Check(r) == nil },
//		}
//		http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
//			rw := adapter.Wrap(w)
//			ws, err := upgrader.Upgrade(rw, r, w.Header())
//			if err != nil {
//				return // Upgrade has answered the request
//			}
//			peer := wsauth.Peer{Addr: wsauth.RemoteAddr(r)}
//			session := gate.Attach(wsadapter.Gorilla(ws, rw), peer)
//			defer session.Close(1000, "")
//			for {
//				msg, err := session.Next(r.Context())
//				if err != nil {
//					return
//				}
//				if session.Authorize(wsauth.Publish) == nil {
//					fmt.Printf("%s\n", msg)
//				}
//			}
//		})
//		log.Fatal(http.ListenAndServe("localhost:3000", nil))
//	}
//
// With coder/websocket, only the upgrade and the line with Attach differ:
//
//	ws, err := websocket.Accept(rw, r, &websocket.AcceptOptions{
//		InsecureSkipVerify: true, // origins.Check has been called
//	})
//	session := gate.Attach(wsadapter.Coder(ws, rw), peer)
//
// Call [wsauth.Origins.Check] before Accept, because the patterns of that
// library compare the host only.
//
// The library completes the handshake and decodes frames, with compression if
// you enable it. The [Conn] writes all frames itself, without compression, to
// the net.Conn that the ResponseWriter has kept. From then on, use the Conn
// only, and no method of the library's connection except those that return an
// address or the subprotocol. This package imports neither library. A Conn has
// bounds that the libraries do not have:
//
//   - [Conn.Close] sends one close frame and returns within
//     [Config].CloseGrace, even if the client stalls in the middle of a frame.
//     A message that arrives after a close frame is discarded.
//   - A write that makes no progress for [Config].WriteTimeout ends the
//     connection.
//   - A client that does not answer a ping is disconnected. This takes one
//     timer for each connection and no goroutine.
//   - A client that floods is disconnected with the close code 1008. Pings,
//     pongs that no ping asked for, and empty fragments of a message deliver
//     nothing: a client may send 100 of them at once and 5 a second, and one
//     more with each message.
//   - The end of a context ends a Read and not the connection, so that you can
//     still send the reason to the client.
//   - No error contains text of the client.
package wsadapter
