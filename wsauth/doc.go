// Package wsauth decides who may publish on a WebSocket connection. Everybody may connect and watch; a connection
// becomes a publisher by sending a token, {"token":"…"}, as a message, and stays one until the token expires.
//
// The package knows no WebSocket library: a [Conn] is anything with Read, Write, Close and Abort. Package
// wsauth/wsconn is one, made of net/http and nhooyr.io/websocket.
//
//	v, err := wsauth.NewHS256(wsauth.HS256Config{Keys: keys, Devices: []string{"pi-1"}})
//	gate, err := wsauth.New(wsauth.Config{Verifier: v})
//	// per connection:
//	s := gate.Attach(conn, wsauth.Peer{Addr: addr})
//	defer s.Close(1000, "")
//	for {
//		msg, err := s.Next(ctx)
//		if err != nil {
//			return
//		}
//		if err := s.Authorize(wsauth.Publish); err != nil {
//			return
//		}
//		publish(msg)
//	}
//
// # While connected
//
// A right ends at its instant: [Session.Authorize] asks the clock and the ring of keys at every message, without a
// lock, and a timer, not a goroutine, tells the peer that says nothing. [HS256.Rotate], [Gate.Revoke] and [Gate.End]
// reach open sessions before they return, and wait for no peer. Who has lost his right watches on, or is closed, as
// [Config].OnExpiry says; who shows a token in time keeps it without a gap.
//
//	{"status":"authenticated","expires_at":N}  a token was accepted; N is when the right ends, in Unix seconds
//	{"status":"expiring","expires_at":N}       it ends soon: another token now renews it
//	{"status":"viewer"}                        it has ended; another token of the device makes it a publisher again
//	close 4401                                 the same, where [CloseConnection] was chosen
//	close 4409                                 a newer session of the device took its place
//	close 1008                                 the operator ended it
//
// # What a peer can learn and cost
//
// Whatever is wrong with a token, the answer is the same bytes and the same close code, sent by the same code. Before
// authentication a connection may send messages of 4 KiB and has one attempt. A token that is not shaped like one
// (RFC 7515, compact serialization, HS256) is refused without allocating and without reaching the signature library.
// The end of a connection is bounded in time whatever the peer, or the Conn, does.
//
// # What is checked
//
// [HS256] is deliberately stricter than JWT libraries are: the algorithm is pinned (RFC 8725, section 3.1), only the
// compact serialization with canonical base64url is read, "crit" and "b64" are refused, no member may occur twice in
// header or claims, and "exp" must be there as a positive integer.
//
// # Cost
//
// The time of others as a multiple of this package's, for the same checks, November 2026 (in examples/interop:
// go test ./bench -run '^$' -bench Verify -benchtime 2000x; ranges of the medians of three runs):
//
//	                               wsauth        golang-jwt v5    jwx v2's jwt.Parse
//	valid token                    1             2.9 to 3.1       8.9 to 10.9
//	  allocations                  16            49               168
//	garbage: text                  1             9.7 to 12        12 to 15
//	garbage: unsigned ("none")     1             20 to 30         26 to 38
//	  allocations                  0             8, 45            14, 78
//
// No token, secret or message text is ever part of an error or an [Event].
package wsauth
