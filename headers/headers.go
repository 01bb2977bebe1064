// Package headers sets security headers on every response of an HTTP server,
// from one policy that is checked when the server starts. It also receives the
// violation reports of browsers, and grades the headers of a response.
//
//	package main
//
//	import (
//		"log"
//		"net/http"
//
//		"github.com/relayguard/relayguard/headers"
//	)
//
//	func main() {
//		mw, err := headers.New(headers.Strict())
//		if err != nil {
//			log.Fatal(err) // every mistake in the policy
//		}
//		site := http.FileServer(http.Dir("public"))
//		log.Fatal(http.ListenAndServe("localhost:8080", mw.Handler(site)))
//	}
//
// # Reach
//
// The middleware sets the headers before it calls the next handler. So they are
// on pages, assets, redirects, 304, 4xx, 5xx after a recovered panic, and on
// the 101 of a WebSocket. Three kinds of response do not get them:
//
//   - Responses that net/http writes before it calls a handler: 400 to a
//     request that it cannot read and to plain HTTP on a TLS port, 431 to a
//     header that is too long, 501 to an unknown transfer coding.
//   - Responses that a handler writes to the hijacked connection, such as the
//     101 of gorilla/websocket. Set their headers with [Middleware.Apply].
//   - Responses of a handler outside of the middleware, such as the 503 of
//     http.TimeoutHandler or the 502 of a proxy. Make the middleware the
//     outermost handler.
//
// A handler inside of the middleware may replace or delete headers. In the
// standard library, http.ServeContent and http.ServeFile delete Cache-Control
// when they fail, and change no other header of a Policy. If a handler panics
// and nothing recovers, the connection ends without a response. Recover inside
// of the middleware.
//
// # Proxies
//
// Up to Go 1.26, httputil.ReverseProxy deletes every header that was set before
// it, if the upstream server sends a 1xx response. Wrap the proxy itself, and
// not only the mux around it, and delete the policy of the upstream server:
//
//	proxy.ModifyResponse = func(res *http.Response) error {
//		mw.Strip(res.Header)
//		return nil
//	}
//	mux.Handle("/api/", mw.Handler(proxy))
//
// If you cannot reach the proxy because another library has made it, delete the
// headers before the proxy with [Middleware.Strip], and set them in its
// ModifyResponse and its ErrorHandler with [Middleware.Apply]:
//
//	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
//		mw.Strip(w.Header())
//		library.ServeHTTP(w, r)
//	})
//
// # Third parties
//
// A page with a payment form, a sign-in popup or an embedded video of another
// site starts from [Strict] as well. The documentation of Strict says what to
// give back for each. [CSP.Add] allows the sources that a provider names. Try a
// stricter rule in a field whose name ends in ReportOnly, and read with
// [ReportHandler] what it would have blocked. A header without a field of its
// own goes into Extra. The package headerstest fails a test if a route lacks a
// header.
//
// # Cost
//
// The headers of a response cost one allocation, which keeps its values
// separate from those of other responses. Only a policy with [NonceSource] pays
// for a nonce and for a new context of the request.
//
// The table shows the time of unrolled/secure v1.17.0 as a multiple of the time
// of this package, as the median and the quartiles of one run in November 2026.
// To measure it, run in examples/interop:
//
//	go test ./bench -run '^$' -bench Headers -benchtime 300x
//
//	               time                 allocations here, there
//	six headers    9.6 (8.5 to 11.0)    1, 18
//	nine headers   10.5 (9.6 to 11.8)   1, 24
//	third parties  11.6 (11.2 to 13.3)  1, 31
package headers
