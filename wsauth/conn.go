package wsauth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
)

// Conn is a WebSocket connection on which whole messages are read and written. A [Session] reads from one goroutine
// at a time; Write, Close and Abort may be called from any number of others meanwhile.
//
// A Conn may also have a method SetReadLimit(int64), the largest message in bytes that Read may return from now on.
// Without it the Conn must keep a limit of its own.
type Conn interface {
	// Read returns the next text message. It reports [ErrBinary], [ErrInvalidUTF8] and [ErrTooBig] with those
	// errors and leaves the connection open, so that the peer can be told; any other error means that the
	// connection is over. The Session does not keep the slice.
	Read(ctx context.Context) ([]byte, error)
	// Write sends one text message. It must not keep text.
	Write(ctx context.Context, text []byte) error
	// Close sends a close frame with the code and reason (RFC 6455, section 7.4), gives the peer a moment to
	// answer and closes the connection. Closing twice is harmless.
	Close(code int, reason string) error
	// Abort closes the connection at once, without a close frame, and makes every other call return.
	Abort() error
}

// Errors with which a Conn's Read reports a message that it does not deliver.
var (
	ErrBinary      = errors.New("wsauth: binary message")
	ErrInvalidUTF8 = errors.New("wsauth: text message is not UTF-8")
	ErrTooBig      = errors.New("wsauth: message exceeds the read limit")
)

// Close codes that a Session uses. Those of the range for private use mirror HTTP's 401 and 409.
const (
	codeUnsupportedData      = 1003
	codeInvalidPayload       = 1007
	codePolicyViolation      = 1008 // ended by [Gate.End]
	codeTooBig               = 1009
	codeAuthenticationFailed = 4401
	codeReplaced             = 4409 // by a newer session of the same device
)

// Peer is who is at the other end, for the audit.
type Peer struct {
	Addr netip.Addr // the client's address, as the caller resolved it
	ID   string     // the caller's name for the connection, if it has one
}

// RemoteAddr is the address that a request's connection comes from: behind a proxy the proxy's, and of a Unix socket the
// zero Addr.
func RemoteAddr(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}
