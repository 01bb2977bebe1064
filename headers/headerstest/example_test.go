package headerstest_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/headers/headerstest"
)

// A site that registers its routes from a map can test each of them.
func ExampleEvery() {
	policy := headers.Strict()
	routes := map[string]http.HandlerFunc{
		"GET /{$}":        text,
		"GET /users/{id}": text,
	}
	site := func() http.Handler {
		mux := http.NewServeMux()
		for pattern, h := range routes {
			mux.HandleFunc(pattern, h)
		}
		mw, err := headers.New(policy)
		if err != nil {
			panic(err)
		}
		return mw.Handler(mux)
	}
	_ = func(t *testing.T) { // TestHeaders
		headerstest.Every(t, site(), policy, slices.Collect(maps.Keys(routes))...)
	}
}
