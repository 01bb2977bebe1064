package browser_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// inView is an expression for a shown element that is within the window.
func inView(selector string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.checkVisibility() && (({ top, bottom, left, right }) => top >= 0 && bottom <= innerHeight + 1 && left >= 0 && right <= innerWidth)(e.getBoundingClientRect()))`, selector)
}

// TestTheirs shows a page with the operator's words in German, and a style. The
// sentence that explains the work is in view on every screen.
func TestTheirs(t *testing.T) {
	source := axe(t)
	const about = "Ein Kasten denkt laut, bis er voll ist. Dann vergisst er alles und fängt von vorn an."
	server := relay.New(t, "PAGE_DIR="+testkit.Folder(t, "page.json", `{"title": "Der volle Kasten", "about": "`+about+`", "credit": "Mia Muster, 2026",
		"link": "https://artist.example/", "footer": "Kunsthalle Irgendwo, bis zum 3. Mai", "language": "de"}`,
		"style.css", ":root { --accent: #006b4f } @media (prefers-color-scheme: dark) { :root { --accent: #7fd6b5 } }"))
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	b.says(`^Verbunden, wartet$`)
	device := publisher(t, server)
	device(message{"text": passage, "prompt": "Denk nach.", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}.String())
	b.says(`^Live$`)
	b.shows("#lives", "Leben 5, nach 4 Neustarts")
	b.shows("#percent", "63\u00a0%")
	b.shows("title", "Der volle Kasten")
	b.shows(".credit a", "Mia Muster, 2026")
	b.holds("the style is theirs", `getComputedStyle(document.documentElement).getPropertyValue('--accent').trim() === '#006b4f' || matchMedia('(prefers-color-scheme: dark)').matches`)
	b.everywhere("theirs", func(where string) {
		for _, selector := range []string{".about", ".credit", "#state"} {
			if !value[bool](b, inView(selector)) {
				t.Errorf("%s: %s is not in view", where, selector)
			}
		}
	})
	b.accessible(source, "the operator's page")
	device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": 5}}.String())
	b.shows("#birth", "Leben 5 endete um ")
	b.shows("#announce", "Leben 5 ist zu Ende. Leben 6 beginnt.")
	server.Stop()
	b.says(`^Der Server startet neu\. Neuer Versuch in \d+ s\.$`)
	b.silent()
}

// TestLanguages checks that no shipped language makes the page too wide, and
// that axe finds nothing.
func TestLanguages(t *testing.T) {
	source := axe(t)
	for _, language := range []string{"de", "fr"} {
		server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000", "PAGE_DIR="+testkit.Folder(t, "page.json", `{"language": "`+language+`"}`))
		server.Start()
		b := open(t, "http://"+server.Addr+"/")
		device := publisher(t, server)
		device(message{"text": "Mmh. ", "prompt": "…", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}.String())
		b.shows("#text", "Mmh.")
		b.everywhere("language-"+language, nil)
		b.accessible(source, language)
		d := newDoor(t, server)
		d.status(426, 0)
		b.do(chromedp.Navigate(d.url))
		b.holds("the refusal is in words", `document.querySelector('#state').dataset.state === 'refused'`)
		b.everywhere("refused-"+language, nil)
		b.silent()
	}
}
