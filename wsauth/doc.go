// Package wsauth decides what a client may do on a WebSocket connection. A
// client may connect and watch, if you allow that; a client that sends a valid
// token may also publish, until the token expires or is revoked.
//
// This program prints what clients send whose token has the scope "publish":
//
//	package main
//
//	import (
//		"fmt"
//		"log"
//		"net/http"
//		"os"
//
//		"github.com/relayguard/relayguard/wsauth"
//		"github.com/relayguard/relayguard/wsauth/jwtauth"
//		"github.com/relayguard/relayguard/wsauth/wsconn"
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
//		upgrader, err := wsconn.New(wsconn.Config{})
//		if err != nil {
//			log.Fatal(err)
//		}
//		http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
//			conn, err := upgrader.Accept(w, r)
//			if err != nil {
//				return // Accept has answered the request
//			}
//			peer := gate.Peer(r)
//			session := gate.Attach(conn, peer)
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
// The package works with any WebSocket library: a [Conn] is any type with the
// methods Read, Write, Close and Abort. Package wsauth/wsconn provides one,
// built on net/http and nhooyr.io/websocket. Package wsauth/wsadapter adapts
// connections of gorilla/websocket and coder/websocket. Package wsauth/jwtauth
// verifies JSON Web Tokens. Package wsauth/refresh issues refresh tokens, so
// that clients can use short-lived access tokens for months. This package
// imports only the standard library.
//
// # The messages of a session
//
// A client authenticates with the message {"token":"…"}. The session answers
// it, and later reports each change with one of these messages or close codes:
//
//   - {"status":"authenticated","expires_at":N}: the token was accepted. The
//     authentication ends at N, in Unix seconds.
//   - {"status":"expiring","expires_at":N}: the authentication ends soon.
//     Another token sent now renews it.
//   - {"status":"viewer"}: the authentication has ended. Another token of the
//     same subject starts a new one.
//   - Close code 4401: a token was refused, the first message contained none,
//     no token came within [Config].AuthTimeout, or the authentication has
//     ended and [Config].OnExpiry is [OnExpiryClose].
//   - Close code 4409: a newer session of the same subject replaced this one.
//     It may be on another node.
//   - Close code 1008: the operator ended the session with [Gate.End].
//   - Close code 1013: the Verifier could not decide; try again later.
//
// An authentication ends exactly when its token expires. [Session.Authorize]
// checks the clock and the ring of keys for every message, without a lock. For
// a client that sends nothing, a timer reports the end; it needs no goroutine.
// If the clock was set, or the machine has slept, the report may come a minute
// late. When [Gate.Revoke], [Gate.End] or the Rotate of a jwtauth.Verifier
// returns, the authentication of the open sessions that it affects has ended;
// none of the three waits for a client. A client that sends a new token in time
// stays authenticated without a gap.
//
// # What a client can learn and cost
//
// Every refused token gets the same answer, byte for byte, and the same close
// code, from the same code path. Before authentication, a client may send
// messages of at most 4 KiB and has one attempt. A connection ends within a
// bounded time, whatever the client or the Conn does.
//
// No error and no [Event] ever contains a token, a secret or the text of a
// message.
//
// # Choosing lifetimes
//
// Anyone who has a token can use it until it expires. Choose the lifetime by
// the way in which a device gets its next token:
//
//   - The device refreshes with package wsauth/refresh: 15 minutes for access
//     tokens, 90 days for refresh tokens, 7 days for the idle timeout. These
//     are the defaults.
//   - You put the token on the device by hand: days to weeks, until your next
//     visit. [Gate.Revoke] ends it sooner.
//   - A test or a guest: minutes.
//
// The lifetime of access tokens bounds how long a stolen token is valid while
// the theft is unnoticed. It also determines how often the store writes to its
// disk. A lifetime below a minute adds little safety. The idle timeout must be
// longer than a device may be switched off, because after it you must bring a
// new pair. [Config].MaxLifetime bounds the lifetime on the side of the server,
// for tokens that were signed elsewhere or with longer lifetimes.
// [Config].ExpiryWarning must leave a device the time to refresh twice, because
// the first answer may get lost.
//
// # When a secret has leaked
//
// Anyone who has the key can sign any token, so replace the key; revoking
// single tokens does not help. In this order:
//
//  1. Call the Rotate of the jwtauth.Verifier with a new key alone. Every
//     authentication by the old key, in open sessions too, ends before the call
//     returns. For a planned change, keep the old key in the ring behind the
//     new one. Give it an Until, or remove it when KeyUsage shows that it has
//     verified no token for as long as a token is valid.
//  2. Keep the refresh tokens: they are not signed, so they stay valid, and
//     devices get their next access token by themselves. A stranger who has
//     read the store of the families cannot use it, because it contains only
//     hashes. If a stranger may have written to the store, end the families
//     with RevokeSubject of package wsauth/refresh and bring new pairs to the
//     devices.
//  3. Search the audit for authenticated events with the ID of the old key
//     since the leak. Their addresses and token IDs show how the key was used.
//
// If only the token of one device has leaked, call [Gate.Revoke] with the
// present time, and RevokeSubject of package wsauth/refresh. Other devices are
// not affected. [Gate.Unrevoke] takes a mistaken revocation back. A Gate keeps
// a revocation in memory only, unless it has [Config].Shared: store revocations
// in a file and repeat them at the next start, as examples/server does.
//
// # Several processes
//
// By default, a Gate knows the sessions and revocations of its own process.
// Behind a load balancer, a client may be connected to any of several
// processes, called nodes. Set [Config].Shared on each of them, such as that of
// package wsauth/redisauth, and start [Gate.Run]. Then a revocation and the end
// of a session reach every node within a second, [Config].MaxSessions counts
// the sessions of all nodes, and [Gate.AllSessions] lists them.
//
// Tokens are still verified on each node alone, so messages cost nothing more.
// But a node that is out of touch with the others may not know that a token was
// revoked. After [Config].MaxStale it decides nothing: [Session.Authorize]
// returns an [*UnavailableError], and [Session.AuthorizeWait] waits until the
// node has loaded the revocations. No client loses a permission by that. While
// the nodes are out of touch, each counts its own sessions.
//
// # Where the token comes from
//
// A client may authenticate in three ways:
//
//   - With its first message, as above: [Gate.Attach].
//   - With the handshake: [TokenFrom] reads the Authorization header, a cookie,
//     a subprotocol or the URL, and [Gate.AttachToken] verifies the token. To
//     answer 401 before the upgrade, and for ordinary requests, call
//     [Gate.Authenticate].
//   - With a login of yours: [Gate.AttachIdentity] takes the user that your
//     session cookie names.
//
// Check the origin of every handshake with [Origins]: a browser sends cookies
// with the handshake of any page. The Upgrader of package wsauth/wsconn does
// that.
//
// Messages about tokens are a [Dialect]. The default is [JSONDialect]; with
// [NoDialect], all messages belong to the application. To refuse clients that
// only watch, set [Config].AuthTimeout, wait for [Session.Authenticated], and
// call [Session.Authorize] with [Read] and a resource, such as a room.
//
// # Another WebSocket library, another kind of token
//
// To use gorilla/websocket or coder/websocket, adapt their connections with
// package wsauth/wsadapter, in one line. To use another library, implement
// [Conn]. Abort is the method that is hardest to get right, because it must
// work while a read or a write hangs: it needs the net.Conn below the library.
// Package examples/interop/transports tests every implementation against
// hostile clients.
//
// To use another kind of token, implement [Verifier]. Its one method takes a
// token and the time and returns an [Identity]. If it asks another service, it
// must distinguish a refused token from an [*UnavailableError]: the first
// closes the connection with the code 4401, the second with 1013. Implement
// [Rechecker] too, so that a withdrawn key ends open sessions. To issue refresh
// tokens, package wsauth/refresh needs a Signer.
package wsauth
