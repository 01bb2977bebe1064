package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

type breakage struct {
	deployment
	line, seen string
	warn       bool
}

// on changes the header of the answers that match.
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

// body replaces the body of the answers that match with a text.
func body(pass func(*http.Response) bool, text string) deployment {
	return deployment{answer: func(r *http.Response) {
		if pass(r) {
			r.Body = io.NopCloser(strings.NewReader(text))
			r.ContentLength = int64(len(text))
			r.Header.Set("Content-Length", fmt.Sprint(len(text)))
		}
	}}
}

// answering makes the front answer a path itself.
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

// broken has one row for each possible fault, with the only line of the report
// that must name the fault.
func broken() map[string]breakage {
	asset := func(r *http.Response) bool { return r.StatusCode == 200 && r.Request.URL.Path == "/favicon.svg" }
	return map[string]breakage{
		"development":           {deployment{relay: func(c *config.Config) { c.Production = false }}, "production", "neither", false},
		"origin check off":      {deployment{request: func(r *httputil.ProxyRequest) { r.Out.Header.Del("Origin") }}, "origin", "may connect", false},
		"own origin refused":    {deployment{request: func(r *httputil.ProxyRequest) { r.Out.Header.Set("X-Forwarded-Proto", "http") }}, "origin", "the site's own", false},
		"no HSTS":               {on(always, without("Strict-Transport-Security")), "headers.hsts", "none on any answer", false},
		"HSTS of a day":         {on(always, value("Strict-Transport-Security", "max-age=86400")), "headers.hsts", "less than a year", false},
		"no HSTS on errors":     {on(status(404), without("Strict-Transport-Security")), "headers.hsts", "none on 404", false},
		"no nosniff on 404":     {on(status(404), without("X-Content-Type-Options")), "headers.missing", "no X-Content-Type-Options", false},
		"no header on upgrade":  {on(status(101), without("X-Frame-Options")), "headers.upgrade", "no X-Frame-Options", false},
		"no policy on 426":      {on(status(426), without(csp)), "headers.refusal", "no Content-Security-Policy", false},
		"no referrer on a file": {on(asset, without("Referrer-Policy")), "headers.asset", "no Referrer-Policy", false},
		"frames on the page":    {on(page, value("X-Frame-Options", "ALLOWALL")), "headers.page", "ALLOWALL", false},
		"no frames' header":     {on(page, without("X-Frame-Options")), "headers.page", "no X-Frame-Options", false},
		"frames of anyone": {on(page, func(h http.Header) {
			h.Del("X-Frame-Options")
			h.Set(csp, strings.Replace(h.Get(csp), "frame-ancestors 'none'", "frame-ancestors https://*.example", 1))
		}), "headers.page", "no X-Frame-Options", false},
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
		"redirect to http":        {deployment{plain: redirectTo("http://art.example/")}, "tls.redirect", "redirects to", false},
		"redirect elsewhere":      {deployment{plain: redirectTo("https://parking.example/")}, "tls.redirect", "parking.example", false},
		"redirect to any host":    {deployment{plain: redirectTo("")}, "tls.redirect", "any host", false},
		"port 80 closed":          {deployment{closed80: true}, "tls.redirect", "nothing answers", true},
		"application port open":   {deployment{ports: []string{"3000"}}, "ports.app", "3000", true},
		"operator's port open":    {deployment{ports: []string{"3001"}}, "ports.operator", "3001", true},
		"metrics exposed":         {answering("/metrics", 200, "relay_connections 7"), "exposed", "/metrics is answered 200", false},
		"operator exposed":        {answering("/reports", 401, "Unauthorized"), "exposed", "/reports is answered 401", false},
		"environment exposed":     {answering("/.env", 200, "JWT_SECRET=x"), "exposed", "/.env", false},
		"no health":               {answering("/readyz", 503, "stopping"), "monitoring.health", "/readyz is answered 503", false},
		"starting":                {answering("/readyz", 503, "starting\n"), "monitoring.health", "waits for its engine", false},
		"degraded":                {answering("/readyz", 200, "degraded: engine\n"), "monitoring.health", "disk or its engine fails", true},
		"rate of 1000":            {deployment{relay: func(c *config.Config) { c.RateConnections = 1000 }}, "rate-limit", "11 connections", false},
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
		"history of 5000":         {deployment{relay: func(c *config.Config) { c.HistoryKeep, c.HistoryTrimAt = 5000, 6000 }}, "history", "messages are kept", false},
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

// believing forwards the client's own claim about its address.
func believing(r *httputil.ProxyRequest) {
	if said := r.In.Header["X-Forwarded-For"]; said != nil {
		r.Out.Header["X-Forwarded-For"] = said
	}
}

// leaking counts connections, and never releases one.
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

// imitation is another server's WebSocket. The zero value follows the protocol.
type imitation struct {
	unlimited bool   // reads messages that are too large
	telling   bool   // reports why a token is refused
	silent    bool   // refuses without an answer
	open      bool   // goes on after a refusal
	wordless  bool   // closes without an error if a message is not JSON
	strict    bool   // accepts no token
	code      int    // closes a refused connection with this code
	history   string // the history frame that it sends

	heard func(message []byte) // if set, gets every message
}

func (i imitation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	up := must(wsconn.New(wsconn.Config{Origins: wsauth.Origins{Scheme: func(*http.Request) string { return "https" }}}))
	conn, err := up.Accept(w, r)
	if err != nil {
		return
	}
	defer conn.Abort()
	if i.unlimited {
		conn.SetReadLimit(1 << 20)
	}
	say := func(text string) { _ = conn.Write(context.Background(), []byte(text)) } // a peer that is gone gets nothing
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
		if i.heard != nil {
			i.heard(message)
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
