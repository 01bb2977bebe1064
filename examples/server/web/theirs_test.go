package web_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/headers"
)

// shown returns the page as a visitor gets it, with its headers.
func shown(t *testing.T, dir string) (html string, csp string) {
	t.Helper()
	p := page(t, dir)
	mw, err := headers.New(headers.Strict())
	if err == nil {
		mw, err = mw.With(p.Policy)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	mw.Handler(p.Handler(nil)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String(), w.Header().Get("Content-Security-Policy")
}

// A page has the operator's words, style and pictures, and words of the
// operator are never markup.
func TestOwnPage(t *testing.T) {
	share, err := os.ReadFile("page/icon-192.png")
	if err != nil {
		t.Fatal(err)
	}
	dir := testkit.Folder(t, "page.json", `{"title": "<b>Der Kasten</b>", "about": "Ein \"Kasten\" denkt.", "credit": "Mia & Co", "link": "https://artist.example/?a=1&b=2",
		"footer": "Mit Dank an alle", "language": "de", "text_language": "fa"}`,
		"style.css", `/* @import url(https://x.example/a.css) */ @font-face { src: url("own.woff2") } body { background: URL( paper.png ) }`,
		"own.woff2", "font", "paper.png", "picture", "share.png", string(share), ".hidden", "not read")
	html, csp := shown(t, dir)
	for _, want := range []string{
		`<html lang="de" dir="ltr"`, `<title>&lt;b&gt;Der Kasten&lt;/b&gt;</title>`, `content="Ein &#34;Kasten&#34; denkt."`, `<p class="about">Ein &#34;Kasten&#34; denkt.</p>`,
		`<a href="https://artist.example/?a=1&amp;b=2" target="_blank" rel="noopener">Mia &amp; Co</a>`, `<p>Mit Dank an alle</p>`, `<div id="text" lang="fa">`, `theirs/style.css`, `>Anhalten</button>`,
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q:\n%s", want, html)
		}
	}
	if !strings.Contains(csp, "font-src 'self'") || !strings.Contains(csp, "manifest-src 'self'") || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "style-src 'self';") {
		t.Errorf("the policy: %s", csp)
	}
	h := page(t, dir).Handler(nil)
	for path, want := range map[string]string{"/theirs/own.woff2": "font", "/theirs/paper.png": "picture", "/share.png": string(share), "/theirs/.hidden": "Not found\n", "/theirs/page.json": "Not found\n", "/theirs/": "Not found\n"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Body.String() != want {
			t.Errorf("%s: %d %.40q", path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/manifest.webmanifest", nil))
	var manifest struct{ Name, Lang, Description string }
	if err := json.Unmarshal(w.Body.Bytes(), &manifest); err != nil || manifest.Name != "<b>Der Kasten</b>" || manifest.Lang != "de" || manifest.Description != `Ein "Kasten" denkt.` {
		t.Errorf("the manifest: %v %s", err, w.Body)
	}
	if _, csp := shown(t, ""); strings.Contains(csp, "font-src") {
		t.Errorf("without fonts, the policy allows them: %s", csp)
	}
}

// Another language comes from one file, and says from where it is written.
func TestOwnLanguage(t *testing.T) {
	english, err := os.ReadFile("languages/en.json")
	if err != nil {
		t.Fatal(err)
	}
	persian := strings.ReplaceAll(string(english), `"pause": "Pause"`, `"pause": "مکث"`)
	html, _ := shown(t, testkit.Folder(t, "page.json", `{"language": "fa"}`, "sentences.json", persian))
	for _, want := range []string{`<html lang="fa" dir="rtl"`, `>مکث</button>`, `<div id="text" lang="fa">`} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// The shipped languages pass the check of an operator's own.
func TestLanguages(t *testing.T) {
	for _, language := range []string{"en", "de", "fr"} {
		data, err := os.ReadFile("languages/" + language + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := web.New(testkit.Folder(t, "page.json", `{"language": "`+language+`"}`, "sentences.json", string(data))); err != nil {
			t.Errorf("%s: %v", language, err)
		}
		if html, _ := shown(t, testkit.Folder(t, "page.json", `{"language": "`+language+`"}`)); !strings.Contains(html, `<html lang="`+language+`" dir="ltr"`) {
			t.Errorf("%s is not shipped", language)
		}
	}
}

// Every mistake is named, with its file.
func TestOwnPageIsChecked(t *testing.T) {
	english, err := os.ReadFile("languages/en.json")
	if err != nil {
		t.Fatal(err)
	}
	sentences := func(old, new string) []string {
		text := strings.Replace(string(english), old, new, 1)
		if text == string(english) {
			t.Fatalf("no sentence has %q", old)
		}
		return []string{"page.json", `{"language": "eo"}`, "sentences.json", text}
	}
	for _, tc := range []struct {
		files []string
		want  []string
		why   string
	}{
		{[]string{"page.json", `{"titel": "x"}`}, []string{"page.json: ", `unknown field "titel"`, "text_language"}, "a wrong name"},
		{[]string{"page.json", `{"title": "x"`}, []string{"page.json: is not usable JSON"}, "no JSON"},
		{[]string{"page.json", `{} {}`}, []string{"page.json: must be one JSON object"}, "two objects"},
		{[]string{"page.json", `{"title": " ", "about": "a\nb", "footer": "` + strings.Repeat("x", 301) + `"}`}, []string{"title: is empty", "about: must be one line", "footer: must be at most 300"}, "all mistakes at once"},
		{[]string{"page.json", `{"title": "a\u202eb"}`}, []string{"title: must be one line without control characters"}, "an override of direction"},
		{[]string{"page.json", `{"credit": "x", "link": "javascript:alert(1)"}`}, []string{"link: must be an address like https://"}, "a link that runs"},
		{[]string{"page.json", `{"credit": "x", "link": "http://a.example"}`}, []string{"link: "}, "a link in the clear"},
		{[]string{"page.json", `{"credit": "x", "link": "https://"}`}, []string{"link: "}, "a link to nothing"},
		{[]string{"page.json", `{"credit": "x", "link": "https://bank.example@a.example/"}`}, []string{"link: "}, "a link that hides its host"},
		{[]string{"page.json", `{"link": "https://a.example"}`}, []string{"credit: is required beside link"}, "a link without a text"},
		{[]string{"page.json", `{"language": "es"}`}, []string{"language: must be en, de or fr", "sentences.json"}, "a language that is not shipped"},
		{[]string{"page.json", `{"language": "../en", "text_language": "german"}`}, []string{"language: must be a language tag", "text_language: must be a language tag"}, "no languages"},
		{[]string{"sentences.json", string(english)}, []string{"language: is required beside sentences.json"}, "sentences of no language"},
		{sentences(`"pause": "Pause",`, ``), []string{`sentences.json: "pause": is missing`}, "a sentence is missing"},
		{sentences(`"pause": "Pause"`, `"pausa": "Pause"`), []string{`"pausa": no sentence has that name`, `"pause": is missing`}, "a wrong name of a sentence"},
		{sentences(`"life": "Life {n}"`, `"life": "Life"`), []string{`"life": lacks the value {n}`}, "a value is missing"},
		{sentences(`"Life {n}"`, `"Life {number}"`), []string{`"life": has a value that the page does not fill in: {number}`}, "a wrong value"},
		{sentences(`"minutes": { "one": "a minute", "other": "{n} minutes" }`, `"minutes": "{n} minutes"`), []string{`"minutes": must be an object with a text for each form`}, "forms are missing"},
		{sentences(`{ "one": "a minute", "other": "{n} minutes" }`, `{ "one": "a minute" }`), []string{`"minutes": needs the form "other"`}, "the form other is missing"},
		{sentences(`{ "one": "a minute",`, `{ "single": "a minute",`), []string{`"minutes": the form "single" must be`}, "a wrong form"},
		{sentences(`"live": "Live"`, `"live": {"other": "Live"}`), []string{`"live": must be a text`}, "forms that the page does not choose from"},
		{sentences(`"live": "Live"`, `"live": ["Live"]`), []string{`"live": must be`}, "a list"},
		{sentences(`"live": "Live"`, `"live": ""`), []string{`"live": is empty`}, "a state without words"},
		{[]string{"style.css", "@IMPORT 'x.css';"}, []string{"style.css: @import is not allowed"}, "a remote import"},
		{[]string{"style.css", "a { background: url( 'https://x.example/a.png' ) } b { background: url(data:x) }"}, []string{`url("https://x.example/a.png") must name a file beside it`, `url("data:x")`}, "remote pictures"},
		{[]string{"style.css", "a { src: url(own.woff2) }"}, []string{`url("own.woff2") must name a file beside it`}, "a font that is not there"},
		{[]string{"style.css", "\xff"}, []string{"style.css: must be text in UTF-8"}, "no text"},
		{[]string{"styles.css", ""}, []string{"styles.css: has no use"}, "a wrong name of a file"},
		{[]string{"app.js", ""}, []string{"app.js: has no use"}, "a script"},
		{[]string{"page.html", ""}, []string{"page.html: has no use"}, "markup"},
		{[]string{"share.png", "no picture"}, []string{"share.png: must be a PNG image"}, "no picture"},
		{[]string{"big.png", strings.Repeat("x", 2<<20+1)}, []string{"big.png: must be at most 2 MiB large"}, "too much"},
	} {
		_, err := web.New(testkit.Folder(t, tc.files...))
		if err == nil {
			t.Errorf("%s: no error", tc.why)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: want %q in %q", tc.why, want, err)
			}
		}
	}
	if _, err := web.New(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no directory: %v", err)
	}
	outside, dir := testkit.Folder(t, "secret.png", "x"), t.TempDir()
	if err := os.Symlink(filepath.Join(outside, "secret.png"), filepath.Join(dir, "paper.png")); err != nil {
		t.Skip(err)
	}
	if _, err := web.New(dir); err == nil || !strings.Contains(err.Error(), "paper.png: ") {
		t.Errorf("a link out of the directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "fonts"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := web.New(dir); err == nil || !strings.Contains(err.Error(), "fonts: must be a file") {
		t.Errorf("a directory within: %v", err)
	}
}
