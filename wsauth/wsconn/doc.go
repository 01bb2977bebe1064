// Package wsconn accepts WebSocket connections and bounds how long a client can
// delay a write, a close or the answer to a ping. It is the transport of
// package wsauth, built on net/http and nhooyr.io/websocket, and also works
// without wsauth.
//
// This program returns every message to its sender:
//
//	package main
//
//	import (
//		"log"
//		"net/http"
//
//		"github.com/relayguard/relayguard/wsauth/wsconn"
//	)
//
//	func main() {
//		upgrader, err := wsconn.New(wsconn.Config{})
//		if err != nil {
//			log.Fatal(err)
//		}
//		http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
//			conn, err := upgrader.Accept(w, r)
//			if err != nil {
//				return // Accept has answered the request
//			}
//			defer conn.Close(1000, "")
//			for {
//				msg, err := conn.Read(r.Context())
//				if err != nil {
//					return
//				}
//				if conn.Write(r.Context(), msg) != nil {
//					return
//				}
//			}
//		})
//		log.Fatal(http.ListenAndServe("localhost:3000", nil))
//	}
//
// The library completes the handshake and decodes frames. This package uses the
// net.Conn below the library to add:
//
//   - [Conn.Close] sends one close frame and returns within
//     [Config].CloseGrace, even if the client stalls in the middle of a frame.
//     A message that arrives after a close frame, sent or received, is
//     discarded.
//   - A write that makes no progress for [Config].WriteTimeout ends the
//     connection. A write that makes progress continues.
//   - A client that does not answer a ping is disconnected. All connections of
//     an Upgrader share one timer for this, and their pings are spread over the
//     interval. If this process was stopped meanwhile, or the machine, Read
//     first looks for an answer that has arrived.
//   - [Conn.Park] lets a connection that only watches wait without a goroutine.
//   - A client that floods is disconnected with the close code 1008, and Read
//     returns [ErrFlooded]. Pings, pongs that no ping asked for, and empty
//     fragments of a message deliver nothing: a client may send 100 of them at
//     once and 5 a second, and one more with each message. After a close frame,
//     a client that goes on sending is read slowly.
//   - A [Frame] is encoded once and written to any number of connections. A
//     write needs no context, no timer and no allocation.
//   - A [Frame] of [NewCompressedFrame] is also compressed once, for all
//     clients that accept it; see [Config].Compress. Compression never keeps
//     the context of a message for the next one: that would need more than a
//     megabyte of memory for each connection.
//   - The Origin header is compared completely: scheme, host and port.
//
// The handler of the request may return while the connection stays open. The
// buffers of net/http for the request are then freed.
//
// # Parked connections
//
// A client that only watches sends nothing but pongs, and a goroutine that
// waits for them in Read, with the library's own goroutine and buffers, takes
// most of the memory of its connection. [Conn.Park] gives them back. One
// goroutine of the process then waits for all parked connections with epoll
// (Linux) or kqueue (macOS and the BSDs), reads what arrives into one buffer,
// and answers pings itself. It takes only whole and valid pings and pongs. At
// the first byte of anything else, a new goroutine calls your func, and Read
// continues with that byte and the library. So a message, a close frame or a
// violation has the same effect as without parking.
//
// A parked client is given up PongTimeout after a ping, as in Read, or up to a
// tenth of PongTimeout later, because time is counted in ticks of that length.
package wsconn
