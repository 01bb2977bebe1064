// Package web is the page that viewers open: plain HTML, CSS and JavaScript
// modules, embedded in the binary.
//
// [Policy] is what the page lives under. It has no inline script or style and
// never turns text into markup. It opens one WebSocket, ws beside itself, and
// never sends anything. A browser hides from a page why an upgrade was refused;
// so after a refusal the page asks ws once more, without an upgrade, and is
// told by the status and Retry-After.
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

// Policy narrows a site's policy to what the page needs. One script is allowed,
// by a nonce, and what it imports; a file that somebody managed to put on this
// host is not. A page with a nonce is nobody else's, so it is not stored.
func Policy(p *headers.Policy) {
	p.CSP = p.CSP.
		With("script-src", headers.NonceSource, headers.StrictDynamic).
		With("require-trusted-types-for", "'script'").
		With("trusted-types", headers.None)
	p.CacheControl = "no-store"
}

// types is explicit because mime.TypeByExtension asks the machine it runs on.
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

// Handler serves the page at "/" and its parts beside it. Other paths are a
// plain 404, other methods than GET and HEAD a 405. The parts may be stored but
// must be asked for again: after an upgrade, nobody runs yesterday's script
// against today's page.
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
				_ = index.Execute(w, headers.NonceAttr(r.Context())) // fails only where the reader is gone
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
			_, _ = bytes.NewReader(f.body).WriteTo(w) // the reader of the answer is gone: nobody is left to tell
		}
	})
}

func load() map[string]file {
	files := make(map[string]file)
	// An embedded tree cannot fail to be read, and has what the compiler saw.
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

// matches compares weakly, as RFC 9110 section 13.1.2 asks of If-None-Match.
// The tags are hexadecimal, so a comma is always a separator.
func matches(lines []string, etag string) bool {
	for tag := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}
