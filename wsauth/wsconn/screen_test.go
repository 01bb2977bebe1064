package wsconn_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A request that a foreign page can make a browser send is refused before a
// limiter sees it, and a request of a client that means it is not, even if
// Accept will refuse it.
func TestScreen(t *testing.T) {
	plain := func(r *http.Request) {
		for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Version", "Sec-Websocket-Key"} {
			r.Header.Del(name)
		}
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	both := func(changes ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, change := range changes {
				change(r)
			}
		}
	}
	strict := wsauth.Origins{Allow: []string{"https://friend.test"}}
	for _, row := range []struct {
		why     string
		origins wsauth.Origins
		change  func(*http.Request)
		status  int
	}{
		{"a device", wsauth.Origins{}, func(*http.Request) {}, 0},
		{"the own page", wsauth.Origins{}, set("Origin", "http://relay.test"), 0},
		{"the own page, as Firefox sends it", wsauth.Origins{}, both(set("Origin", "http://relay.test"), set("Sec-Fetch-Site", "same-origin")), 0},
		{"an allowed page of another site", strict, both(set("Origin", "https://friend.test"), set("Sec-Fetch-Site", "cross-site")), 0},
		{"a malformed handshake is counted", wsauth.Origins{}, set("Sec-WebSocket-Key", "x"), 0},
		{"new WebSocket", wsauth.Origins{}, set("Origin", "https://evil.test"), 403},
		{"new WebSocket of a sandbox", wsauth.Origins{}, set("Origin", "null"), 403},
		{"new WebSocket, whose page claims to be the own one", wsauth.Origins{}, both(set("Origin", "https://evil.test"), set("Sec-Fetch-Site", "same-origin")), 403},
		{"an upgrade without Origin", wsauth.Origins{}, set("Sec-Fetch-Site", "cross-site"), 403},
		{"an upgrade without Origin, with a list", strict, set("Sec-Fetch-Site", "cross-site"), 403},
		{"an upgrade without Origin, of a sibling", wsauth.Origins{}, set("Sec-Fetch-Site", "same-site"), 403},
		{"an unknown kind of site", wsauth.Origins{}, set("Sec-Fetch-Site", "CROSS-SITE"), 403},
		{"<img>", wsauth.Origins{}, both(plain, set("Sec-Fetch-Site", "cross-site")), 426},
		{"<img> of an old browser", wsauth.Origins{}, plain, 426},
		{"a link", wsauth.Origins{}, both(plain, set("Sec-Fetch-Site", "cross-site"), set("Sec-Fetch-Mode", "navigate")), 426},
		{"a form", wsauth.Origins{}, both(plain, func(r *http.Request) { r.Method = "POST" }, set("Origin", "https://evil.test")), 405},
		{"a preflight", wsauth.Origins{}, both(plain, func(r *http.Request) { r.Method = "OPTIONS" }, set("Origin", "https://evil.test")), 405},
		{"fetch without credentials", wsauth.Origins{}, both(plain, set("Origin", "https://evil.test")), 426},
		{"development", wsauth.Origins{InsecureSkipOriginCheck: true}, both(set("Origin", "https://evil.test"), set("Sec-Fetch-Site", "cross-site")), 0},
		{"<img> in development", wsauth.Origins{InsecureSkipOriginCheck: true}, plain, 426},
	} {
		audited := 0
		up, err := wsconn.New(wsconn.Config{Origins: row.origins, Audit: func(wsauth.Event) { audited++ }})
		if err != nil {
			t.Fatal(err)
		}
		r, w := upgradeRequest(), httptest.NewRecorder()
		row.change(r)
		err = up.Screen(w, r)
		if row.status == 0 {
			if err != nil || w.Body.Len() > 0 || len(w.Header()) > 0 {
				t.Errorf("%s: %v, %q", row.why, err, w.Body)
			}
			continue
		}
		refused, ok := errors.AsType[*wsconn.UpgradeError](err)
		if !ok || refused.Status != row.status || w.Code != row.status || strings.TrimSpace(w.Body.String()) != http.StatusText(row.status) {
			t.Errorf("%s: %v, answered %d %q", row.why, err, w.Code, w.Body)
		}
		if _, foreign := errors.AsType[*wsauth.OriginError](err); foreign != (row.status == 403) || audited != map[bool]int{true: 1}[foreign] {
			t.Errorf("%s: foreign: %t, audited %d times", row.why, foreign, audited)
		}
		again := httptest.NewRecorder()
		if _, err := up.Accept(again, r); err == nil || again.Code != row.status || again.Header().Get("Upgrade") != w.Header().Get("Upgrade") {
			t.Errorf("%s: Accept answers otherwise: %d %v", row.why, again.Code, err)
		}
	}
}

// What a stranger sends is short in an error and in the audit.
func TestOriginErrorIsShort(t *testing.T) {
	long := strings.Repeat("x", 15_000)
	for _, sent := range []string{"https://" + long, ""} {
		var detail string
		up, err := wsconn.New(wsconn.Config{Audit: func(e wsauth.Event) { detail = e.Detail }})
		if err != nil {
			t.Fatal(err)
		}
		r := upgradeRequest()
		r.Host = long
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if sent != "" {
			r.Header.Set("Origin", sent)
		}
		if err := up.Screen(httptest.NewRecorder(), r); err == nil || len(err.Error()) > 700 || len(detail) > 700 {
			t.Errorf("%d bytes, %d of detail", len(err.Error()), len(detail))
		}
	}
}
