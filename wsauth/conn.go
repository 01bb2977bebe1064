package wsauth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
)

// Conn is a WebSocket connection that reads and writes whole messages. A
// [Session] calls Read from one goroutine at a time. It may call Write, Close
// and Abort from any number of goroutines, also during a Read.
//
// A Conn may have two more methods. SetReadLimit(int64) sets the maximum size
// in bytes of the messages that Read returns from then on; a Conn without it
// must have a limit of its own. ReadMessage(context.Context) (data []byte,
// binary bool, err error) is Read for text and binary messages;
// [Session.NextMessage] needs it.
type Conn interface {
	// Read returns the next text message. After [ErrBinary], [ErrInvalidUTF8]
	// and [ErrTooBig], the connection must stay open, so that the Session can
	// answer. Any other error means that the connection has ended. The Session
	// does not keep the slice.
	Read(ctx context.Context) ([]byte, error)
	// Write sends one text message. It must not keep text.
	Write(ctx context.Context, text []byte) error
	// Close sends a close frame with the code and reason (RFC 6455, section
	// 7.4), gives the client a short time to answer and closes the connection.
	// A second call must have no effect.
	Close(code int, reason string) error
	// Abort closes the connection immediately, without a close frame, and makes
	// every other call return.
	Abort() error
}

// Errors of a Conn's Read for a message that it does not return.
var (
	ErrBinary      = errors.New("wsauth: binary message")
	ErrInvalidUTF8 = errors.New("wsauth: text message is not UTF-8")
	ErrTooBig      = errors.New("wsauth: message exceeds the read limit")
)

// Close codes of a Session. Those from 4000 on, the range for private use,
// mirror 401 and 409 of HTTP.
const (
	codeGoingAway            = 1001
	codeUnsupportedData      = 1003
	codeInvalidPayload       = 1007
	codePolicyViolation      = 1008 // ended by [Gate.End]
	codeTooBig               = 1009
	codeTryAgainLater        = 1013 // the Verifier could not decide
	codeAuthenticationFailed = 4401
	codeReplaced             = 4409 // by a newer session of the same subject
)

// Peer identifies the client of a connection, for the audit.
type Peer struct {
	Addr netip.Addr // the address of the client
	ID   string     // your name for the connection, or empty
}

// RemoteAddr returns the address of the other end of r's connection. Behind a
// proxy, this is the address of the proxy. For a Unix socket, it is the zero
// Addr.
func RemoteAddr(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}
