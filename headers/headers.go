// Package headers puts the security headers on every response: one validated Policy, one middleware that costs one
// allocation, a receiver for the browsers' violation reports, and a grader.
//
//	mw, err := headers.New(headers.Strict()) // every mistake at once
//	http.ListenAndServe(addr, mw.Handler(mux))
//
// # What no middleware reaches
//
// The middleware sets the headers before it calls the next handler, so they stand on pages, assets, redirects, 304, 4xx,
// 5xx after a recovered panic, and the 101 of a WebSocket. Three answers are out of its reach:
//
//   - What net/http says by itself before any handler runs: 400 for a request that it cannot read, 431 for a head that
//     is too long, 400 for plain HTTP on a TLS port, 501 for an unknown transfer coding.
//   - A head that somebody writes to the hijacked connection by hand, as gorilla/websocket does with its 101: hand it the
//     headers with Apply.
//   - What a handler, or a proxy in front, replaces or deletes afterwards. In the standard library http.Error and
//     http.ServeContent delete Cache-Control on errors, no other header of a Policy.
//
// A panic that nobody recovers ends the connection without any answer: put the recovering handler below the middleware.
package headers
