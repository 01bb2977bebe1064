package wsauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// request returns a handshake with header fields, each as "Name: value".
func request(target string, fields ...string) *http.Request {
	r := httptest.NewRequest("GET", target, nil)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func TestSources(t *testing.T) {
	cookie := wsauth.FromCookie("session", wsauth.Origins{})
	protocol := wsauth.FromSubprotocol("bearer.")
	query := wsauth.InsecureFromQuery("token")
	all := func(r *http.Request) (string, bool) {
		return wsauth.TokenFrom(r, wsauth.FromBearer, cookie, protocol, query)
	}
	for _, row := range []struct {
		source wsauth.Source
		r      *http.Request
		want   string
		why    string
	}{
		{wsauth.FromBearer, request("/"), "", "no header"},
		{wsauth.FromBearer, request("/", "Authorization: Bearer a.b.c"), "a.b.c", "RFC 6750, section 2.1"},
		{wsauth.FromBearer, request("/", "Authorization: bearer  a.b.c "), "a.b.c", "a scheme has no case (RFC 9110, section 11.1)"},
		{wsauth.FromBearer, request("/", "Authorization: Basic a.b.c"), "", "another scheme"},
		{wsauth.FromBearer, request("/", "Authorization: Bearera.b.c"), "", "no space"},
		{wsauth.FromBearer, request("/", "Authorization: Bearer "), "", "an empty token"},
		{wsauth.FromBearer, request("/", "Authorization: Bearer a", "Authorization: Bearer b"), "", "two headers: which one did a proxy check?"},

		{cookie, request("/", "Cookie: session=a.b.c; other=x"), "a.b.c", "the plain case"},
		{cookie, request("/", "Cookie: Session=a.b.c"), "", "names of cookies have a case"},
		{cookie, request("/", "Cookie: session="), "", "an empty token"},
		{cookie, request("/", "Cookie: session=a; session=b"), "", "a cookie that another host of the domain has set"},
		{cookie, request("/", "Cookie: session=a", "Origin: http://example.com"), "a", "the page of the service"},
		{cookie, request("/", "Cookie: session=a", "Origin: http://evil.example"), "", "a foreign page: the browser sends the cookie"},
		{cookie, request("/", "Cookie: session=a", "Sec-Fetch-Site: cross-site"), "", "a foreign page whose request has no Origin"},
		{cookie, request("/", "Cookie: session=a", "Origin: null"), "", "a sandbox"},

		{protocol, request("/", "Sec-WebSocket-Protocol: chat, bearer.a.b.c"), "a.b.c", "as the browser writes the list"},
		{protocol, request("/", "Sec-WebSocket-Protocol: bearer.a.b.c,chat"), "a.b.c", "without a space"},
		{protocol, request("/", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: bearer.a.b.c"), "a.b.c", "on two lines"},
		{protocol, request("/", "Sec-WebSocket-Protocol: chat, bearer."), "", "an empty token"},
		{protocol, request("/", "Sec-WebSocket-Protocol: chat"), "", "no token"},
		{protocol, request("/", "Sec-WebSocket-Protocol: bearer.a, bearer.b"), "", "two tokens"},
		{protocol, request("/", "Sec-WebSocket-Protocol: Bearer.a"), "", "a subprotocol has a case"},

		{query, request("/?token=a.b.c"), "a.b.c", "the plain case"},
		{query, request("/?token="), "", "an empty token"},
		{query, request("/?token=a&token=b"), "", "two tokens"},
		{query, request("/?Token=a"), "", "parameters have a case"},

		{all, request("/"), "", "no source has one"},
		{all, request("/?token=q", "Sec-WebSocket-Protocol: bearer.p", "Cookie: session=c", "Authorization: Bearer b"), "b", "the first source counts"},
		{all, request("/?token=q", "Sec-WebSocket-Protocol: bearer.p", "Cookie: session=c"), "c", "the next one, without the first"},
		{all, request("/?token=q", "Sec-WebSocket-Protocol: bearer.p", "Cookie: session=c", "Origin: https://evil.example"), "p", "not the cookie, for a foreign page"},
		{all, request("/?token=q"), "q", "the last one"},
	} {
		if got, ok := row.source(row.r); got != row.want && ok || ok != (row.want != "") {
			t.Errorf("%s: %q %t", row.why, got, ok)
		}
	}
}

// Without sources, the token is that of the Authorization header.
func TestAuthenticateByDefault(t *testing.T) {
	gate, _, _ := newGate(t, wsauth.Config{})
	w := httptest.NewRecorder()
	if id, err := gate.Authenticate(w, request("/", "Authorization: Bearer "+live("pi-1"))); err != nil || id.Subject != "pi-1" {
		t.Error(id, err)
	}
}

// The answer does not tell the reason of a refusal, and no refusal penalizes a
// client if nothing was decided.
func TestAuthenticate(t *testing.T) {
	gate, _, r := newGate(t, wsauth.Config{Barred: func(p wsauth.Peer) bool { return p.Addr.String() == "192.0.2.9" }})
	gate.Revoke("pi-2", now)
	bearer := func(token string) *http.Request { return request("/", "Authorization: Bearer "+token) }
	barred := bearer(live("pi-1"))
	barred.RemoteAddr = "192.0.2.9:1"
	for _, row := range []struct {
		r         *http.Request
		status    int
		challenge string
		audit     string
	}{
		{bearer(live("pi-1")), 200, "", ""},
		{request("/"), 401, "Bearer", "refused no_token"},
		{bearer("a.b.c"), 401, `Bearer error="invalid_token"`, "refused malformed"},
		{bearer(live("pi-3")), 401, `Bearer error="invalid_token"`, "refused subject pi-3"},
		{bearer(live("pi-2")), 401, `Bearer error="invalid_token"`, "refused revoked pi-2"},
		{barred, 401, `Bearer error="invalid_token"`, "refused barred"},
	} {
		w := httptest.NewRecorder()
		id, err := gate.Authenticate(w, row.r, wsauth.FromBearer)
		if (err == nil) != (row.status == 200) || w.Code != row.status || w.Header().Get("WWW-Authenticate") != row.challenge {
			t.Errorf("%s: %v, %d %v", row.audit, err, w.Code, w.Header())
		}
		if err == nil && id.Subject != "pi-1" || err != nil && (w.Body.String() != "Unauthorized\n" || w.Header().Get("Cache-Control") != "no-store") {
			t.Errorf("%s: %+v %q", row.audit, id, w.Body)
		}
		if got := strings.Join(r.lines(), "; "); got != row.audit {
			t.Errorf("audit %q, want %q", got, row.audit)
		}
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: undecided{errors.New("no answer from id.example")}, Audit: r.audit})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	_, err = gate.Authenticate(w, bearer(live("pi-1")), wsauth.FromBearer)
	if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok || w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Error(err, w.Code, w.Header())
	}
	if got := strings.Join(r.lines(), "; "); got != "unavailable unavailable" {
		t.Errorf("audit %q", got)
	}
}

// keeper is a Verifier that keeps its identities after their end.
type keeper struct{ wsauth.Identity }

func (k keeper) Verify(context.Context, []byte, time.Time) (wsauth.Identity, error) {
	return k.Identity, nil
}

// An identity ends at its ExpiresAt, whatever the Verifier says.
func TestExpiredIdentity(t *testing.T) {
	gate, err := wsauth.New(wsauth.Config{Verifier: keeper{wsauth.Identity{Subject: "pi-1", ExpiresAt: now}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Verify(t.Context(), []byte("x"), now.Add(-1)); err != nil {
		t.Error(err)
	}
	_, err = gate.Verify(t.Context(), []byte("x"), now)
	if e, ok := errors.AsType[*wsauth.Error](err); !ok || e.Reason != wsauth.ReasonExpired || e.Subject != "pi-1" {
		t.Error(err)
	}
}

func TestPeer(t *testing.T) {
	client := netip.MustParseAddr("198.51.100.7")
	for _, row := range []struct {
		why  string
		cfg  wsauth.Config
		want netip.Addr
	}{
		{"the other end of the connection", wsauth.Config{}, netip.MustParseAddr("192.0.2.1")},
		{"behind a proxy", wsauth.Config{ClientIP: func(*http.Request) netip.Addr { return client }}, client},
	} {
		gate, _, _ := newGate(t, row.cfg)
		if got := gate.Peer(request("/")); got != (wsauth.Peer{Addr: row.want}) {
			t.Errorf("%s: %+v", row.why, got)
		}
	}
}
