// Package transports implements [wsauth.Conn] with other WebSocket libraries
// than wsconn's: github.com/coder/websocket and github.com/gorilla/websocket.
// Its tests run one conformance suite for these two and wsconn.
//
// The code for each library is a few lines in coder.go and gorilla.go. The code
// for all libraries is in conn.go. It meets the requirements of [wsauth.Conn]:
// after a message that cannot be delivered, the connection stays open, so that
// the server can send an error to the peer; after a close frame is sent, no
// message is delivered; and every wait for the peer has a bound. For the bound,
// conn.go needs the net.Conn below the library, because inside a frame both
// libraries wait for the peer without a limit.
//
// This package sends no pings. If you use it for more than a demonstration, add
// them; otherwise half-open connections stay open.
package transports
