package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
)

// testCA signs the certificates of a test. The test's clients trust it.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-10 * 365 * 24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{t: t, key: key, pool: x509.NewCertPool()}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.pool.AddCert(ca.cert)
	return ca
}

// issue returns a pair for localhost and 127.0.0.1, changed by change, as PEM.
func (ca *testCA) issue(serial int64, change func(*x509.Certificate)) (cert, key []byte) {
	ca.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost", "art.example", "*.art.example"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		ca.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// pairFiles are the files of a test server's pair.
type pairFiles struct {
	t         *testing.T
	cert, key string
}

func (ca *testCA) files(serial int64) pairFiles {
	ca.t.Helper()
	dir := ca.t.TempDir()
	f := pairFiles{ca.t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	f.write(ca.issue(serial, nil))
	return f
}

func (f pairFiles) write(cert, key []byte) {
	f.t.Helper()
	for name, text := range map[string][]byte{f.cert: cert, f.key: key} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f pairFiles) use(c *config.Config) { c.TLSCert, c.TLSKey = f.cert, f.key }

// client returns a client that trusts ca, and speaks HTTP/2 if the server
// offers it.
func (ca *testCA) client(h2 bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.pool}, ForceAttemptHTTP2: h2, DisableKeepAlives: true,
	}}
}

// connect opens a WebSocket over TLS, or returns the answer that refused it.
func (ca *testCA) connect(addr string, header ...string) (*peer, *http.Response) {
	ca.t.Helper()
	return connectWith(ca.t, ca.client(false), "wss://"+addr+"/ws", header...)
}

func (ca *testCA) peer(addr string, header ...string) *peer {
	ca.t.Helper()
	p, res := ca.connect(addr, header...)
	if p == nil {
		ca.t.Fatalf("refused: %s", res.Status)
	}
	return p
}

// serial connects anew and returns the number of the server's certificate.
func (ca *testCA) serial(addr string) int64 {
	ca.t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.pool})
	if err != nil {
		ca.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func guideTLS(t *testing.T) {
	ca := newCA(t)
	s := start(t, func(c *config.Config) { production(c); ca.files(1).use(c) })
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: ca.pool, MinVersion: version, MaxVersion: version})
		if err == nil {
			conn.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v, want it accepted: %v", tls.VersionName(version), err, want)
		}
	}

	for path, want := range map[string]int{"/": 200, "/style.css": 200, "/nothing": 404, "/ws": 426} {
		res, err := ca.client(true).Get("https://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.ProtoMajor != 2 || res.StatusCode != want {
			t.Errorf("%s: %s %s, want HTTP/2 and %d", path, res.Proto, res.Status, want)
		}
		for _, h := range guideHeaders {
			if len(res.Header.Values(h)) != 1 {
				t.Errorf("%s over HTTP/2: %s is %q", path, h, res.Header.Values(h))
			}
		}
		if up := res.Header.Get("Upgrade"); up != "" {
			t.Errorf("%s: HTTP/2 knows no Upgrade, got %q", path, up)
		}
	}

	// The WebSocket opens with HTTP/1.1, as in browsers, and only from the
	// site's own page.
	viewer := ca.peer(s.addr, "Origin", "https://"+s.addr)
	device := ca.peer(s.addr)
	device.authenticate(s.token(testDevice, time.Hour))
	device.send(`{"text":"over TLS"}`)
	if texts, _ := viewer.texts(1); texts[0] != "over TLS" {
		t.Errorf("a viewer over TLS sees %q", texts)
	}
	for _, origin := range []string{"http://" + s.addr, "https://evil.example"} {
		if p, res := ca.connect(s.addr, "Origin", origin); p != nil || res.StatusCode != 403 {
			t.Errorf("%s: %s", origin, res.Status)
		}
	}

	// Plain HTTP on the TLS port gets an answer that says so, and no page.
	if res, body := s.get("/"); res.StatusCode != 400 || strings.Contains(body, "<html") {
		t.Errorf("plain HTTP: %s %q", res.Status, body)
	}
	// Without NODE_ENV=production there is no HSTS over TLS either: E4.
	res, err := ca.client(true).Get("https://" + start(t, ca.files(1).use).addr)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := res.Header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("development: HSTS %q", got)
	}
}

// A running server loads a renewed certificate. New connections see it, viewers
// stay connected, and an unusable pair changes nothing.
func TestCertificateIsReloaded(t *testing.T) {
	ca := newCA(t)
	files := ca.files(1)
	p := launch(t, true, t.TempDir(), []string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t),
		"TLS_CERT_FILE=" + files.cert, "TLS_KEY_FILE=" + files.key,
	})
	reloads := 0
	reload := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		reloads++
		testkit.Eventually(t, "reloaded", func() bool { return len(p.stderr.Events("secrets reloaded")) == reloads })
	}
	viewer := ca.peer(p.addr)
	device := ca.peer(p.addr)
	device.authenticate(testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(time.Hour))))

	files.write(ca.issue(2, nil))
	reload()
	if got := ca.serial(p.addr); got != 2 {
		t.Errorf("after a renewal, certificate %d is shown, want 2", got)
	}
	good, _ := ca.issue(3, nil)
	_, otherKey := ca.issue(4, nil)
	for _, broken := range [][2][]byte{{good, otherKey}, {good[:100], otherKey}, {nil, nil}} {
		files.write(broken[0], broken[1])
		reload()
		if got := ca.serial(p.addr); got != 2 {
			t.Errorf("with a broken pair, certificate %d is shown, want 2", got)
		}
	}
	if err := os.Remove(files.key); err != nil {
		t.Fatal(err)
	}
	reload()
	reload()
	if got, errors := ca.serial(p.addr), len(p.stderr.Events("certificate not reloaded")); got != 2 || errors != 4 {
		t.Errorf("with a missing key, certificate %d is shown after %d errors, want 2 after 4: each is logged once", got, errors)
	}
	if strings.Contains(p.stderr.String(), files.key) || strings.Contains(p.stderr.String(), "PRIVATE") {
		t.Errorf("the log shows more than the variable's name:\n%s", p.stderr)
	}
	files.write(ca.issue(5, nil))
	reload()
	if got := ca.serial(p.addr); got != 5 {
		t.Errorf("after the pair was fixed, certificate %d is shown, want 5", got)
	}
	device.send(`{"text":"still here"}`)
	if texts, _ := viewer.texts(1); texts[0] != "still here" {
		t.Errorf("the viewer that was there sees %q", texts)
	}
}

// Without a signal, the server loads a changed file within a minute.
func TestCertificateIsLookedAtEachMinute(t *testing.T) {
	ca := newCA(t)
	files := ca.files(1)
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		c, err := certificate.New(files.cert, files.key, slog.New(slog.NewJSONHandler(&logs, nil)))
		if err != nil {
			t.Fatal(err)
		}
		files.write(ca.issue(2, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(13 * 24 * time.Hour) }))
		for _, step := range []struct {
			wait time.Duration
			want int64
		}{{0, 1}, {time.Minute - 1, 1}, {1, 2}} {
			time.Sleep(step.wait)
			pair, err := c.TLS().GetCertificate(nil)
			if err != nil || pair.Leaf.SerialNumber.Int64() != step.want {
				t.Errorf("%v later: certificate %v, %v, want %d", step.wait, pair.Leaf.SerialNumber, err, step.want)
			}
		}
		if !strings.Contains(logs.String(), `"level":"WARN","msg":"certificate loaded"`) {
			t.Errorf("no warning of a certificate that has 13 days left:\n%s", &logs)
		}
	})
}

func TestRedirect(t *testing.T) {
	ca := newCA(t)
	s := start(t, func(c *config.Config) { production(c); ca.files(1).use(c); c.RedirectAddr = "127.0.0.1:" + freePort(t) })
	stop, err := s.srv.ListenRedirect(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.addr)))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	_, port, _ := net.SplitHostPort(s.addr)
	plain := &testSite{t: t, addr: s.cfg.RedirectAddr}
	for _, row := range []struct{ host, path, want string }{
		{"art.example", "/", "https://art.example:" + port + "/"},
		{"ART.example:80", "/a%2fb?c=d&e", "https://ART.example:" + port + "/a%2fb?c=d&e"},
		{"127.0.0.1", "/ws", "https://127.0.0.1:" + port + "/ws"},
		{"x.art.example", "//evil.example/", "https://x.art.example:" + port + "//evil.example/"},
		{"evil.example", "/", ""},
		{"art.example.evil.example", "/", ""},
		{"art.example@evil.example", "/", ""},
		{"192.0.2.1", "/", ""},
		{"[::1]", "/", ""},
	} {
		res, _ := plain.get(row.path, "Host", row.host)
		if got := res.Header.Get("Location"); got != row.want || (row.want == "") != (res.StatusCode == 421) || row.want != "" && res.StatusCode != 308 {
			t.Errorf("%s%s: %d to %q, want %q", row.host, row.path, res.StatusCode, got, row.want)
		}
		for _, h := range guideHeaders {
			if want := map[bool]int{false: 1}[h == "Strict-Transport-Security"]; len(res.Header.Values(h)) != want {
				t.Errorf("%s: %s is %q, want %d of it", row.host, h, res.Header.Values(h), want)
			}
		}
	}
	// Only a client that writes its own bytes sends these requests.
	for request, want := range map[string]string{
		"GET http:.evil.example HTTP/1.1\r\nHost: art.example\r\n\r\n":   "https://art.example:" + port + "/",
		"GET http://evil.example/ HTTP/1.1\r\nHost: art.example\r\n\r\n": "",
		"GET / HTTP/1.0\r\n\r\n": "",
		"POST / HTTP/1.1\r\nHost: art.example\r\nContent-Length: 0\r\n\r\n": "",
		"GET /a\tb HTTP/1.1\r\nHost: art.example\r\n\r\n":                   "",
		"GET /%0d%0aX-Injected:%20a HTTP/1.1\r\nHost: art.example\r\n\r\n":  "https://art.example:" + port + "/%0d%0aX-Injected:%20a",
		"GET /?a=\xff HTTP/1.1\r\nHost: art.example:99999999\r\n\r\n":       "https://art.example:" + port + "/?a=\xff",
		"OPTIONS * HTTP/1.1\r\nHost: art.example\r\n\r\n":                   "",
		"CONNECT art.example:443 HTTP/1.1\r\nHost: art.example:443\r\n\r\n": "",
	} {
		conn, err := net.Dial("tcp", plain.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		conn.Close()
		if err != nil {
			t.Errorf("%q: %v", request, err)
			continue
		}
		if got := res.Header.Get("Location"); got != want {
			t.Errorf("%q: %s to %q, want %q", request, res.Status, got, want)
		}
		if res.Header.Get("X-Injected") != "" {
			t.Errorf("%q: a header is injected", request)
		}
	}
}

// If ports are forwarded, the redirect takes the public port from the allowed
// origin.
func TestRedirectPort(t *testing.T) {
	ca := newCA(t)
	files := ca.files(1)
	c, err := certificate.New(files.cert, files.key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		origins    []string
		port, want string
	}{
		{nil, "443", "https://art.example/"},
		{nil, "3000", "https://art.example:3000/"},
		{[]string{"http://art.example", "https://art.example"}, "3000", "https://art.example/"},
		{[]string{"https://art.example:8443"}, "3000", "https://art.example:8443/"},
		{[]string{"https://other.example:8443"}, "3000", "https://art.example:3000/"},
	} {
		w := httptest.NewRecorder()
		c.Redirect(row.origins, row.port).ServeHTTP(w, httptest.NewRequest("HEAD", "http://art.example/", nil))
		if got := w.Header().Get("Location"); got != row.want {
			t.Errorf("origins %q, port %s: to %q, want %q", row.origins, row.port, got, row.want)
		}
	}
}

// This test runs the process, with both listeners, and checks its errors for an
// unusable pair.
func TestTLSProcess(t *testing.T) {
	ca := newCA(t)
	files, redirect := ca.files(7), "127.0.0.1:"+freePort(t)
	env := []string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "NODE_ENV=production",
		"TLS_CERT_FILE=" + files.cert, "TLS_KEY_FILE=" + files.key, "HTTP_REDIRECT_ADDR=" + redirect,
	}
	p := launch(t, true, t.TempDir(), env)
	res, _ := (&testSite{t: t, addr: redirect}).get("/", "Host", "127.0.0.1")
	if got := res.Header.Get("Location"); got != "https://"+p.addr+"/" {
		t.Errorf("plain HTTP leads to %q, want https://%s/", got, p.addr)
	}
	if got := ca.serial(p.addr); got != 7 {
		t.Errorf("certificate %d is shown, want 7", got)
	}
	asked := launch(t, false, t.TempDir(), env, "health")
	if code := asked.wait(); code != 0 || asked.stdout.String() != "ready\n" {
		t.Errorf("health: exit code %d: %s%s", code, asked.stdout, asked.stderr)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}

	check := func(want int, contains string, changes ...string) {
		t.Helper()
		p := launch(t, false, t.TempDir(), append(env[:len(env):len(env)], changes...), "check")
		if code := p.wait(); code != want || !strings.Contains(p.stdout.String(), contains) {
			t.Errorf("check: exit code %d, want %d and %q in\n%s%s", code, want, contains, p.stdout, p.stderr)
		}
	}
	check(0, "The certificate for localhost, art.example, *.art.example expires on "+time.Now().Add(90*24*time.Hour).UTC().Format(time.DateOnly)+", in 89 days.\n")
	check(1, "is required together with TLS_CERT_FILE", "TLS_KEY_FILE=")
	check(1, "is required if HTTP_REDIRECT_ADDR is set", "TLS_KEY_FILE=", "TLS_CERT_FILE=")
	check(1, "cannot be set together with TLS_CERT_FILE: the certificate comes from the file or from the authority", "TLS_ACME_DOMAINS=art.example", "TLS_ACME_DIR="+t.TempDir())
	check(1, "TLS_KEY_FILE: no such file or directory", "TLS_KEY_FILE=-----BEGIN PRIVATE KEY-----")
	check(1, "TLS_CERT_FILE: not a regular file", "TLS_CERT_FILE=/dev/zero")
	check(1, "are not a pair that can be used", "TLS_KEY_FILE="+files.cert)
	for text, expires := range map[string]time.Duration{"WARNING: renew it": 13 * 24 * time.Hour, "has expired on": -time.Minute} {
		files.write(ca.issue(8, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(expires) }))
		code := 0
		if expires < 0 {
			code = 1
		}
		check(code, text)
	}
}

// The variables of certificates by ACME are checked together, and nothing is
// asked of an authority by that.
func TestACMEVariables(t *testing.T) {
	open, private := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(open, 0o755), os.Chmod(private, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why  string
		env  map[string]string
		code int
		want string
	}{
		{"all that is needed", map[string]string{"TLS_ACME_DOMAINS": "art.example,www.art.example", "TLS_ACME_DIR": private, "PORT": "443"}, 0, "come from https://acme-v02.api.letsencrypt.org/directory.\n"},
		{"for tests", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": private, "TLS_ACME_STAGING": "true"}, 0, "come from https://acme-staging-v02.api.letsencrypt.org/directory.\n"},
		{"another authority", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": private, "TLS_ACME_URL": "https://ca.example/d"}, 0, "come from https://ca.example/d.\n"},
		{"a port that the authority does not ask at", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": private}, 0, "WARNING: the authority asks at port 443 or 80"},
		{"several servers", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": private, "REDIS_URL": "redis://127.0.0.1:1"}, 0, "WARNING: servers that share REDIS_URL must share TLS_ACME_DIR too"},
		{"a directory that others can enter", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": open}, 1, "chmod 0700"},
		{"no directory", map[string]string{"TLS_ACME_DOMAINS": "art.example"}, 1, "TLS_ACME_DIR"},
		{"no domain", map[string]string{"TLS_ACME_DIR": private}, 1, "TLS_ACME_DOMAINS"},
		{"two authorities", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": private, "TLS_ACME_STAGING": "true", "TLS_ACME_URL": "https://ca.example/d"}, 1, "names another authority"},
		{"in the clear", map[string]string{"TLS_ACME_DOMAINS": "art.example", "TLS_ACME_DIR": private, "TLS_ACME_URL": "http://ca.example/d"}, 1, "must be an https URL"},
		{"a wildcard", map[string]string{"TLS_ACME_DOMAINS": "*.art.example", "TLS_ACME_DIR": private}, 1, "without *"},
		{"an address", map[string]string{"TLS_ACME_DOMAINS": "192.0.2.7", "TLS_ACME_DIR": private}, 1, "a domain in lower case"},
		{"a name of this network", map[string]string{"TLS_ACME_DOMAINS": "localhost", "TLS_ACME_DIR": private}, 1, "a domain in lower case"},
		{"a port", map[string]string{"TLS_ACME_DOMAINS": "art.example:443", "TLS_ACME_DIR": private}, 1, "without a port"},
		{"another directory upward", map[string]string{"TLS_ACME_DOMAINS": "../art.example", "TLS_ACME_DIR": private}, 1, "a domain in lower case"},
	} {
		var out strings.Builder
		if code := run(t.Context(), []string{"check"}, environment(row.env), &out, &out); code != row.code || !strings.Contains(out.String(), row.want) {
			t.Errorf("%s: exit code %d: %s", row.why, code, out.String())
		}
	}
	cfg := testConfig(t)
	cfg.ACMEDomains, cfg.ACMEDir = []string{"art.example"}, open
	if s, err := site.New(cfg, site.Options{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("the server starts with keys that others can read: %v", err)
		s.Close()
	}
}
