package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxFile     = 2 << 20 // bytes of one file
	maxFiles    = 64
	maxTitle    = 80 // characters
	maxAbout    = 300
	maxFooter   = 300
	maxSentence = 300
)

// own is page.json: the words of the operator. An empty one is as shipped.
type own struct {
	Title    string `json:"title"`
	About    string `json:"about"`
	Credit   string `json:"credit"`
	Link     string `json:"link"`
	Footer   string `json:"footer"`
	Language string `json:"language"`
	TextLang string `json:"text_language"`
}

var (
	fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	// A language tag of RFC 5646 without the parts that no page needs.
	languageTag = regexp.MustCompile(`^[A-Za-z]{2,3}(?:-[A-Za-z]{4})?(?:-(?:[A-Za-z]{2}|[0-9]{3}))?$`)
	cssComment  = regexp.MustCompile(`(?s)/\*.*?(?:\*/|$)`)
	cssImport   = regexp.MustCompile(`(?i)@(?:import|\\)`)
	cssURL      = regexp.MustCompile(`(?i)url\(\s*["']?([^"')]*)["']?\s*\)?`)
)

// replaced are the files that take the place of a shipped one of the same name.
var replaced = []string{"favicon.svg", "icon-192.png", "icon-512.png", "share.png"}

// served are the kinds of files that a stylesheet can use.
var served = []string{".woff2", ".png", ".jpg", ".webp", ".svg"}

// rightToLeft are the languages that are written from right to left.
var rightToLeft = []string{"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}

// read sets the words, and adds the files of the directory.
func (p *Page) read(dir string) error {
	var o own
	var problems []error
	w := shippedWords("en")
	if dir != "" {
		files, err := directory(dir)
		if err != nil {
			return err
		}
		in := func(name string, err error) {
			if err != nil {
				problems = append(problems, within(name, err)...)
			}
		}
		if data, ok := files["page.json"]; ok {
			o, err = parseOwn(data)
			in("page.json", err)
		}
		data, translated := files["sentences.json"]
		if translated {
			w, err = parseWords(data)
			in("sentences.json", err)
			if o.Language == "" {
				in("page.json", errors.New("language: is required beside sentences.json"))
			}
		} else if o.Language != "" {
			if w = shippedWords(o.Language); w == nil {
				in("page.json", errors.New("language: must be en, de or fr; for another one, put its sentences into sentences.json"))
			}
		}
		for name, data := range files {
			in(name, p.addOwn(name, data, files))
		}
	}
	p.words = w
	p.Title, p.About, p.Credit, p.Link, p.Footer = o.Title, o.About, o.Credit, o.Link, o.Footer
	if p.Title == "" {
		p.Title = w.Say("title")
	}
	if p.About == "" {
		p.About = w.Say("about")
	}
	p.Lang, p.TextLang, p.Dir = o.Language, o.TextLang, "ltr"
	if p.Lang == "" {
		p.Lang = "en"
	}
	if p.TextLang == "" {
		p.TextLang = p.Lang
	}
	if base, _, _ := strings.Cut(p.Lang, "-"); slices.Contains(rightToLeft, base) {
		p.Dir = "rtl"
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

// directory returns the files of dir by name, without those whose name begins
// with a dot. Links must not lead out of it.
func directory(dir string) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, plainError(err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, plainError(err)
	}
	files := make(map[string][]byte)
	var problems []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		data, err := readBounded(root, e.Name())
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", e.Name(), err))
		}
		files[e.Name()] = data
	}
	if len(files) > maxFiles {
		problems = append(problems, fmt.Errorf("has more than %d files", maxFiles))
	}
	return files, errors.Join(problems...)
}

func readBounded(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, plainError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, plainError(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("must be a file: the page has no directories")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("must be at most %d MiB large", maxFile>>20)
	}
	return data, err
}

// addOwn checks a file of the operator, and serves it if a browser needs it.
func (p *Page) addOwn(name string, data []byte, all map[string][]byte) error {
	switch ext := path.Ext(name); {
	case name == "page.json", name == "sentences.json":
		return nil
	case name == "style.css":
		p.Styled = true
		p.add("/theirs/style.css", data)
		return checkStyle(data, all)
	case !fileName.MatchString(name) || !slices.Contains(served, ext):
		return fmt.Errorf("has no use: the page uses page.json, sentences.json, style.css, and files that end in %s", strings.Join(served, ", "))
	case slices.Contains(replaced, name):
		p.add("/"+name, data)
		if ext == ".png" {
			if _, err := png.DecodeConfig(bytes.NewReader(data)); err != nil {
				return errors.New("must be a PNG image")
			}
		}
	default:
		p.fonts = p.fonts || ext == ".woff2"
		p.add("/theirs/"+name, data)
	}
	return nil
}

// checkStyle refuses what the policy of the page would refuse in the browser,
// so that the operator reads of it at the start. The policy holds without this.
func checkStyle(data []byte, all map[string][]byte) error {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return errors.New("must be text in UTF-8")
	}
	text := cssComment.ReplaceAllString(string(data), " ")
	var problems []error
	if cssImport.MatchString(text) {
		problems = append(problems, errors.New("@import is not allowed: put the rules into this file"))
	}
	for _, m := range cssURL.FindAllStringSubmatch(text, -1) {
		target := strings.TrimSpace(m[1])
		if _, ok := all[target]; !ok || !slices.Contains(served, path.Ext(target)) || slices.Contains(replaced, target) {
			problems = append(problems, fmt.Errorf("url(%.80q) must name a file beside it that ends in %s", target, strings.Join(served, ", ")))
		}
	}
	return errors.Join(problems...)
}

func parseOwn(data []byte) (own, error) {
	var o own
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fmt.Errorf("is not usable JSON: %w; its names are title, about, credit, link, footer, language and text_language", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return o, errors.New("must be one JSON object")
	}
	var problems []error
	bad := func(name, problem string) {
		if problem != "" {
			problems = append(problems, fmt.Errorf("%s: %s", name, problem))
		}
	}
	optional := func(name, text string, most int) {
		if text != "" {
			bad(name, line(text, most))
		}
	}
	optional("title", o.Title, maxTitle)
	optional("about", o.About, maxAbout)
	optional("credit", o.Credit, maxTitle)
	optional("footer", o.Footer, maxFooter)
	if o.Link != "" {
		bad("link", checkLink(o.Link))
		if o.Credit == "" {
			bad("credit", "is required beside link: it is the text of the link")
		}
	}
	for name, tag := range map[string]string{"language": o.Language, "text_language": o.TextLang} {
		if tag != "" && !languageTag.MatchString(tag) {
			bad(name, "must be a language tag, such as de, pt-BR or zh-Hant")
		}
	}
	return o, errors.Join(problems...)
}

// checkLink accepts addresses of pages and of mailboxes. A link of another
// scheme could run a script, or start a program.
func checkLink(link string) string {
	u, err := url.Parse(link)
	switch {
	case err != nil || len(link) > 2000:
	case u.Scheme == "https" && u.Host != "" && u.User == nil:
		return ""
	case u.Scheme == "mailto" && strings.Contains(u.Opaque, "@"):
		return ""
	}
	return "must be an address like https://artist.example or mailto:me@artist.example"
}

// line requires one line of text of at most so many characters.
func line(text string, most int) string {
	switch {
	case strings.TrimSpace(text) == "":
		return "is empty"
	case utf8.RuneCountInString(text) > most:
		return fmt.Sprintf("must be at most %d characters long", most)
	case strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r == utf8.RuneError
	}):
		return "must be one line without control characters"
	}
	return ""
}

// within returns the parts of err, each with the name of the file.
func within(name string, err error) (all []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, fmt.Errorf("%s: %w", name, e))
		}
		return all
	}
	return []error{fmt.Errorf("%s: %w", name, err)}
}

// plainError returns err without the path, which the operator has set.
func plainError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// manifest returns the Web Application Manifest, by which a phone can put the
// page on its home screen.
func (p *Page) manifest() []byte {
	type icon struct {
		Src   string `json:"src"`
		Sizes string `json:"sizes"`
		Type  string `json:"type"`
	}
	data, _ := json.Marshal(struct { // texts only
		Name        string `json:"name"`
		Description string `json:"description"`
		Lang        string `json:"lang"`
		Dir         string `json:"dir"`
		StartURL    string `json:"start_url"`
		Display     string `json:"display"`
		Background  string `json:"background_color"`
		Theme       string `json:"theme_color"`
		Icons       []icon `json:"icons"`
	}{p.Title, p.About, p.Lang, p.Dir, "./", "standalone", "#f6f3eb", "#f6f3eb", []icon{
		{"icon-192.png", "192x192", "image/png"}, {"icon-512.png", "512x512", "image/png"},
	}})
	return data
}
