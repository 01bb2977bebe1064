// Package wsconn is the WebSocket transport of package wsauth, made of net/http and nhooyr.io/websocket. It can be
// used without wsauth as well.
//
//	up, err := wsconn.New(wsconn.Config{})
//	http.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
//		conn, err := up.Accept(w, r)
//		if err != nil {
//			return // answered already
//		}
//		defer conn.Close(1000, "")
//		…
//	})
//
// The library does the handshake and takes frames apart. What this package adds is that nothing waits for a peer
// longer than it must, because it holds the net.Conn below the library:
//
//   - Close sends one close frame and is over within [Config].CloseGrace, whatever the peer does, also one that stalls
//     in the middle of a frame. Nothing that arrives after a close frame, sent or received, is delivered.
//   - A write that makes no progress within [Config].WriteTimeout ends the connection; one that makes some goes on.
//   - A peer that does not answer a ping is dropped. There is one timer per connection and no goroutine for it.
//   - A [Frame] is encoded once and written to any number of connections, without a context, a timer or an allocation
//     for each.
//   - The Origin header is compared whole: scheme, host and port.
//
// Compression is never negotiated: with context takeover it would cost more than a megabyte a connection.
//
// The handler may return while the connection lives on; net/http's own buffers of the request are then freed.
package wsconn
