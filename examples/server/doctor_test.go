package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/server/doctor"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// deployment is a relay behind a front that ends TLS for art.example, and breaks
// one thing. Zero: nothing.
type deployment struct {
	relay     func(*config)                   // the relay's own configuration
	answer    func(*http.Response)            // what the front does to an answer
	request   func(*httputil.ProxyRequest)    // and to a request
	handle    func(http.Handler) http.Handler // what the front answers itself
	socket    http.Handler                    // in place of the relay's own, behind its limiter
	tls       func(*tls.Config)               // how the front speaks TLS
	cert      func(*x509.Certificate)         // what the certificate says
	plain     func(site string) http.Handler  // port 80; nil: the redirect
	ports     []string                        // that are open beside 80 and 443
	noHTTP2   bool
	unknownCA bool
	closed80  bool
}

// awayConn makes loopback look like the internet, where no proxy is.
type awayConn struct{ net.Conn }

func (awayConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }

// examine deploys and lets the doctor look at https://art.example/.
func (d deployment) examine(t *testing.T, change func(*doctor.Config)) doctor.Report {
	t.Helper()
	s := start(t, func(c *config) {
		production(c)
		if d.relay != nil {
			d.relay(c)
		}
	})
	for i := range 20 {
		if _, err := s.srv.history.Append(t.Context(), fmt.Appendf(nil, `{"text":"%d","timestamp":%d}`, i, time.Now().UnixMilli())); err != nil {
			t.Fatal(err)
		}
	}
	if s.cfg.historyKeep > 1000 {
		for range s.cfg.historyKeep {
			if _, err := s.srv.history.Append(t.Context(), fmt.Appendf(nil, `{"text":"a","timestamp":%d}`, time.Now().UnixMilli())); err != nil {
				t.Fatal(err)
			}
		}
	}
	upstream := "http://" + s.addr
	if d.socket != nil {
		mux := http.NewServeMux()
		secure, err := s.cfg.secure()
		if err != nil {
			t.Fatal(err)
		}
		mux.Handle("/ws", secure.Handler(s.srv.limiter.Handler(d.socket)))
		mux.Handle("/", s.srv.handler)
		upstream = "http://" + listen(t, mux)
	}
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			// As if the client were no neighbour of the relay, which trusts those.
			r.Out.Header.Set("X-Forwarded-For", "192.0.2.9")
			r.Out.Header.Set("X-Real-IP", "192.0.2.9")
			if d.request != nil {
				d.request(r)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if d.answer != nil {
				d.answer(r)
			}
			return nil
		},
	}
	var handler http.Handler = proxy
	if d.handle != nil {
		handler = d.handle(handler)
	}

	ca := newCA(t)
	certPEM, keyPEM := ca.issue(1, d.cert)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(handler)
	front.EnableHTTP2 = !d.noHTTP2
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if d.tls != nil {
		d.tls(front.TLS)
	}
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	front.StartTLS()
	t.Cleanup(front.Close)

	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://art.example"+r.URL.RequestURI(), http.StatusPermanentRedirect)
	})
	at := map[string]string{"443": front.Listener.Addr().String()}
	if d.plain != nil {
		at["80"] = listen(t, d.plain("http://"+s.addr))
	} else if !d.closed80 {
		at["80"] = listen(t, plain)
	}
	for _, port := range d.ports {
		at[port] = s.addr
	}
	cfg := doctor.Config{
		URL:   "https://art.example/",
		Token: s.token(testDevice, time.Hour),
		Roots: ca.pool,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			if at[port] == "" {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			conn, err := new(net.Dialer).DialContext(ctx, network, at[port])
			if err != nil {
				return nil, err
			}
			return awayConn{conn}, nil
		},
	}
	if d.unknownCA {
		cfg.Roots = newCA(t).pool
	}
	if change != nil {
		change(&cfg)
	}
	report, err := doctor.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// with returns the IDs of the items that have an outcome.
func with(r doctor.Report, outcome doctor.Outcome) (ids []string) {
	for _, item := range r.Items {
		if item.Outcome == outcome {
			ids = append(ids, item.ID)
		}
	}
	return ids
}

// one finds an item.
func one(r doctor.Report, id string) doctor.Item {
	i := slices.IndexFunc(r.Items, func(item doctor.Item) bool { return item.ID == id })
	return r.Items[i]
}

func guideDoctor(t *testing.T) {
	t.Run("good", func(t *testing.T) {
		r := deployment{}.examine(t, nil)
		for _, outcome := range []doctor.Outcome{doctor.Fail, doctor.Warn, doctor.Skipped} {
			for _, id := range with(r, outcome) {
				t.Errorf("%s: %s: %s", outcome, id, one(r, id).Seen)
			}
		}
		if got, want := with(r, doctor.Manual), []string{"secret", "device-id", "firewall", "monitoring.alerts"}; !slices.Equal(got, want) {
			t.Errorf("not visible from outside: %q, want %q", got, want)
		}
		if g := one(r, "headers.grade").Seen; !strings.HasPrefix(g, "A+") {
			t.Errorf("grade: %s", g)
		}
	})
	for name, row := range broken() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := row.examine(t, nil)
			bad := append(with(r, doctor.Fail), with(r, doctor.Warn)...)
			if !slices.Equal(bad, []string{row.line}) {
				for _, id := range bad {
					t.Errorf("%s: %s", id, one(r, id).Seen)
				}
				t.Fatalf("found by %q, want %s alone", bad, row.line)
			}
			item := one(r, row.line)
			if !strings.Contains(item.Seen, row.seen) || item.Mend == "" {
				t.Errorf("%s says %q and %q, want %q in the first", row.line, item.Seen, item.Mend, row.seen)
			}
			if (item.Outcome == doctor.Warn) != row.warn {
				t.Errorf("%s: outcome %s", row.line, item.Outcome)
			}
		})
	}
}

type breakage struct {
	deployment
	line, seen string
	warn       bool
}

// on changes the header of answers that pass.
func on(pass func(*http.Response) bool, change func(http.Header)) deployment {
	return deployment{answer: func(r *http.Response) {
		if pass(r) {
			change(r.Header)
		}
	}}
}

func always(*http.Response) bool { return true }

func status(code int) func(*http.Response) bool {
	return func(r *http.Response) bool { return r.StatusCode == code }
}

func page(r *http.Response) bool { return r.StatusCode == 200 && r.Request.URL.Path == "/" }

func without(name string) func(http.Header) { return func(h http.Header) { h.Del(name) } }

func value(name, v string) func(http.Header) { return func(h http.Header) { h.Set(name, v) } }

// body replaces the answers that pass by a text.
func body(pass func(*http.Response) bool, text string) deployment {
	return deployment{answer: func(r *http.Response) {
		if pass(r) {
			r.Body = io.NopCloser(strings.NewReader(text))
			r.ContentLength = int64(len(text))
			r.Header.Set("Content-Length", fmt.Sprint(len(text)))
		}
	}}
}

// answering makes the front itself answer a path.
func answering(path string, code int, text string) deployment {
	return deployment{handle: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				w.WriteHeader(code)
				fmt.Fprint(w, text)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}
}

const csp = "Content-Security-Policy"

// broken is one row for each thing that can be wrong, with the line that must name
// it and no other.
func broken() map[string]breakage {
	asset := func(r *http.Response) bool { return r.StatusCode == 200 && r.Request.URL.Path == "/favicon.svg" }
	return map[string]breakage{
		"development":            {deployment{relay: func(c *config) { c.production = false }}, "production", "neither", false},
		"origin check off":       {deployment{request: func(r *httputil.ProxyRequest) { r.Out.Header.Del("Origin") }}, "origin", "may connect", false},
		"own origin refused":     {deployment{request: func(r *httputil.ProxyRequest) { r.Out.Header.Set("X-Forwarded-Proto", "http") }}, "origin", "the site's own", false},
		"no HSTS":                {on(always, without("Strict-Transport-Security")), "headers.hsts", "none on any answer", false},
		"HSTS of a day":          {on(always, value("Strict-Transport-Security", "max-age=86400")), "headers.hsts", "less than a year", false},
		"no HSTS on errors":      {on(status(404), without("Strict-Transport-Security")), "headers.hsts", "none on 404", false},
		"no nosniff on 404":      {on(status(404), without("X-Content-Type-Options")), "headers.missing", "no X-Content-Type-Options", false},
		"no header on upgrade":   {on(status(101), without("X-Frame-Options")), "headers.upgrade", "no X-Frame-Options", false},
		"no policy on 426":       {on(status(426), without(csp)), "headers.refusal", "no Content-Security-Policy", false},
		"no referrer on a file":  {on(asset, without("Referrer-Policy")), "headers.asset", "no Referrer-Policy", false},
		"frames on the page":     {on(page, value("X-Frame-Options", "ALLOWALL")), "headers.page", "ALLOWALL", false},
		"no policy on the page":  {on(page, without(csp)), "headers.page", "no Content-Security-Policy", false},
		"a header twice":         {on(page, func(h http.Header) { h.Add("X-Xss-Protection", "0") }), "headers.page", "sent 2 times", false},
		"inline script":          {on(page, value(csp, "default-src 'self' 'unsafe-inline'")), "headers.csp", "inline", false},
		"the nonce of yesterday": {on(page, value(csp, "default-src 'none'; script-src 'nonce-abcdefghijklmnopqrstuv'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")), "headers.csp", "same in two", false},
		"any WebSocket":          {on(page, value(csp, "default-src 'none'; connect-src 'self' wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")), "headers.csp", "wss:", true},
		"a careless cookie":      {on(page, value("Set-Cookie", "sessionid=1")), "headers.grade", "cookie", false},
		"server with version":    {on(always, value("Server", "nginx/1.18.0")), "errors.banner", "nginx/1.18.0", false},
		"powered by":             {on(status(405), value("X-Powered-By", "Express")), "errors.banner", "Express", false},
		"stack trace":            {body(status(404), "boom\n\ngoroutine 7 [running]:\nmain.main()\n\t/srv/relay/main.go:42"), "errors.pages", "a stack trace", false},
		"version on an error":    {body(status(405), "<center>nginx/1.18.0</center>"), "errors.pages", "a version", false},
		"path on an error":       {body(status(404), "open /var/www/html/x: no such file"), "errors.pages", "a path", false},
		"TLS 1.0":                {deployment{tls: func(c *tls.Config) { c.MinVersion = tls.VersionTLS10 }}, "tls.version", "TLS 1.0 is accepted", false},
		"TLS 1.1":                {deployment{tls: func(c *tls.Config) { c.MinVersion = tls.VersionTLS11 }}, "tls.version", "TLS 1.1 is accepted", false},
		"weak suites": {deployment{tls: func(c *tls.Config) {
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
		}}, "tls.ciphers", "RC4", false},
		"HTTP/1.1 only":           {deployment{noHTTP2: true}, "tls.http2", "HTTP/1.1", true},
		"expired":                 {deployment{cert: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }}, "tls.certificate", "expired on", false},
		"expires soon":            {deployment{cert: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * 24 * time.Hour) }}, "tls.certificate", "expires in 9 days", true},
		"not valid yet":           {deployment{cert: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }}, "tls.certificate", "not yet valid", false},
		"another name":            {deployment{cert: func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }}, "tls.certificate", "other.example", false},
		"unknown authority":       {deployment{unknownCA: true}, "tls.certificate", "not trusted", false},
		"no redirect":             {deployment{plain: func(to string) http.Handler { return httputil.NewSingleHostReverseProxy(must(url.Parse(to))) }}, "tls.redirect", "port 80 answers 200", false},
		"redirect to http":        {deployment{plain: redirectTo("http://art.example/")}, "tls.redirect", "leads to", false},
		"redirect elsewhere":      {deployment{plain: redirectTo("https://parking.example/")}, "tls.redirect", "parking.example", false},
		"redirect to any host":    {deployment{plain: redirectTo("")}, "tls.redirect", "wherever", false},
		"port 80 closed":          {deployment{closed80: true}, "tls.redirect", "nothing answers", true},
		"application port open":   {deployment{ports: []string{"3000"}}, "ports.app", "3000", true},
		"operator's port open":    {deployment{ports: []string{"3001"}}, "ports.operator", "3001", true},
		"metrics exposed":         {answering("/metrics", 200, "relay_connections 7"), "exposed", "/metrics is answered 200", false},
		"operator exposed":        {answering("/reports", 401, "Unauthorized"), "exposed", "/reports is answered 401", false},
		"environment exposed":     {answering("/.env", 200, "JWT_SECRET=x"), "exposed", "/.env", false},
		"no health":               {answering("/readyz", 503, "stopping"), "monitoring.health", "/readyz is answered 503", false},
		"rate of 1000":            {deployment{relay: func(c *config) { c.rateConnections = 1000 }}, "rate-limit", "11 connections", false},
		"no Retry-After":          {on(status(429), without("Retry-After")), "rate-limit.answer", "Retry-After", false},
		"Retry-After of a year":   {on(status(429), value("Retry-After", "31536000")), "rate-limit.answer", "31536000", false},
		"forged addresses":        {deployment{request: believing}, "proxy.forwarded", "forges", false},
		"slots leak":              {deployment{handle: leaking}, "websocket.cleanup", "still refused", false},
		"no upgrade":              {deployment{request: func(r *httputil.ProxyRequest) { r.Out.Header.Del("Upgrade"); r.Out.Header.Del("Connection") }}, "websocket.upgrade", "answered 426", false},
		"no limit of size":        {deployment{socket: imitation{unlimited: true}}, "websocket.size", "not 1009", false},
		"an answer per reason":    {deployment{socket: imitation{telling: true}}, "auth.refused", "unknown device", false},
		"no answer":               {deployment{socket: imitation{silent: true}}, "auth.refused", "with nothing", false},
		"left open":               {deployment{socket: imitation{open: true}}, "auth.close", "still open", false},
		"another code":            {deployment{socket: imitation{code: 1008}}, "auth.close", "1008", false},
		"no JSON error":           {deployment{socket: imitation{wordless: true}}, "auth.json", "with nothing", false},
		"good tokens refused":     {deployment{socket: imitation{strict: true}}, "auth.token", "not accepted", false},
		"history of 5000":         {deployment{relay: func(c *config) { c.historyKeep, c.historyTrimAt = 5000, 6000 }}, "history", "messages are kept", false},
		"identity in the history": {deployment{socket: imitation{history: `{"type":"history","messages":[{"text":"a","timestamp":1700000000000,"device":"pi-1"}]}`}}, "history", `carries "device"`, false},
		"no timestamps":           {deployment{socket: imitation{history: `{"type":"history","messages":[{"text":"a"}]}`}}, "history", "no timestamp", false},
		"seconds":                 {deployment{socket: imitation{history: `{"type":"history","messages":[{"text":"a","timestamp":1700000000}]}`}}, "history", "no timestamp", false},
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// redirectTo answers with a fixed address, or with the host that was asked for.
func redirectTo(to string) func(string) http.Handler {
	return func(string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if to == "" {
				http.Redirect(w, r, "https://"+r.Host+"/", http.StatusMovedPermanently)
				return
			}
			http.Redirect(w, r, to, http.StatusMovedPermanently)
		})
	}
}

// believing passes on what the client says of its address.
func believing(r *httputil.ProxyRequest) {
	if said := r.In.Header["X-Forwarded-For"]; said != nil {
		r.Out.Header["X-Forwarded-For"] = said
	}
}

// leaking counts connections and never gives one back.
func leaking(next http.Handler) http.Handler {
	var open atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" && open.Add(1) > 10 {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// imitation is another server's WebSocket. Zero: it keeps to the protocol.
type imitation struct {
	unlimited bool   // reads what is too large
	telling   bool   // says why a token is refused
	silent    bool   // refuses without a word
	open      bool   // goes on after a refusal
	wordless  bool   // closes without an error where there is no JSON
	strict    bool   // accepts nobody
	code      int    // closes a refusal with it
	history   string // shows it
}

func (i imitation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	up := must(wsconn.New(wsconn.Config{Origins: wsconn.Origins{Scheme: func(*http.Request) string { return "https" }}}))
	conn, err := up.Accept(w, r)
	if err != nil {
		return
	}
	defer conn.Abort()
	if i.unlimited {
		conn.SetReadLimit(1 << 20)
	}
	say := func(text string) { _ = conn.Write(context.Background(), []byte(text)) } // who does not listen is not told
	if i.history == "" {
		i.history = `{"type":"history","messages":[{"text":"a","timestamp":1700000000000}],"pos":"1"}`
	}
	say(i.history)
	for {
		message, err := conn.Read(context.Background())
		if errors.Is(err, wsauth.ErrTooBig) {
			_ = conn.Close(1009, "")
		}
		if err != nil {
			return
		}
		var m struct{ Token string }
		if json.Unmarshal(message, &m) != nil {
			if !i.wordless {
				say(invalidJSON)
			}
			_ = conn.Close(1007, "")
			return
		}
		parts := strings.Split(m.Token+"..", ".")
		claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
		switch {
		case !i.strict && strings.Contains(string(claims), `"`+testDevice+`"`):
			say(`{"status":"authenticated"}`)
			continue
		case i.silent:
		case i.telling && strings.Contains(string(claims), "device"):
			say(`{"error":"No such device"}`)
		default:
			say(authFailed)
		}
		if !i.open {
			if i.code == 0 {
				i.code = 4401
			}
			_ = conn.Close(i.code, "")
			return
		}
	}
}

// The verb against real processes: exit codes, the form for people and for machines.
func TestDoctorVerb(t *testing.T) {
	ca := newCA(t)
	files := ca.files(1)
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
	if err := os.WriteFile(roots, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	server := launch(t, true, dir, []string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "NODE_ENV=production",
		"TLS_CERT_FILE=" + files.cert, "TLS_KEY_FILE=" + files.key,
	})
	viewer := ca.peer(server.addr)
	device := ca.peer(server.addr)
	device.authenticate(forge(testSecret, hs256, claims(testDevice, time.Now().Add(time.Hour))))
	device.send(`{"text":"before"}`)
	viewer.texts(1)
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := write("good", forge(testSecret, hs256, claims(testDevice, time.Now().Add(time.Hour)))+"\n")
	stale := write("stale", forge(testSecret, hs256, claims(testDevice, time.Now().Add(-time.Hour))))

	run := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		p := launch(t, false, dir, []string{"SSL_CERT_FILE=" + roots}, append([]string{"doctor"}, args...)...)
		if code := p.wait(); code != want {
			t.Errorf("doctor %q: exit code %d, want %d\n%s%s", args, code, want, p.stdout, p.stderr)
		}
		return p.stdout.String(), p.stderr.String()
	}
	site := "https://" + server.addr
	text, _ := run(0, "-token-file", good, site)
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.Contains(text, "\x1b") || !strings.Contains(text, "ok       auth.token         the token is accepted\n") || strings.Contains(text, "eyJ") {
		t.Errorf("the report for people:\n%s", text)
	}
	out, _ := run(0, "-json", "-skip-rate-limit", "-token-file", stale, site)
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Items) != strings.Count(out, `"checklist": "p`) {
		t.Errorf("the report for machines: %v\n%s", err, out)
	}
	if item := one(report, "auth.token"); item.Outcome != doctor.OK || item.Seen != "the expired token is refused" {
		t.Errorf("an expired token: %+v", item)
	}
	if item := one(report, "rate-limit"); item.Outcome != doctor.Skipped {
		t.Errorf("asked to be left out: %+v", item)
	}

	plain := start(t, nil)
	run(1, "http://"+plain.addr)
	if _, stderr := run(3, "http://127.0.0.1:"+freePort(t)); !strings.Contains(stderr, "not reachable: connect: connection refused") {
		t.Errorf("where nobody listens: %s", stderr)
	}
	run(3, "https://"+plain.addr)
	for _, args := range [][]string{
		{}, {"art.example"}, {"ftp://art.example"}, {"https://a:b@art.example"}, {"https://art.example?x"}, {site, site},
		{"-timeout", "0s", site}, {"-origin", "evil.example", site}, {"-token-file", dir, site}, {"-token-file", write("empty", ""), site}, {"-no-such-flag"},
	} {
		if _, stderr := run(2, args...); stderr == "" {
			t.Errorf("doctor %q: not a word", args)
		}
	}

	// Nothing was published: the next message is the viewer's next.
	device.send(`{"text":"after"}`)
	if texts, _ := viewer.texts(1); texts[0] != "after" {
		t.Errorf("the doctor published %q", texts)
	}
}
