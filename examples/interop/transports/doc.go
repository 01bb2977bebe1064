// Package transports puts package wsauth on other WebSocket libraries than
// wsconn's: github.com/coder/websocket and github.com/gorilla/websocket. Its
// tests run one conformance suite over these two and wsconn.
//
// What differs between libraries is a few lines each, in coder.go and
// gorilla.go. What the seam, [wsauth.Conn], asks of any of them is in conn.go:
// a message that cannot be delivered leaves the connection open, so that the
// peer can be told; nothing is delivered once a close frame is sent; and no
// peer is waited for beyond a bound, which takes the net.Conn below the
// library, since both libraries wait inside a frame for as long as the peer
// likes.
//
// Pings are left out: whoever uses this beyond a demonstration has to add them,
// or half-open connections stay.
package transports
