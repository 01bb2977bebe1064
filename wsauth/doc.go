// Package wsauth decides who may publish on a WebSocket connection. Everybody may connect and watch; a connection
// becomes a publisher by sending a token, {"token":"…"}, as a message, and stays one until the token expires.
//
// The package knows no WebSocket library: a [Conn] is anything with Read, Write, Close and Abort. Package
// wsauth/wsconn is one, made of net/http and nhooyr.io/websocket.
//
//	v, err := wsauth.NewHS256(wsauth.HS256Config{Keys: keys, Devices: []string{"pi-1"}})
//	gate, err := wsauth.New(wsauth.Config{Verifier: v})
//	up, err := wsconn.New(wsconn.Config{})
//	// per request to the endpoint:
//	conn, err := up.Accept(w, r)
//	s := gate.Attach(conn, wsauth.Peer{Addr: wsauth.RemoteAddr(r)})
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
//	close 4401                                 the same, where [OnExpiryClose] was chosen
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
// # Choosing lifetimes
//
// A token is as good as a password for as long as it lasts, wherever it has got to. What to choose follows from how a
// device gets its next one:
//
//	package refresh, a device that refreshes     access 15 minutes, refresh 90 days, idle 7 days (the defaults)
//	a token put on the device by hand          days to weeks, as long as somebody comes by; Gate.Revoke ends it sooner
//	a test, a guest                            minutes
//
// The access lifetime is how long a stolen access token is worth something that nobody has noticed, and how often the
// disk of the store is written; below a minute it buys little. The idle timeout must be longer than the device may be
// switched off: after it, somebody has to bring a new pair. [Config].MaxLifetime bounds all of that from the side of the
// server, for tokens that were signed elsewhere or with more generosity. ExpiryWarning must leave a device the time to
// refresh twice, since the first answer may get lost.
//
// # When a secret has leaked
//
// Whoever has the key can make any token, so what matters is the key and not the tokens. In this order:
//
//  1. [HS256.Rotate] to a new key alone. All that stands on the old one ends at once, open sessions included, before
//     the call returns. (A planned change keeps the old key in the ring, behind the new one, with an Until or until
//     [HS256.KeyUsage] says that nobody has needed it for the lifetime of a token.)
//  2. Refresh tokens are not signed and survive: devices get their next access token by themselves. Where the store of
//     the families may have been read as well, nothing is lost either, since it has hashes only; where it may have been
//     written, end the families, with RevokeDevice of package wsauth/refresh, and bring new pairs.
//  3. The audit: every authenticated event since the leak with a key ID of the old key, its address and its token ID,
//     says what was done with it.
//
// Where one device's token has leaked and not the key, [Gate.Revoke] with the present time, and RevokeDevice, are all;
// other devices notice nothing. A Gate remembers a revocation as long as it lives: keep it beside, and repeat it at the
// start, as examples/server does.
//
// # Another WebSocket library, another JWT library
//
// [Conn] is the seam to the first: four methods, of which Abort is the one that libraries get wrong, since it has to
// work while a read or a write hangs. The package examples/interop/transports has coder/websocket and
// gorilla/websocket on it, and a suite of hostile peers that any other must pass. What it needs from a library is the
// net.Conn below, got by a Hijacker around the ResponseWriter.
//
// [Verifier] is the seam to the second: one method, which gets a token and the time and returns an [Identity]. A
// Verifier on RS256, on introspection or on another library may be a few lines; that it is as strict as [HS256] is then
// its own matter, and only what a [Rechecker] says of keys reaches sessions that are open. Package
// wsauth/refresh says in its Signer what an Issuer needs of it. Inside HS256, the library that computes the MAC is one
// file of thirty lines, jwx.go.
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
