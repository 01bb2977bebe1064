// Package web serves the page that viewers open: plain HTML, CSS and JavaScript
// modules, embedded in the binary.
//
// [Policy] is the security policy of the page. The page has no inline script or
// style and never turns text into markup. It opens one WebSocket, at ws next to
// its own address, and never sends anything. A browser does not show a page why
// an upgrade was refused. So after a refusal the page requests ws once more,
// without an upgrade, and learns the reason from the status and Retry-After.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/relayguard/relayguard/headers"
)

//go:embed page
var page embed.FS

var index = template.Must(template.ParseFS(page, "page/index.html"))

// Policy restricts the policy of a site to the needs of the page. It allows one
// script, by a nonce, and the modules that this script imports. It does not
// allow a file that an attacker has put on this host. A page with a nonce is
// for one visitor only, so it is not stored.
func Policy(p *headers.Policy) {
	p.CSP = p.CSP.
		With("script-src", headers.NonceSource, headers.StrictDynamic).
		With("require-trusted-types-for", "'script'").
		With("trusted-types", headers.None)
	p.CacheControl = "no-store"
}

// types is explicit because the result of mime.TypeByExtension depends on the
// machine.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

type file struct {
	body              []byte
	contentType, etag string
}

// Handler serves the page at "/" and its parts next to it. Another path gets a
// plain 404, and a method other than GET and HEAD gets a 405. A browser may
// store the parts, but must check each time that they are current. So it does
// not run an old script on a new page after the server was updated.
func Handler() http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			http.Error(w, "Not found", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		if r.URL.Path == "/" {
			h.Set("Content-Type", f.contentType)
			if r.Method == http.MethodGet {
				_ = index.Execute(w, headers.NonceAttr(r.Context())) // fails only if the client is gone
			}
			return
		}
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.etag)
		if matches(r.Header.Values("If-None-Match"), f.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", f.contentType)
		h.Set("Content-Length", strconv.Itoa(len(f.body)))
		if r.Method == http.MethodGet {
			_, _ = bytes.NewReader(f.body).WriteTo(w) // fails only if the client is gone
		}
	})
}

func load() map[string]file {
	files := make(map[string]file)
	// Reading an embedded tree cannot fail, because it holds the files that the
	// compiler read.
	_ = fs.WalkDir(page, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := page.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		url := strings.TrimPrefix(name, "page")
		if url == "/index.html" {
			url = "/"
		}
		files[url] = file{body, types[path.Ext(name)], `"` + hex.EncodeToString(sum[:16]) + `"`}
		return nil
	})
	return files
}

// matches compares weakly, as RFC 9110 section 13.1.2 requires for
// If-None-Match. The tags of this package are hexadecimal, so a comma is always
// a separator.
func matches(lines []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}
