// Package web serves the page that viewers open: plain HTML, CSS and JavaScript
// modules, embedded in the binary, with the words and the style of the operator.
//
// [Page.Policy] is the security policy of the page. The page has no inline
// script or style and never turns text into markup. It opens one WebSocket, at
// ws next to its own address, and never sends anything. A browser does not show
// a page why an upgrade was refused. So after a refusal the page requests ws
// once more, without an upgrade, and learns the reason from the status and
// Retry-After.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"image"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/relayguard/relayguard/headers"
)

// page holds the files that are served as they are, and sources the pages.
var (
	//go:embed page
	page embed.FS
	//go:embed templates
	sources embed.FS

	templates = template.Must(template.ParseFS(sources, "templates/*.html"))
)

// types is explicit because the result of mime.TypeByExtension depends on the
// machine.
var types = map[string]string{
	".css":         "text/css; charset=utf-8",
	".jpg":         "image/jpeg",
	".js":          "text/javascript; charset=utf-8",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".woff2":       "font/woff2",
}

type file struct {
	body              []byte
	contentType, etag string
}

func newFile(name string, body []byte) file {
	sum := sha256.Sum256(body)
	return file{body, types[path.Ext(name)], `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// Page is the page of a site. It is immutable, and safe for concurrent use.
type Page struct {
	settings
	files map[string]file // by path
	fonts bool
}

// settings are what the template shows to every visitor.
type settings struct {
	words
	Title, About         string
	Credit, Link, Footer string
	Lang, TextLang, Dir  string
	Styled               bool
	Share                image.Point // size of share.png
	Version              string      // differs between pages with different files or words
	Room                 string      // empty if there is one conversation
	Lives                bool        // that have ended are kept
}

// view is what the template shows to one visitor.
type view struct {
	settings
	Nonce   template.HTMLAttr
	Address string // of the page, or empty
	Class   string // wall, overlay or nothing
	QR      bool   // the code stays on the page
	Root    string // leads to the files of the page, or empty
}

// Heading returns the title, with the room.
func (v view) Heading() string {
	if v.Room == "" {
		return v.Title
	}
	return v.Room + " – " + v.Title
}

// QRWords describes the picture for those who do not see it.
func (v view) QRWords() string {
	return v.Fill("qrOf", "address", v.Address)
}

// class returns how the page is shown: on a wall with ?wall, over a video with
// ?overlay, or to a reader.
func class(query url.Values) string {
	for _, name := range []string{"overlay", "wall"} {
		if query.Has(name) {
			return name
		}
	}
	return ""
}

// New returns the page with the files of a directory, which [PAGE_DIR]
// describes. If dir is empty, it is the page as shipped. The error names every
// problem of every file.
//
// [PAGE_DIR]: https://github.com/relayguard/relayguard/blob/main/examples/server/README.md#the-page
func New(dir string) (*Page, error) {
	p := &Page{files: shipped()}
	if err := p.read(dir); err != nil {
		return nil, err
	}
	p.add("/language.js", slices.Concat([]byte("export default "), p.words.json(), []byte(";\n")))
	p.add("/manifest.webmanifest", p.manifest())
	config, _, err := image.DecodeConfig(bytes.NewReader(p.files["/share.png"].body))
	if err != nil {
		return nil, err // of a file that read has checked, or that a test has
	}
	p.Share = image.Pt(config.Width, config.Height)
	p.identify()
	return p, nil
}

// identify sets the Version.
func (p *Page) identify() {
	delete(p.files, "/version.txt")
	p.Version = p.fingerprint()
	p.add("/version.txt", []byte(p.Version+"\n"))
}

func (p *Page) add(url string, body []byte) { p.files[url] = newFile(url, body) }

// shipped returns the embedded files of the page.
func shipped() map[string]file {
	files := make(map[string]file)
	// Reading an embedded tree cannot fail, because it holds the files that the
	// compiler read.
	_ = fs.WalkDir(page, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := page.ReadFile(name)
		files[strings.TrimPrefix(name, "page")] = newFile(name, body)
		return err
	})
	return files
}

// fingerprint returns the Version.
func (p *Page) fingerprint() string {
	sum := sha256.New()
	_ = fs.WalkDir(sources, ".", func(name string, _ fs.DirEntry, err error) error {
		source, _ := sources.ReadFile(name) // embedded; nothing of a directory
		sum.Write(source)
		return err
	})
	sum.Write(strconv.AppendBool(nil, p.Lives))
	for _, text := range []string{p.Title, p.About, p.Credit, p.Link, p.Footer, p.Lang, p.TextLang} {
		sum.Write([]byte(strconv.Quote(text)))
	}
	for _, url := range slices.Sorted(maps.Keys(p.files)) {
		sum.Write([]byte(url + p.files[url].etag))
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Policy restricts the policy of a site to the needs of the page. It allows one
// script, by a nonce, and the modules that this script imports. It does not
// allow a file that an attacker has put on this host. A page with a nonce is
// for one visitor only, so it is not stored.
func (p *Page) Policy(policy *headers.Policy) {
	policy.CSP = policy.CSP.
		With("script-src", headers.NonceSource, headers.StrictDynamic).
		With("manifest-src", headers.Self).
		With("require-trusted-types-for", "'script'").
		With("trusted-types", headers.None)
	if p.fonts {
		policy.CSP = policy.CSP.With("font-src", headers.Self)
	}
	policy.CacheControl = "no-store"
}

// EmbedIn lets pages of the origins show this page in a frame. Without it, no
// page may. Browsers that know frame-ancestors ignore X-Frame-Options, and
// others would refuse the frame, so that header goes. A page that is isolated
// from other origins may only show a page that allows that by
// Cross-Origin-Resource-Policy.
func EmbedIn(policy *headers.Policy, origins []string) {
	if len(origins) == 0 {
		return
	}
	var sources []headers.Source
	for _, origin := range origins {
		sources = append(sources, headers.Source(origin))
	}
	policy.CSP = policy.CSP.With("frame-ancestors", sources...)
	policy.FrameOptions = ""
	policy.ResourcePolicy = headers.ResourceCrossOrigin
}

// Handler serves the page at "/" and its parts next to it. Another path gets a
// plain 404, and a method other than GET and HEAD gets a 405. A browser may
// store the parts, but must check each time that they are current. So it does
// not run an old script on a new page after the server was updated.
//
// address returns the address of the page for a request, such as
// https://art.example/, or "" if that is not known. It may be nil.
func (p *Page) Handler(address func(*http.Request) string) http.Handler {
	if address == nil {
		address = func(*http.Request) string { return "" }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := p.files[r.URL.Path]
		if r.URL.Path == "/qr.svg" {
			f, ok = code(address(r))
		}
		if !ok && r.URL.Path != "/" {
			http.Error(w, "Not found", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == "/" {
			v := p.view(r, address(r))
			query := r.URL.Query()
			v.Class, v.QR = class(query), query.Has("qr")
			show(w, r, "index.html", v)
			return
		}
		f.serve(w, r)
	})
}

// view returns what a page shows to the visitor of a request.
func (p *Page) view(r *http.Request, address string) view {
	return view{settings: p.settings, Nonce: headers.NonceAttr(r.Context()), Address: address}
}

// show answers a GET or HEAD request with a page.
func show(w http.ResponseWriter, r *http.Request, name string, v any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if r.Method == http.MethodGet {
		_ = templates.ExecuteTemplate(w, name, v) // fails only if the client is gone
	}
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if matches(r.Header.Values("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(f.body) // fails only if the client is gone
	}
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
