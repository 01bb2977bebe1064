package refresh_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

func refreshBody(token string) string { return `{"refresh_token":"` + token + `"}` }

func post(i *refresh.Issuer, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/auth/refresh", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	i.Handler().ServeHTTP(w, r)
	return w
}

func issueNow(t testing.TB, i *refresh.Issuer) refresh.Pair {
	t.Helper()
	p, err := i.Issue(t.Context(), refresh.Grant{Subject: "pi-1"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIssuerHandler(t *testing.T) {
	i, r := newIssuer(t, func(c *refresh.Config) {
		c.OnFailure = func(_ *http.Request, reason wsauth.Reason) { t.Error("reported", reason) }
	})
	first := issueNow(t, i)
	w := post(i, refreshBody(first.RefreshToken))
	if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
		t.Fatal(w.Code, w.Header())
	}
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got) != 4 || got["ends_at"] != float64(first.EndsAt.Unix()) {
		t.Fatal(w.Body, err)
	}
	id, err := newHS256(t).Verify(t.Context(), []byte(got["token"].(string)), time.Now())
	if err != nil || id.Subject != "pi-1" || got["expires_at"] != float64(id.ExpiresAt.Unix()) {
		t.Errorf("%+v %v %v", id, err, got["expires_at"])
	}
	if again := post(i, refreshBody(first.RefreshToken)); again.Body.String() != w.Body.String() {
		t.Error("a lost answer is not given again as it was")
	}
	if next := post(i, refreshBody(got["refresh_token"].(string))); next.Code != 200 {
		t.Error(next.Code)
	}
	// httptest requests come from this address.
	if want := netip.MustParseAddr("192.0.2.1"); r.events[1].Peer.Addr != want {
		t.Errorf("address %v", r.events[1].Peer.Addr)
	}
}

// Every refusal has the same bytes and is reported.
func TestIssuerHandlerRefusals(t *testing.T) {
	var reported []wsauth.Reason
	i, _ := newIssuer(t, func(c *refresh.Config) {
		c.OnFailure = func(_ *http.Request, reason wsauth.Reason) { reported = append(reported, reason) }
	})
	used := issueNow(t, i)
	for token, n := used.RefreshToken, 0; n < 2; n++ {
		p, err := i.Refresh(t.Context(), token, wsauth.Peer{})
		if err != nil {
			t.Fatal(err)
		}
		token = p.RefreshToken
	}
	idle, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1"}, time.Now().Add(-30*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	live := issueNow(t, i).RefreshToken
	rows := []struct {
		why, body string
		want      wsauth.Reason
	}{
		{"nothing", "", wsauth.ReasonMalformed},
		{"not JSON", "refresh_token=" + live, wsauth.ReasonMalformed},
		{"a bare string", `"` + live + `"`, wsauth.ReasonMalformed},
		{"in a list", `[` + refreshBody(live) + `]`, wsauth.ReasonMalformed},
		{"trailing junk", refreshBody(live) + "x", wsauth.ReasonMalformed},
		{"two values", refreshBody(live) + refreshBody(live), wsauth.ReasonMalformed},
		{"twice, of which decoders take either", `{"refresh_token":"x","refresh_token":"` + live + `"}`, wsauth.ReasonMalformed},
		{"another member", `{"refresh_token":"` + live + `","device":"pi-2"}`, wsauth.ReasonMalformed},
		{"another case, which encoding/json takes", `{"Refresh_Token":"` + live + `"}`, wsauth.ReasonMalformed},
		{"null", `{"refresh_token":null}`, wsauth.ReasonMalformed},
		{"a number", `{"refresh_token":1}`, wsauth.ReasonMalformed},
		{"no member", `{}`, wsauth.ReasonMalformed},
		{"not UTF-8", refreshBody(live + "\xff"), wsauth.ReasonMalformed},
		{"too deep", strings.Repeat("[", 400) + strings.Repeat("]", 400), wsauth.ReasonMalformed},
		{"not a token", refreshBody("x"), wsauth.ReasonMalformed},
		{"another server's", refreshBody("rgrt_" + strings.Repeat("A", 64)), wsauth.ReasonUnknown},
		{"idle", refreshBody(idle.RefreshToken), wsauth.ReasonExpired},
		{"used before", refreshBody(used.RefreshToken), wsauth.ReasonReused},
		{"revoked", refreshBody(used.RefreshToken), wsauth.ReasonUnknown},
	}
	dump := func(w *httptest.ResponseRecorder) string {
		var b strings.Builder
		_ = w.Result().Write(&b)
		return b.String()
	}
	first := dump(post(i, rows[0].body))
	reported = nil
	for n, row := range rows {
		w := post(i, row.body)
		if got := dump(w); w.Code != 401 || got != first {
			t.Errorf("%s: answered\n%s\nwant\n%s", row.why, got, first)
		}
		if len(reported) != n+1 || reported[n] != row.want {
			t.Fatalf("%s: reported %q, want %q", row.why, reported[n:], row.want)
		}
	}
	if !strings.Contains(first, "\r\n\r\n"+`{"error":"Authentication failed"}`) ||
		!strings.Contains(first, "Cache-Control: no-store\r\n") || !strings.Contains(first, "Www-Authenticate: Bearer\r\n") {
		t.Error(first)
	}
	if w := post(i, " {\t\"refresh\\u005ftoken\" :\n\""+live+"\" }\n"); w.Code != 200 {
		t.Error("the live one was used up, or JSON's freedoms are not understood:", w.Code)
	}
}

func TestIssuerHandlerPlain(t *testing.T) {
	i, r := newIssuer(t, nil)
	live := refreshBody(issueNow(t, i).RefreshToken)
	for _, row := range []struct {
		why, method, contentType, body string
		want                           int
	}{
		{"a browser's address bar", "GET", "", "", 405},
		{"a preflight of CORS, which must not be granted", "OPTIONS", "", "", 405},
		{"a form, which any page may send", "POST", "application/x-www-form-urlencoded", live, 415},
		{"plain text, which any page may send", "POST", "text/plain", live, 415},
		{"no type", "POST", "", live, 415},
		{"a type that is none", "POST", "application/json;;", live, 415},
		{"a prefix of the type", "POST", "application/json5", live, 415},
		{"one byte too many", "POST", "application/json", live + strings.Repeat(" ", 1025-len(live)), 413},
		{"exactly 1 KiB, and a parameter", "POST", "Application/JSON; charset=utf-8", live + strings.Repeat(" ", 1024-len(live)), 200},
	} {
		q := httptest.NewRequest(row.method, "/auth/refresh", strings.NewReader(row.body))
		if row.contentType != "" {
			q.Header.Set("Content-Type", row.contentType)
		}
		w := httptest.NewRecorder()
		i.Handler().ServeHTTP(w, q)
		if w.Code != row.want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", row.why, w.Code, w.Header())
		}
		if (w.Header().Get("Allow") == "POST") != (row.want == 405) {
			t.Errorf("%s: Allow %q", row.why, w.Header().Get("Allow"))
		}
	}
	if got := r.kinds(); got != "pair_issued pair_rotated" {
		t.Error(got)
	}
}

// If a client never finishes its request, the handler ends it in time, even in
// a server without timeouts.
func TestIssuerHandlerStalledBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, _ := newIssuer(t, nil)
		near, far := net.Pipe()
		listener := &oneConn{conn: far, over: make(chan struct{})}
		server := &http.Server{Handler: i.Handler()}
		go func() { _ = server.Serve(listener) }()
		defer server.Close()
		begun := time.Now()
		go func() {
			_, _ = io.WriteString(near, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		}()
		answer, err := io.ReadAll(near)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
			t.Errorf("%q, %v", answer, err)
		}
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

type oneConn struct {
	conn net.Conn
	over chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.over
	return nil, net.ErrClosed
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func (l *oneConn) Close() error {
	close(l.over)
	return nil
}

func TestIssuerHandlerUnavailable(t *testing.T) {
	store := &faultyStore{}
	i, r := newIssuer(t, func(c *refresh.Config) {
		c.Store = store
		c.OnFailure = func(_ *http.Request, reason wsauth.Reason) { t.Error("a penalty for our own fault:", reason) }
	})
	body := refreshBody(issueNow(t, i).RefreshToken)
	for _, method := range []string{"Load", "Rotate"} {
		store.fails = method
		if w := post(i, body); w.Code != 503 || w.Body.String() != `{"error":"Unavailable"}` {
			t.Error(method, w.Code, w.Body)
		}
	}
	store.fails = ""
	if w := post(i, body); w.Code != 200 {
		t.Error("the token was used up:", w.Code)
	}
	if got := r.kinds(); got != "pair_issued pair_refused:unavailable pair_refused:unavailable pair_rotated" {
		t.Error(got)
	}
}

// If a body is answered with a pair, it is an object with one member that
// encoding/json reads too. Every other body gets the same refusal or is too
// large. TOKEN is replaced with a valid token.
func FuzzIssuerBody(f *testing.F) {
	for _, seed := range []string{
		refreshBody("TOKEN"), ` { "refresh\u005ftoken" : "TOKEN" } `, `{"refresh_token":"TOKEN","refresh_token":"TOKEN"}`,
		`{"refresh_token":"\ud800TOKEN"}`, `{"refresh_token":["TOKEN"]}`, `{"":"TOKEN"}`, "TOKEN", "",
	} {
		f.Add(seed)
	}
	i, _ := newIssuer(f, func(c *refresh.Config) { c.Audit = nil })
	token := issueNow(f, i).RefreshToken
	f.Fuzz(func(t *testing.T, body string) {
		body = strings.ReplaceAll(body, "TOKEN", token)
		w := post(i, body)
		switch {
		case w.Code == 413 && len(body) > 1024:
		case w.Code == 401 && w.Body.String() == `{"error":"Authentication failed"}`:
		case w.Code == 200:
			var plain map[string]string
			if err := json.Unmarshal([]byte(body), &plain); err != nil || len(plain) != 1 || plain["refresh_token"] != token {
				t.Fatalf("answered %q: %v", body, err)
			}
			var pair struct {
				Refresh string `json:"refresh_token"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &pair); err != nil {
				t.Fatal(err)
			}
			token = pair.Refresh
		default:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
