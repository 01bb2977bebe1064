package observatory_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/headers"
)

// published is the version of the Observatory's rules in the npm package.
// headers.Grade follows algorithm 6, which npm does not have yet. The two read
// several policies in one CSP differently, so no row has several.
const published = 4

// later are the results whose points differ between the two, with the points in
// the published version.
var later = map[string]int{"x-frame-options-sameorigin-or-deny": 0}

// added are tests that the published version does not have.
var added = []string{"cross-origin-embedder-policy", "cross-origin-opener-policy"}

// asPublished returns the findings and the score with the points of the
// published version.
func asPublished(g headers.Grading) (fs []headers.Finding, score int) {
	base, bonus := 100, 0
	for _, f := range g.Findings {
		if f.Remark || slices.Contains(added, f.Test) {
			continue
		}
		if points, ok := later[f.Result]; ok {
			f.Points = points
		}
		fs = append(fs, f)
		base += min(f.Points, 0)
		bonus += max(f.Points, 0)
	}
	if base >= 90 {
		return fs, base + bonus
	}
	return fs, max(base, 0)
}

type request struct {
	Hosts    []string `json:"hosts,omitzero"`
	Policies []string `json:"policies,omitzero"`
}

type verdict struct {
	Scans []struct {
		Score     int
		Grade     string
		Algorithm int
		Results   map[string]struct {
			Result string
			Points int
		}
	}
	Findings [][]finding
}

// finding is a finding of CSP Evaluator. A lower severity is worse.
type finding struct {
	Severity    int
	Directive   string
	Description string
}

// ask runs the graders. They trust the certificate ca.
func ask(t *testing.T, req request, ca []byte) verdict {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		testkit.Missing(t, "node is missing: install Node.js 20 or later")
	}
	conf := filepath.Join("node_modules", "@mdn", "mdn-http-observatory", "conf")
	if _, err := os.Stat(conf); err != nil {
		testkit.Missing(t, "the graders are missing: npm ci --ignore-scripts in examples/interop/observatory")
	}
	// The npm package downloads the browsers' preload list after its
	// installation. An empty list is enough, because no host of a test is on
	// it.
	preload := filepath.Join(conf, "hsts-preload.json")
	if _, err := os.Stat(preload); err != nil {
		if err := os.WriteFile(preload, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "grade.mjs")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+file, "NO_PROXY=*", "no_proxy=*")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, &stderr)
	}
	var v verdict
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return v
}

// serve answers every request with the same header.
func serve(t *testing.T, h http.Header, tls bool) *httptest.Server {
	t.Helper()
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range h {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte("<!doctype html><title>x</title><p>x"))
	})
	if tls {
		return serveBoth(t, page)
	}
	s := httptest.NewServer(page)
	t.Cleanup(s.Close)
	return s
}

// head parses "Name: value" lines.
func head(lines ...string) http.Header {
	h := make(http.Header)
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

// sent returns the headers that a policy sets on a response.
func sent(t *testing.T, p headers.Policy, tls bool) http.Header {
	t.Helper()
	mw, err := headers.New(p)
	if err != nil {
		t.Fatal(err)
	}
	target := "http://relay.example/"
	if tls {
		target = "https://relay.example/"
	}
	h := make(http.Header)
	mw.Apply(h, httptest.NewRequest("GET", target, nil))
	return h
}

const (
	csp  = "Content-Security-Policy: "
	hsts = "Strict-Transport-Security: max-age=31536000"
)

func TestSameScores(t *testing.T) {
	strictNonce := headers.Strict()
	strictNonce.CSP = strictNonce.CSP.With("script-src", headers.NonceSource, headers.StrictDynamic)
	rows := []struct {
		why    string
		header http.Header
		tls    bool
	}{
		{"Strict", sent(t, headers.Strict(), true), true},
		{"Strict with a nonce", sent(t, strictNonce, true), true},
		{"Baseline", sent(t, headers.Baseline(), true), true},
		{"Strict without TLS", sent(t, headers.Strict(), false), false},
		{"nothing", head(), true},
		{"nothing without TLS", head(), false},
		{"the guide's first policy", around(csp + "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:"), true},
		{"inline style only", around(csp + "default-src 'self'; style-src 'self' 'unsafe-inline'"), true},
		{"data: in script", around(csp + "default-src 'self' data:"), true},
		{"no object-src", around(csp + "script-src 'self'; style-src 'self'"), true},
		{"'unsafe-inline' switched off by a hash", around(csp + "default-src 'self' 'unsafe-inline' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"), true},
		{"strict-dynamic with fallbacks", around(csp + "script-src 'strict-dynamic' 'nonce-abc' 'unsafe-inline' https: 'self'; object-src 'none'; base-uri 'none'"), true},
		{"strict-dynamic in default-src", around(csp + "default-src 'strict-dynamic' 'nonce-abc' https: 'unsafe-inline'"), true},
		{"strict-dynamic alone", around(csp + "default-src 'strict-dynamic'; frame-ancestors 'none'"), true},
		{"eval", around(csp + "default-src 'none'; script-src 'self' 'unsafe-eval'"), true},
		{"eval in style", around(csp + "default-src 'none'; style-src 'unsafe-eval'"), true},
		{"scripts over plain HTTP", around(csp + "default-src 'self'; script-src http://a.example"), true},
		{"scripts over plain HTTP, without TLS", around(csp + "default-src 'self'; script-src http://a.example"), false},
		{"reports over plain HTTP", around(csp + "default-src 'self'; report-uri http://a.example/r"), true},
		{"images over plain HTTP", around(csp + "default-src 'self'; img-src http:"), true},
		{"wildcards", around(csp + "default-src https://*; img-src *"), true},
		{"hosts only", around(csp + "default-src *.a.example https://b.example/x https://b.example/xy"), true},
		{"a directive twice", around(csp + "img-src 'self'; img-src *"), true},
		{"report-uri twice", around(csp + "default-src 'none'; report-uri /a; report-uri /b"), true},
		{"report-to twice and plain images", around(csp + "default-src 'self'; img-src http:; report-to a; report-to b"), true},
		{"too short", around(csp + "img"), true},
		{"separators", around(csp + ";;;;;;;;"), true},
		{"empty directives", around(csp + "default-src; frame-ancestors"), true},
		{"unknown directives alone", around(csp + "scriptsrc 'self'"), true},
		{"capitals", around(csp + "DEFAULT-SRC 'NONE'; IMG-SRC 'Self'"), true},
		{"ws and wss", around(csp + "default-src 'none'; connect-src ws: wss:"), true},
		{"report-only", around("Content-Security-Policy-Report-Only: default-src 'none'"), true},

		{"HSTS for a day", head("Strict-Transport-Security: max-age=86400; includeSubDomains"), true},
		{"HSTS for 180 days", head("Strict-Transport-Security: includeSubDomains; Max-Age=15552000"), true},
		{"HSTS without age", head("Strict-Transport-Security: includeSubDomains"), true},
		{"HSTS quoted", head(`Strict-Transport-Security: max-age="1"`), true},
		{"HSTS negative", head("Strict-Transport-Security: max-age=-1"), true},
		{"HSTS with a fraction", head("Strict-Transport-Security: max-age=31536000.5s; max-age=1"), true},
		{"HSTS twice", head(hsts, hsts), true},
		{"frames twice", head("X-Frame-Options: DENY", "X-Frame-Options: DENY"), true},
		{"ALLOW-FROM", head("X-Frame-Options: ALLOW-FROM https://a.example"), true},
		{"nosniff with a hyphen", head("X-Content-Type-Options: no-sniff"), true},
		{"referrers", head("Referrer-Policy: no-referrer, unsafe-url, unknown"), true},
		{"referrers unknown", head("Referrer-Policy: never"), true},
		{"CORP same-site", head("Cross-Origin-Resource-Policy: Same-Site"), true},
		{"CORP cross-origin", head("Cross-Origin-Resource-Policy: cross-origin"), true},
		{"CORP unknown", head("Cross-Origin-Resource-Policy: none"), true},
		{"CORS for all", around("Access-Control-Allow-Origin: *"), true},
		{"CORS for one", around("Access-Control-Allow-Origin: https://a.example", "Access-Control-Allow-Credentials: true"), true},
		{"CORS for the scanner", around("Access-Control-Allow-Origin: https://http-observatory.security.mozilla.org", "Access-Control-Allow-Credentials: true"), true},
		{"a good cookie", around("Set-Cookie: sess=1; Secure; HttpOnly; SameSite=Lax"), true},
		{"a cookie without SameSite", around("Set-Cookie: a=1; Secure"), true},
		{"a cookie without Secure", around("Set-Cookie: a=1; SameSite=Strict"), true},
		{"a cookie without Secure or HSTS", head("Set-Cookie: a=1"), true},
		{"a session without Secure", around("Set-Cookie: login=1; HttpOnly"), true},
		{"a session that script reads", around("Set-Cookie: mysession=1; Secure"), true},
		{"a CSRF cookie", around("Set-Cookie: xcsrf=1; Secure"), true},
		{"SameSite unknown", around("Set-Cookie: a=1; Secure; SameSite=Loose"), true},
		{"SameSite=None without Secure", around("Set-Cookie: a=1; SameSite=None"), true},
		{"replaced cookies", around("Set-Cookie: a=1", "Set-Cookie: a=2; Secure; SameSite=Lax"), true},
		{"cookies that break their prefix", around("Set-Cookie: __Host-a=1; Secure", "Set-Cookie: __Host-c=1; Secure; Path=/x", "Set-Cookie: __Secure-b=1; SameSite=Lax"), true},
		{"cookies of no name or value", around("Set-Cookie: novalue", "Set-Cookie: =x"), true},
		{"cookies for one path", around("Set-Cookie: a=1; Path=/x", "Set-Cookie: a=1; Secure; Path=/y"), true},
	}
	var req request
	var ca []byte
	for _, r := range rows {
		s := serve(t, r.header, r.tls)
		req.Hosts = append(req.Hosts, s.Listener.Addr().String())
		if r.tls {
			ca = s.Certificate().Raw
		}
	}
	v := ask(t, req, ca)
	for i, r := range rows {
		scan := v.Scans[i]
		if scan.Algorithm != published {
			t.Fatalf("the Observatory's algorithm is version %d: compare anew", scan.Algorithm)
		}
		got := headers.Grade(r.header, r.tls)
		findings, score := asPublished(got)
		if score != scan.Score || score == got.Score && got.Grade != scan.Grade {
			t.Errorf("%s: got %d %s, %d by the published rules, the Observatory has %d %s", r.why, got.Score, got.Grade, score, scan.Score, scan.Grade)
		}
		for _, f := range findings {
			if want := scan.Results[f.Test]; f.Result != want.Result || f.Points != want.Points {
				t.Errorf("%s: %s: got %s %+d, the Observatory has %s %+d", r.why, f.Test, f.Result, f.Points, want.Result, want.Points)
			}
		}
	}
}

// around adds the five headers besides the CSP that every site can send, so
// that one flaw decides the score.
func around(lines ...string) http.Header {
	return head(append([]string{hsts, "X-Frame-Options: DENY", "X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer",
		"X-XSS-Protection: 0"}, lines...)...)
}

// CSP Evaluator's severities.
const (
	mediumMaybe   = 50
	informational = 60
)

// wantHarmless allows only informational findings, and the one about 'self' in
// script-src. 'self' admits every script of the origin, uploads and JSONP
// included, and the tool cannot know that the origin has none.
func wantHarmless(t *testing.T, what string, fs []finding) {
	t.Helper()
	for _, f := range fs {
		doubt := f.Severity == mediumMaybe && strings.HasPrefix(f.Description, "'self' can be problematic")
		if f.Severity < informational && !doubt {
			t.Errorf("%s: %d %s: %s", what, f.Severity, f.Directive, f.Description)
		}
	}
}

func TestEvaluator(t *testing.T) {
	nonce := headers.Strict().CSP.With("script-src", headers.NonceSource, headers.StrictDynamic)
	v := ask(t, request{Policies: []string{
		sent(t, headers.Policy{CSP: nonce}, true).Get("Content-Security-Policy"),
		headers.Strict().CSP.String(),
		headers.Baseline().CSP.String(),
		"script-src 'self' 'unsafe-inline'",
	}}, nil)
	if len(v.Findings[0]) > 0 {
		t.Errorf("Strict with a nonce: %+v", v.Findings[0])
	}
	wantHarmless(t, "Strict", v.Findings[1])
	wantHarmless(t, "Baseline", v.Findings[2])
	if len(v.Findings[3]) == 0 || v.Findings[3][0].Severity >= mediumMaybe {
		t.Errorf("the tool finds nothing in a bad policy: %+v", v.Findings[3])
	}
}
