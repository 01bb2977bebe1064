// Package transports accepts WebSocket connections with wsconn, and with
// github.com/coder/websocket and github.com/gorilla/websocket through
// wsadapter, under net/http, gin and echo. Its tests run one conformance suite
// and one suite of hostile clients for all of them.
package transports
