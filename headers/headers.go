// Package headers puts the security headers on every response: one validated Policy, one middleware that costs one
// allocation, a receiver for the browsers' violation reports, and a grader.
//
//	mw, err := headers.New(headers.Strict()) // every mistake at once
//	http.ListenAndServe(addr, mw.Handler(mux))
//
// # What no middleware reaches
//
// The middleware sets the headers before it calls the next handler, so they stand on pages, assets, redirects, 304, 4xx,
// 5xx after a recovered panic, and the 101 of a WebSocket. Three kinds of answer are out of its reach:
//
//   - What net/http says before any handler runs: 400 for a request that it cannot read or for plain HTTP on a TLS port,
//     431 for a head that is too long, 501 for an unknown transfer coding.
//   - A head that somebody writes by hand to the hijacked connection, as gorilla/websocket does with its 101: give it the
//     headers with Apply.
//   - What a handler outside the middleware answers by itself: http.TimeoutHandler its 503, a proxy its 502. So let the
//     middleware be the outermost of all handlers.
//
// A handler below may replace or delete what was set. In the standard library, http.ServeContent and http.ServeFile
// delete Cache-Control when they fail; nothing else of a Policy is touched. A panic that nobody recovers ends the
// connection without an answer: recover below the middleware.
//
// # Cost
//
// Setting nine fixed headers is one allocation, which keeps the values of one response apart from those of all others. A
// policy with NonceSource pays for the nonce and for the request's new context; the others do not.
//
// The time of unrolled/secure v1.17.0 as a multiple of this package's, November 2026 (in examples/interop:
// go test ./bench -run '^$' -bench Headers -benchtime 300x; median and quartiles of one run):
//
//	              time                 allocations here, there
//	six headers   8.3 (7.9 to 9.2)     1, 18
//	nine headers  9.0 (5.7 to 11.0)    1, 24
package headers
