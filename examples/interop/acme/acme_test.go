package acme_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/internal/freeport"
)

const domain = "relay.example.test"

// authority is Pebble with a DNS server for which every name is this machine.
type authority struct {
	url   string
	roots *x509.CertPool // of the certificates that it issues
	http  *http.Client   // that trusts its own certificate
	own   []byte         // that certificate
	log   *testkit.Log
}

// start starts an authority that asks at these ports, and issues certificates
// that are valid for so long.
func start(t *testing.T, httpPort, tlsPort int, valid time.Duration) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	dns := freeport.Addr(t)
	names, err := challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{dns}, Log: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	names.SetDefaultDNSIPv4("127.0.0.1")
	names.SetDefaultDNSIPv6("")
	go names.Run()
	t.Cleanup(names.Shutdown)

	a := &authority{log: new(testkit.Log)}
	logger := log.New(a.log, "", 0)
	store := db.NewMemoryStore()
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(valid / time.Second)}})
	front := wfe.New(logger, store, va.New(logger, httpPort, tlsPort, false, dns, store), issuer, []string{"pebble.letsencrypt.org"}, false, false, 1, 1)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	a.url, a.http, a.own = srv.URL+wfe.DirectoryPath, srv.Client(), srv.Certificate().Raw
	a.roots = x509.NewCertPool()
	a.roots.AddCert(issuer.GetRootCert(0).Cert)
	return a
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (a *authority) client(t *testing.T, dir string, logs io.Writer) *certificate.ACME {
	t.Helper()
	c, err := certificate.NewACME(certificate.ACMEConfig{
		Domains: []string{domain, "www." + domain}, Dir: dir, URL: a.url, Client: a.http,
		Log: slog.New(slog.NewJSONHandler(logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// directory returns a directory for certificates. Package autocert does not say
// when it has written its last file, so a test's own directory may not be empty
// yet when the test removes it.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "acme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		testkit.Eventually(t, "the directory is removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	return filepath.Join(dir, "acme")
}

// run runs c until the test ends.
func run(t *testing.T, c *certificate.ACME) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// serve serves the certificates of c at addr.
func serve(t *testing.T, addr string, c *certificate.ACME) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{TLSConfig: c.TLS(), ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello")
	})}
	go srv.ServeTLS(ln, "", "")
	t.Cleanup(func() { srv.Close() })
}

// redirect serves the redirect of c at addr.
func redirect(t *testing.T, addr string, c *certificate.ACME) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: c.Redirect(nil, "443")}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
}

// leaf returns the certificate that a visitor of name gets, which must be valid.
func (a *authority) leaf(addr, name string) (*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, RootCAs: a.roots})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func (a *authority) eventually(t *testing.T, addr, name string, ok func(*x509.Certificate) bool) *x509.Certificate {
	t.Helper()
	var leaf *x509.Certificate
	defer func() {
		if t.Failed() {
			t.Logf("%.5000s", a.log)
		}
	}()
	testkit.Eventually(t, "the certificate of "+name, func() bool {
		var err error
		leaf, err = a.leaf(addr, name)
		return err == nil && (ok == nil || ok(leaf))
	})
	return leaf
}

// The server gets a certificate for each domain by TLS alone, keeps it for the
// next start, and gives strangers none.
func TestByTLS(t *testing.T) {
	addr := freeport.Addr(t)
	a := start(t, 1, portOf(t, addr), time.Hour)
	dir := directory(t)
	logs := new(testkit.Log)
	c := a.client(t, dir, logs)
	serve(t, addr, c)
	if _, err := a.leaf(addr, domain); err == nil || !c.Expires().IsZero() {
		t.Error("there is a certificate before the authority was asked")
	}
	run(t, c)
	first := a.eventually(t, addr, domain, nil)
	a.eventually(t, addr, "www."+domain, nil)
	if first.VerifyHostname("www."+domain) == nil {
		t.Error("the domains share a certificate")
	}
	for _, name := range []string{"other.example.test", "sub." + domain, "localhost"} {
		if _, err := a.leaf(addr, name); err == nil {
			t.Errorf("%s gets a certificate", name)
		}
	}
	// A client that knows only the address, and one that has RSA only, get the
	// certificates that there are, or none.
	for why, cfg := range map[string]*tls.Config{
		"the address": {InsecureSkipVerify: true},
		"RSA only":    {ServerName: domain, RootCAs: a.roots, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}},
	} {
		conn, err := tls.Dial("tcp", addr, cfg)
		if (err == nil) != (why == "the address") {
			t.Errorf("%s: %v", why, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	// Package autocert removes its answers to the authority a moment later.
	var entries []os.DirEntry
	testkit.Eventually(t, "two certificates and the account", func() bool {
		entries, _ = os.ReadDir(dir)
		return len(entries) == 3
	})
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v", e.Name(), err)
		}
	}
	if c.Expires().After(time.Now().Add(time.Hour+time.Minute)) || c.Expires().IsZero() {
		t.Errorf("it expires %v", c.Expires())
	}

	// The next start uses the same certificates, and asks for none.
	again := a.client(t, dir, logs)
	at := freeport.Addr(t)
	serve(t, at, again)
	if leaf, err := a.leaf(at, domain); err != nil || !leaf.Equal(first) {
		t.Errorf("after a restart: %v", err)
	}
	if n := strings.Count(a.log.String(), "Issued certificate"); n != 2 {
		t.Errorf("%d certificates were issued", n)
	}
	// No private key is in the log.
	for _, secret := range []string{"PRIVATE", "BEGIN"} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// If the authority does not reach the TLS port, the redirect's listener answers
// it, also on another server that shares the directory.
func TestByHTTP(t *testing.T) {
	addr, plain := freeport.Addr(t), freeport.Addr(t)
	a := start(t, portOf(t, plain), 1, time.Hour)
	dir := directory(t)
	c, other := a.client(t, dir, io.Discard), a.client(t, dir, io.Discard)
	c.Redirect(nil, "443") // is served elsewhere; this server only asks
	redirect(t, plain, other)
	serve(t, addr, c)
	run(t, c)
	a.eventually(t, addr, domain, nil)
	a.eventually(t, addr, "www."+domain, nil)

	noRedirects := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, row := range []struct {
		host, path string
		status     int
		location   string
	}{
		{domain, "/a?b", 308, "https://" + domain + "/a?b"},
		{"other.example.test", "/", 421, ""},
		{domain, "/.well-known/acme-challenge/none", 404, ""},
		{"other.example.test", "/.well-known/acme-challenge/none", 403, ""},
	} {
		req, _ := http.NewRequest("GET", "http://"+plain+row.path, nil)
		req.Host = row.host
		res, err := noRedirects.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != row.status || res.Header.Get("Location") != row.location {
			t.Errorf("%s%s: %s to %q", row.host, row.path, res.Status, res.Header.Get("Location"))
		}
	}
}

// A certificate is renewed while the server runs, before it expires.
func TestRenewal(t *testing.T) {
	addr := freeport.Addr(t)
	a := start(t, 1, portOf(t, addr), 45*time.Second) // is renewed after 30
	logs := new(testkit.Log)
	c := a.client(t, directory(t), logs)
	serve(t, addr, c)
	run(t, c)
	first := a.eventually(t, addr, domain, nil)
	second := a.eventually(t, addr, domain, func(leaf *x509.Certificate) bool { return !leaf.Equal(first) })
	if !second.NotAfter.After(first.NotAfter) {
		t.Errorf("renewed until %v, after %v", second.NotAfter, first.NotAfter)
	}
	if !strings.Contains(logs.String(), `"renewed":true`) {
		t.Errorf("the log does not say that it was renewed:\n%s", logs)
	}
}

// An authority that does not reach the server is an error in the log with a
// remedy, and is not asked at each handshake.
func TestAuthorityDoesNotReachUs(t *testing.T) {
	addr := freeport.Addr(t)
	a := start(t, 1, 1, time.Hour)
	logs := new(testkit.Log)
	c := a.client(t, directory(t), logs)
	serve(t, addr, c)
	run(t, c)
	testkit.Eventually(t, "the failure is logged", func() bool { return strings.Contains(logs.String(), "port 443 or 80") })
	before := strings.Count(a.log.String(), "Added order")
	if before == 0 {
		t.Fatalf("the authority was not asked:\n%s", a.log)
	}
	for range 20 {
		if _, err := a.leaf(addr, domain); err == nil {
			t.Error("there is a certificate")
		}
	}
	if after := strings.Count(a.log.String(), "Added order"); after != before {
		t.Error("handshakes made the server ask again")
	}
	if !strings.Contains(logs.String(), `"domain":"`+domain+`"`) || !strings.Contains(logs.String(), "again_in") {
		t.Errorf("the log: %s", logs)
	}
}

// TestServer is the server as a process: its listener, its redirect, and its
// commands.
func TestServer(t *testing.T) {
	plain := freeport.Addr(t)
	dir := directory(t)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	a := start(t, portOf(t, plain), 1, time.Hour)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.own})
	if err := os.WriteFile(roots, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := relay.New(t, "TLS_ACME_DOMAINS="+domain, "TLS_ACME_DIR="+dir, "TLS_ACME_URL="+a.url, "HTTP_REDIRECT_ADDR="+plain, "SSL_CERT_FILE="+roots)
	if out := s.Verb("check"); !strings.Contains(out, "The certificates come from "+a.url) || !strings.Contains(out, "is not there yet") {
		t.Errorf("check: %s", out)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("check has made the directory")
	}
	s.Start()
	s.Logged("certificate loaded", domain)
	if _, err := a.leaf(s.Addr, domain); err != nil {
		t.Fatal(s.Addr, err, s.Lines())
	}
	if out := s.Verb("health"); out != "ready" {
		t.Errorf("health: %s", out)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Addr)
		},
	}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + domain + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || !strings.Contains(res.Header.Get("Strict-Transport-Security"), "max-age=") {
		t.Errorf("the page: %s %v", res.Status, res.Header)
	}
	if out := s.Verb("check"); !strings.Contains(out, "The certificate for "+domain+" expires on ") || !strings.Contains(out, "The environment is usable") {
		t.Errorf("check: %s", out)
	}
	s.Stop()
}
