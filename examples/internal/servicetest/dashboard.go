package servicetest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/crypto/bcrypt"
)

// StartDashboard returns the handler of a dashboard with these topics. users is
// the name of a file.
type StartDashboard = func(origin, users string, topics ...string) (http.Handler, error)

// Dashboard tests a dashboard with session cookies.
func Dashboard(t *testing.T, start StartDashboard) {
	t.Run("login", func(t *testing.T) { dashboardLogin(t, newDashboard(t, start, false)) })
	t.Run("login over TLS", func(t *testing.T) { dashboardCookie(t, newDashboard(t, start, true)) })
	t.Run("handshake", func(t *testing.T) { dashboardHandshake(t, newDashboard(t, start, false)) })
	t.Run("topics", func(t *testing.T) { dashboardTopics(t, newDashboard(t, start, false)) })
	t.Run("logout", func(t *testing.T) { dashboardLogout(t, newDashboard(t, start, false)) })
}

type dashboard struct {
	*visitor
	tls  bool
	http *http.Client
}

func newDashboard(t *testing.T, start StartDashboard, tls bool) *dashboard {
	t.Helper()
	leaveNone(t)
	server := httptest.NewUnstartedServer(nil)
	t.Cleanup(server.Close)
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	h, err := start(scheme+server.Listener.Addr().String(), Users(t), "sales", "stock")
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = h
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	return &dashboard{&visitor{t, server.URL}, tls, server.Client()}
}

// Users writes a file with the users of a dashboard, and returns its name. The
// password of each is the name.
func Users(t testing.TB) string {
	t.Helper()
	all := map[string]map[string]string{}
	for name, permissions := range map[string]string{"alice": "read:sales publish:stock", "bob": "read publish"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(name), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = map[string]string{"password": string(hash), "permissions": permissions}
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// post sends a request as a page of the origin does, and returns the status and
// the cookie that the answer sets.
func (d *dashboard) post(path, origin, cookie, kind, body string) (int, *http.Cookie) {
	d.t.Helper()
	req, err := http.NewRequest("POST", d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Origin", origin)
	req.Header.Set("Content-Type", kind)
	if cookie != "" {
		req.Header.Set("Cookie", "session="+cookie)
	}
	res, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	for _, c := range res.Cookies() {
		if c.Name == "session" {
			return res.StatusCode, c
		}
	}
	return res.StatusCode, nil
}

func (d *dashboard) login(name, password, origin string) (int, *http.Cookie) {
	d.t.Helper()
	form := url.Values{"name": {name}, "password": {password}}
	return d.post("/login", origin, "", "application/x-www-form-urlencoded", form.Encode())
}

// enter logs a user in, and returns the value of the cookie.
func (d *dashboard) enter(name string) string {
	d.t.Helper()
	status, c := d.login(name, name, d.url)
	if status != 204 || c == nil {
		d.t.Fatalf("%s may not log in: %d", name, status)
	}
	return c.Value
}

func (d *dashboard) publish(topic, value, origin, cookie string) int {
	d.t.Helper()
	status, _ := d.post("/topics/"+topic, origin, cookie, "application/json", value)
	return status
}

func (d *dashboard) live(origin, cookie string) (*websocket.Conn, *http.Response) {
	d.t.Helper()
	h := http.Header{}
	if origin != "" {
		h.Set("Origin", origin)
	}
	if cookie != "" {
		h.Set("Cookie", "session="+cookie)
	}
	return d.dial("/live", "", h)
}

// open opens a WebSocket that must be accepted.
func (d *dashboard) open(cookie string) *websocket.Conn {
	d.t.Helper()
	ws, res := d.live(d.url, cookie)
	if ws == nil {
		d.t.Fatal(res.Status)
	}
	return ws
}

const foreign = "https://evil.example"

func refused(status int) bool { return status == 401 || status == 403 }

func dashboardLogin(t *testing.T, d *dashboard) {
	for _, row := range []struct{ name, password, origin string }{
		{"alice", "bob", d.url},
		{"alice", "", d.url},
		{"mallory", "mallory", d.url},
		{"alice", "alice", foreign},
	} {
		if status, c := d.login(row.name, row.password, row.origin); !refused(status) || c != nil {
			t.Errorf("%v: %d, and a cookie: %t", row, status, c != nil)
		}
	}
	dashboardCookie(t, d)
}

func dashboardCookie(t *testing.T, d *dashboard) {
	status, c := d.login("alice", "alice", d.url)
	if status != 204 || c == nil {
		t.Fatalf("got %d", status)
	}
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure != d.tls || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is not safe: %v", c)
	}
}

func dashboardHandshake(t *testing.T, d *dashboard) {
	cookie := d.enter("alice")
	for _, row := range []struct {
		name, origin, cookie string
		status               int
	}{
		{"a page", d.url, cookie, 101},
		{"a program", "", cookie, 101},
		{"no cookie", d.url, "", 401},
		{"a changed cookie", d.url, cookie[:len(cookie)-1] + "!", 401},
		{"a foreign page", foreign, cookie, 403},
		{"a page without origin", "null", cookie, 403},
	} {
		ws, res := d.live(row.origin, row.cookie)
		if res.StatusCode != row.status && !(refused(row.status) && refused(res.StatusCode)) {
			t.Errorf("%s: %s, want %d", row.name, res.Status, row.status)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: the answer lacks the headers of the policy", row.name)
		}
		if ws != nil {
			ws.CloseNow()
		}
	}
}

func dashboardTopics(t *testing.T, d *dashboard) {
	alice, bob := d.enter("alice"), d.enter("bob")
	for _, row := range []struct {
		name, topic, value, origin, cookie string
		status                             int
	}{
		{"a page", "sales", "1", d.url, bob, 204},
		{"no cookie", "sales", "2", d.url, "", 401},
		{"permission on another topic", "sales", "2", d.url, alice, 403},
		{"an unknown topic", "staff", "2", d.url, bob, 403},
		{"a foreign page", "sales", "2", foreign, bob, 403},
		{"no JSON", "sales", "{", d.url, bob, 400},
		{"too much", "sales", `"` + strings.Repeat("x", 1<<20) + `"`, d.url, bob, 400},
	} {
		if got := d.publish(row.topic, row.value, row.origin, row.cookie); got != row.status && !(refused(row.status) && refused(got)) {
			t.Errorf("%s: got %d, want %d", row.name, got, row.status)
		}
	}
	one, all := d.open(alice), d.open(bob)
	expect(t, one, `{"topic":"sales","value":1}`)
	expect(t, all, `{"topic":"sales","value":1}`)
	for _, row := range []struct{ topic, value string }{{"stock", "2"}, {"sales", `{"eur":3}`}} {
		if got := d.publish(row.topic, row.value, d.url, bob); got != 204 {
			t.Fatalf("got %d", got)
		}
		expect(t, all, `{"topic":"`+row.topic+`","value":`+row.value+`}`)
	}
	expect(t, one, `{"topic":"sales","value":{"eur":3}}`) // and not the stock before
}

func dashboardLogout(t *testing.T, d *dashboard) {
	desk, phone, bob := d.enter("alice"), d.enter("alice"), d.enter("bob")
	first, second, other := d.open(desk), d.open(phone), d.open(bob)
	if status, _ := d.post("/logout", foreign, desk, "", ""); !refused(status) {
		t.Errorf("a foreign page logs out: %d", status)
	}
	status, c := d.post("/logout", d.url, desk, "", "")
	if status != 204 || c == nil || c.MaxAge >= 0 {
		t.Fatalf("got %d, and the cookie %v", status, c)
	}
	expectClose(t, first, 4401)
	expectClose(t, second, 4401)
	for _, cookie := range []string{desk, phone} {
		if _, res := d.live(d.url, cookie); res.StatusCode != 401 {
			t.Errorf("the cookie after the logout: %s", res.Status)
		}
	}
	d.open(d.enter("alice")) // at once
	if got := d.publish("sales", "1", d.url, bob); got != 204 {
		t.Errorf("another user: %d", got)
	}
	expect(t, other, `{"topic":"sales","value":1}`)
}

// DashboardGuesses tests that a dashboard blocks an address after ten wrong
// passwords.
func DashboardGuesses(t *testing.T, start StartDashboard) {
	d := newDashboard(t, start, false)
	for range 10 {
		if status, _ := d.login("alice", "wrong", d.url); status != 401 {
			t.Fatalf("got %d", status)
		}
	}
	if status, _ := d.login("alice", "alice", d.url); status != 403 {
		t.Errorf("after ten wrong passwords: %d, want 403", status)
	}
}
