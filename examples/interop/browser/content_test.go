package browser_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// screens are the screens on which the content, the wall and the overlay are
// drawn.
var screens = []struct {
	name          string
	width, height int64
}{{"phone", 360, 740}, {"laptop", 1366, 768}, {"4k", 3840, 2160}, {"portrait", 1080, 1920}}

// everywhere draws the page on every screen, light and dark, and keeps a
// picture of each if PICTURES is set.
func (b *browser) everywhere(name string, check func(where string)) {
	b.t.Helper()
	for _, s := range screens {
		for _, scheme := range []string{"light", "dark"} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			b.do(chromedp.EmulateViewport(s.width, s.height))
			b.painted()
			where := s.name + "-" + scheme
			b.pictureOf(name + "-" + where)
			if wide := value[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
				b.t.Errorf("%s, %s: the page is %d pixels too wide", name, where, wide)
			}
			if check != nil {
				check(where)
			}
		}
	}
}

const answer = `# What I have

I keep *small* things, **many** of them: snake_case, 2 * 3, and <b>no markup</b> or [link](javascript:alert(1)).

1. A number: ` + "`0xFF`" + `
2. A name

- one
  - two within it

` + "```" + `go
for i := range 10 {
	fmt.Println(i * 1024)
}
` + "```" + `
---
And *on`

// TestMarkdown publishes an answer of a model in pieces of seven bytes. The
// page shows its Markdown, and neither markup nor a link.
func TestMarkdown(t *testing.T) {
	source := axe(t)
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	device(message{"text": "", "prompt": "Write a list.", "memory": memory(63)}.String())
	for text := answer; text != ""; {
		n := min(7, len(text))
		device(message{"text": text[:n]}.String())
		text = text[n:]
	}
	b.shows("#text", "And on")
	for selector, want := range map[string]string{
		"h3": "What I have\n", "em": "small", "strong": "many", "p code": "", "ol li code": "0xFF", "ol li:nth-child(2)": "A name\n",
		"ul li[data-depth='1']": "two within it\n", "pre code": "for i := range 10 {\n\tfmt.Println(i * 1024)\n}\n", "b, a, script, img": "",
	} {
		got := value[string](b, fmt.Sprintf(`document.querySelector('#text').querySelector(%q)?.textContent ?? ''`, selector))
		if got != want {
			t.Errorf("%s: got %q, want %q", selector, got, want)
		}
	}
	b.holds("the word at the end is emphasized already", `document.querySelector('#text > :last-child em').textContent === 'on'`)
	b.holds("code has a monospaced font with tabular figures", `(({ fontFamily, fontVariantNumeric }) => fontFamily.includes('mono') && fontVariantNumeric.includes('tabular-nums'))(getComputedStyle(document.querySelector('pre code')))`)
	b.holds("a voice reads no marks", `!/[*]{2}|# |[*]small/.test(document.querySelector("#announce").textContent)`)
	b.everywhere("markdown", nil)
	b.accessible(source, "Markdown")
	device(message{"text": " a star\n\n\n\n\n\rEnd.\r-"}.String())
	b.shows("#text", "And *on a star")
	b.holds("an emphasis that ends with its line was none", `document.querySelectorAll('#text em').length === 1`)
	b.holds("empty lines are few", `!/\n{4}/.test(document.querySelector('#text').textContent)`)
	b.holds("a mark without a next word is shown after a while", `document.querySelector('#text').textContent.endsWith('End.\n-')`)
	device(message{"text": " item"}.String())
	b.holds("and is a mark then", `document.querySelector('#text').lastElementChild.localName === 'ul' && document.querySelector('#text').textContent.endsWith('End.\nitem')`)
	b.silent()
}

// TestContentAfterReconnection lets a viewer reconnect without a position. The
// history is what the page shows, so the page draws nothing again.
func TestContentAfterReconnection(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	device(message{"text": "# One\n\n**two** "}.String())
	b.shows("#text", "two")
	value[int](b, `(window.first = document.querySelector('#text').firstElementChild, 0)`)
	b.offline(true)
	b.says(`offline`)
	b.offline(false)
	device(message{"text": "and *three*."}.String())
	b.shows("#text", "and three")
	b.holds("nothing is drawn twice", `window.first.isConnected && document.querySelector('#text').textContent === 'One\n\ntwo and three.'`)
	b.silent()
}

// TestRightToLeft shows a prompt and a text in Persian, then one in Hebrew with
// an override of direction.
func TestRightToLeft(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	device(message{"prompt": "بلند فکر کن، تا وقتی که جا هست.\nThink aloud.", "memory": memory(63), "text": "# آغاز\n\nچیزی زمزمه می\u200cکند. *آرام* و **پیوسته**، ۱۲ بار.\n\n- یک\n- دو\n\nمن هنوز "}.String())
	b.shows("#text", "من هنوز")
	b.everywhere("rtl", func(where string) {
		at := value[[]float64](b, `(() => {
			const block = document.querySelector('#text > :last-child');
			const words = document.createRange();
			words.selectNodeContents(block);
			const box = block.getBoundingClientRect();
			const text = words.getBoundingClientRect();
			const prompt = document.createRange();
			prompt.selectNodeContents(document.querySelector('#prompt'));
			return [box.right - text.right, text.left - box.left, document.querySelector("#prompt").getBoundingClientRect().right - Math.max(...[...prompt.getClientRects()].map(({ right }) => right))];
		})()`)
		if at[0] > 1 || at[1] < 20 || at[2] > 20 {
			t.Errorf("%s: the words are %v pixels from the right edge and %v from the left, the prompt %v from the right", where, at[0], at[1], at[2])
		}
	})
	b.holds("the caret is left of the words", `getComputedStyle(document.querySelector('#text > :last-child')).direction === 'rtl' && parseFloat(getComputedStyle(document.querySelector('#text > :last-child'), '::after').marginRight) > 0`)
	b.holds("the list too", `getComputedStyle(document.querySelector('#text ul')).direction === 'rtl'`)
	b.holds("no script gets a slant that it does not have", `getComputedStyle(document.querySelector('#text em')).fontSynthesisStyle === 'none'`)
	device(message{"text": "\nabc \u202eevil\u202c def\u0007\u001b[1m!\n"}.String())
	b.holds("controls and overrides are not there", `document.querySelector('#text').textContent.includes('abc evil\u202c def[1m!')`)
	b.silent()
}

// TestHyphenation checks that long words are divided in the language of the
// text only.
func TestHyphenation(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	device(message{"text": strings.Repeat("incomprehensibility ", 9) + "`code`"}.String())
	b.shows("#text", "incomprehensibility")
	b.holds("the text says its language", `document.querySelector('#text').closest('[lang]').lang === 'en'`)
	b.holds("words are divided, code is not", `getComputedStyle(document.querySelector('#text p')).hyphens === 'auto' && getComputedStyle(document.querySelector('#text code')).hyphens === 'none'`)
	b.silent()
}
