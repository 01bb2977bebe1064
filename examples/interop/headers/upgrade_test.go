// Package headers_test checks the headers of relayguard/headers on the answer
// 101 of several WebSocket libraries. The contract test of that package checks
// nhooyr's library.
package headers_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/relayguard/relayguard/headers"
)

func TestUpgrade(t *testing.T) {
	policy := headers.Strict()
	mw, err := headers.New(policy)
	if err != nil {
		t.Fatal(err)
	}
	withGorilla := func(head func(*http.Request) http.Header) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var up gorilla.Upgrader
			c, err := up.Upgrade(w, r, head(r))
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		}
	}
	for _, tt := range []struct {
		name    string
		ws      http.HandlerFunc
		carries bool
	}{
		{"coder sends what stands on the ResponseWriter", func(w http.ResponseWriter, r *http.Request) {
			c, err := coder.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			c.CloseNow()
		}, true},
		{"gorilla sends what it is given", withGorilla(func(r *http.Request) http.Header {
			head := make(http.Header)
			mw.Apply(head, r)
			return head
		}), true},
		{"gorilla forgets what stands on the ResponseWriter", withGorilla(func(*http.Request) http.Header { return nil }), false},
	} {
		s := httptest.NewTLSServer(mw.Handler(tt.ws))
		c, res, err := coder.Dial(t.Context(), s.URL, &coder.DialOptions{HTTPClient: s.Client()})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		c.CloseNow()
		s.Close()

		req := httptest.NewRequest("GET", "https://relay.example/", nil)
		want := make(http.Header)
		mw.Apply(want, req)
		for name := range want {
			got := res.Header[name]
			if tt.carries && (len(got) != 1 || got[0] != want[name][0]) || !tt.carries && got != nil {
				t.Errorf("%s: %s: got %q", tt.name, name, got)
			}
		}
	}
}
