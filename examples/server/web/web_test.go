package web_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/headers"
)

func get(t *testing.T, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	address := func(*http.Request) string { return "https://art.example/" }
	page(t, "").Handler(address).ServeHTTP(w, r)
	return w.Result()
}

func page(t *testing.T, dir string) *web.Page {
	t.Helper()
	p, err := web.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandler(t *testing.T) {
	const html, js, css, svg, text = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/svg+xml", "text/plain; charset=utf-8"
	for _, tc := range []struct {
		method, target string
		status         int
		contentType    string
		why            string
	}{
		{"GET", "/", 200, html, "the page"},
		{"HEAD", "/", 200, html, "HEAD is GET without the body"},
		{"GET", "/?since=x", 200, html, "a query changes nothing"},
		{"GET", "/app.js", 200, js, "the entry module"},
		{"GET", "/state.js", 200, js, "a module that app.js imports"},
		{"GET", "/style.css", 200, css, "nosniff refuses a style sheet of another type"},
		{"GET", "/language.js", 200, js, "the sentences, made at the start"},
		{"GET", "/manifest.webmanifest", 200, "application/manifest+json", "made at the start"},
		{"GET", "/icon-192.png", 200, "image/png", "phones request it on their own"},
		{"GET", "/theirs/style.css", 404, text, "there is no PAGE_DIR"},
		{"GET", "/languages/de.json", 404, text, "a file that only the server needs"},
		{"GET", "/favicon.svg", 200, svg, "browsers request it on their own"},
		{"GET", "/nowhere", 404, text, "an unknown path"},
		{"GET", "/index.html", 404, text, "the page has one address only"},
		{"GET", "/page", 404, text, "the folder it is embedded from"},
		{"GET", "/page/", 404, text, "a directory is not listed"},
		{"GET", "/web.go", 404, text, "the source is not served"},
		{"GET", "/../web.go", 404, text, "a file outside of the directory is not served"},
		{"GET", "/package.json", 404, text, "a file that only the tests need is not embedded"},
		{"POST", "/", 405, text, "the page accepts no data"},
		{"DELETE", "/app.js", 405, text, "a part of the page accepts no data"},
		{"POST", "/nowhere", 404, text, "an unknown path gets a 404 for every method"},
	} {
		t.Run(tc.method+tc.target, func(t *testing.T) {
			res := get(t, tc.method, tc.target)
			got := body(t, res)
			if res.StatusCode != tc.status || res.Header.Get("Content-Type") != tc.contentType {
				t.Fatalf("%s: got %d %q, want %d %q", tc.why, res.StatusCode, res.Header.Get("Content-Type"), tc.status, tc.contentType)
			}
			if tc.status == 200 && tc.contentType != html && res.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("Cache-Control: %q", res.Header.Get("Cache-Control"))
			}
			if allow := res.Header.Get("Allow"); (allow == "GET, HEAD") != (tc.status == 405) {
				t.Errorf("Allow: %q", allow)
			}
			if (tc.method == "HEAD") != (got == "") {
				t.Errorf("a body of %d bytes", len(got))
			}
			if tc.status == 404 && got != "Not found\n" {
				t.Errorf("a 404 with another body: %q", got)
			}
		})
	}
}

// Every answer has a nonce of its own for the page's script, and no cache keeps
// an answer for another visitor.
func TestPolicy(t *testing.T) {
	mw, err := headers.New(headers.Strict())
	if err != nil {
		t.Fatal(err)
	}
	if mw, err = mw.With(page(t, "").Policy); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 2 {
		w := httptest.NewRecorder()
		mw.Handler(page(t, "").Handler(nil)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		m := regexp.MustCompile(`<script type="module" src="app.js" nonce="([\w-]{22})"></script>`).FindStringSubmatch(w.Body.String())
		if m == nil || seen[m[1]] {
			t.Fatalf("no nonce, or an old one: %q", m)
		}
		seen[m[1]] = true
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "script-src 'nonce-"+m[1]+"' 'strict-dynamic';") || !strings.Contains(csp, "require-trusted-types-for 'script'") {
			t.Errorf("the policy does not fit the page: %s", csp)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("ETag") != "" {
			t.Errorf("the page may be stored: %v", w.Header())
		}
	}
}

func TestCaching(t *testing.T) {
	etag := get(t, "GET", "/app.js").Header.Get("ETag")
	if !regexp.MustCompile(`^"[0-9a-f]{32}"$`).MatchString(etag) || etag == get(t, "GET", "/").Header.Get("ETag") {
		t.Fatalf("ETag %q is not the content's own", etag)
	}
	for _, tc := range []struct {
		sent   string
		status int
		why    string
	}{
		{etag, 304, "the browser's version is current"},
		{"W/" + etag, 304, "proxies that compress weaken the tag"},
		{`"old", ` + etag, 304, "a list"},
		{"*", 304, "any"},
		{`"old"`, 200, "another version"},
		{strings.Trim(etag, `"`), 200, "a tag without quotes is no tag"},
		{"", 200, "an empty header"},
	} {
		res := get(t, "GET", "/app.js", "If-None-Match", tc.sent)
		if got := body(t, res); res.StatusCode != tc.status || (got == "") != (tc.status == 304) {
			t.Errorf("%s: %q got %d with %d bytes", tc.why, tc.sent, res.StatusCode, len(got))
		}
		if res.Header.Get("ETag") != etag || res.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: validators missing: %v", tc.why, res.Header)
		}
	}
}

// TestSelfContained checks rules that the Content-Security-Policy enforces too.
// The test's output is easier to read than a browser's console.
func TestSelfContained(t *testing.T) {
	forbidden := []struct {
		re  *regexp.Regexp
		why string
	}{
		{regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>[^<]`), "inline script"},
		{regexp.MustCompile(`(?i)<style|\sstyle=`), "inline style"},
		{regexp.MustCompile(`(?i)<[^>]+\son[a-z]+=`), "event handler attribute"},
		{regexp.MustCompile(`(?i)\b(data|javascript|blob):`), "URL with its own content"},
		{regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc`), "text turned into markup"},
		{regexp.MustCompile(`\beval\(|new Function|setAttribute\('style`), "refused by the policy"},
		{regexp.MustCompile(`\.send\(|sendBeacon|localStorage|document\.cookie`), "the page sends nothing and stores nothing"},
		{regexp.MustCompile(`https?://`), "another host"},
		{regexp.MustCompile(`\bconsole\.[a-z]`), "the page writes to the visitor's console"},
	}
	for _, name := range pageFiles(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), `xmlns="http://www.w3.org/2000/svg"`, "")
		for _, f := range forbidden {
			if hit := f.re.FindString(text); hit != "" {
				t.Errorf("%s: %s: %q", name, f.why, hit)
			}
		}
	}
}

// TestReferences follows every reference of one part to another.
func TestReferences(t *testing.T) {
	ref := regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"|from '\./([^']+)'`)
	reached := map[string]bool{"": true}
	for _, name := range pageFiles(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ref.FindAllStringSubmatch(string(data), -1) {
			target := strings.TrimPrefix(m[1]+m[2], "{{.Root}}")
			if slices.Contains([]string{"lives", "../lives", "./", "../../"}, target) {
				continue // pages, which other tests request
			}
			if strings.Contains(target, "{{") || strings.HasPrefix(target, "theirs/") {
				continue // the operator's own
			}
			reached[target] = true
			if res := get(t, "GET", "/"+target); res.StatusCode != 200 {
				t.Errorf("%s refers to %s: %d", name, target, res.StatusCode)
			}
		}
	}
	for _, name := range pageFiles(t) {
		base := filepath.Base(name)
		if base == "share.png" || base == "icon-512.png" {
			continue // named by an absolute address, and by the manifest
		}
		if !strings.HasSuffix(base, ".html") && !reached[base] {
			t.Errorf("nothing refers to %s", base)
		}
	}
}

func pageFiles(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("page/*")
	pages, err2 := filepath.Glob("templates/*")
	if err != nil || err2 != nil || len(names) < 4 || len(pages) != 5 {
		t.Fatalf("the page's files: %v, %v, %v, %v", names, err, pages, err2)
	}
	return append(names, pages...)
}

// TestScripts runs the tests of the page's scripts that need no browser.
func TestScripts(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		testkit.Missing(t, "node 20 or newer is not installed (Debian: apt install nodejs); the page's scripts stay untested")
	}
	tests, err := filepath.Glob("pagetest/*.test.js")
	if err != nil || len(tests) == 0 {
		t.Fatalf("the scripts' tests: %v, %v", tests, err)
	}
	out, err := exec.Command(node, append([]string{"--test", "--test-reporter=spec"}, tests...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// The address of the page says how it is shown, and only words that the page
// knows reach its markup.
func TestShownAs(t *testing.T) {
	for _, tc := range []struct {
		query, class string
		code         bool
	}{
		{"", "", false},
		{"?wall", "wall", false},
		{"?wall=1&qr", "wall", true},
		{"?overlay&wall", "overlay", false},
		{"?qr", "", true},
		{"?wallpaper", "", false},
	} {
		w := httptest.NewRecorder()
		address := func(*http.Request) string { return "https://art.example/" }
		page(t, "").Handler(address).ServeHTTP(w, httptest.NewRequest("GET", "/"+tc.query, nil))
		m := regexp.MustCompile(`<html [^>]*data-version="[0-9a-f]{16}"(?: class="(\w+)")?>`).FindStringSubmatch(w.Body.String())
		if m == nil || m[1] != tc.class || strings.Contains(w.Body.String(), "<figure>") != tc.code || !strings.Contains(w.Body.String(), `<dialog id="qr" aria-label="QR code of https://art.example/">`) {
			t.Errorf("%q: %q, %s", tc.query, m, w.Body)
		}
	}
}

// The code is that of the address, and there is none without an address.
func TestCodeOfTheAddress(t *testing.T) {
	codes := map[string]bool{}
	for _, address := range []string{"", "https://art.example/", "https://b.example/", "https://" + strings.Repeat("a", 3000) + "/"} {
		w := httptest.NewRecorder()
		page(t, "").Handler(func(*http.Request) string { return address }).ServeHTTP(w, httptest.NewRequest("GET", "/qr.svg", nil))
		if want := len(address) > 0 && len(address) < 300; (w.Code == 200) != want {
			t.Errorf("%.40q: %d", address, w.Code)
		}
		if w.Code == 200 && (codes[w.Body.String()] || !strings.HasPrefix(w.Body.String(), "<svg ") || w.Header().Get("Content-Type") != "image/svg+xml") {
			t.Errorf("%.40q: %v %s", address, w.Header(), w.Body)
		}
		codes[w.Body.String()] = true
	}
}

// A page has another version exactly if a file or a word of it differs.
func TestVersion(t *testing.T) {
	version := func(files ...string) string {
		w := httptest.NewRecorder()
		page(t, testkit.Folder(t, files...)).Handler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/version.txt", nil))
		return w.Body.String()
	}
	seen := map[string]string{version(): "as shipped"}
	if again := version("page.json", "{}"); seen[again] == "" {
		t.Errorf("the same page has two versions: %q, %v", again, seen)
	}
	for _, text := range []string{`{"title": "x"}`, `{"footer": "x"}`, `{"language": "de"}`, `{"text_language": "de"}`} {
		v := version("page.json", text)
		if seen[v] != "" || !regexp.MustCompile(`^[0-9a-f]{16}\n$`).MatchString(v) {
			t.Errorf("%s has the version of %s: %q", text, seen[v], v)
		}
		seen[v] = text
	}
	if v := version("style.css", ""); seen[v] != "" {
		t.Errorf("a style sheet has the version of %s", seen[v])
	}
}
