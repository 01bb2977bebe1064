// Package hijack asks whether a connection can be taken over, without doing it.
package hijack

import "net/http"

// Possible reports whether w, or a ResponseWriter that it wraps, is an
// [http.Hijacker].
func Possible(w http.ResponseWriter) bool {
	for {
		switch inner := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = inner.Unwrap()
		default:
			return false
		}
	}
}
