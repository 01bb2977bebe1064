package headers_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/relayguard/relayguard/headers"
)

var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

func benchmark(b *testing.B, h http.Handler) {
	w := &writer{make(http.Header, 16)}
	r := httptest.NewRequest("GET", "https://relay.example/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// BenchmarkHandler measures what a policy adds to a request, with nine fixed
// headers, with all of Strict, and with a nonce in two policies.
func BenchmarkHandler(b *testing.B) {
	b.Run("none", func(b *testing.B) { benchmark(b, nothing) })
	b.Run("nine", func(b *testing.B) { benchmark(b, must(b, nine()).Handler(nothing)) })
	b.Run("strict", func(b *testing.B) { benchmark(b, must(b, headers.Strict()).Handler(nothing)) })
	b.Run("nonce", func(b *testing.B) { benchmark(b, must(b, withNonce()).Handler(nothing)) })
	b.Run("nine by Header.Set", func(b *testing.B) {
		values := sent(b, nine(), true)
		benchmark(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, v := range values {
				w.Header().Set(name, v[0])
			}
		}))
	})
}

func BenchmarkGrade(b *testing.B) {
	h := sent(b, headers.Strict(), true)
	b.ReportAllocs()
	for b.Loop() {
		headers.Grade(h, true)
	}
}
