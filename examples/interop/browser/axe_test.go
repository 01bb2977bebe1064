package browser_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// axe returns the source of axe-core, which finds problems of accessibility in
// a page.
func axe(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		testkit.Missing(t, "axe-core is missing: npm ci --ignore-scripts in examples/interop/browser")
	}
	return string(source)
}

// views are the sizes and settings in which the page is checked.
var views = []struct {
	name          string
	width, height int64
	features      []string
}{
	{"desktop, light", 1366, 768, []string{"prefers-color-scheme", "light"}},
	{"desktop, dark", 1366, 768, []string{"prefers-color-scheme", "dark"}},
	{"phone, light", 360, 740, []string{"prefers-color-scheme", "light"}},
	{"phone, dark", 360, 740, []string{"prefers-color-scheme", "dark"}},
	{"small phone on its side", 568, 320, []string{"prefers-color-scheme", "light"}},
	{"smallest, as at 400% of a desktop", 320, 256, []string{"prefers-color-scheme", "dark"}},
	{"desktop, contrast", 1366, 768, []string{"prefers-contrast", "more", "prefers-color-scheme", "light"}},
	{"phone, forced colours", 360, 740, []string{"forced-colors", "active", "prefers-color-scheme", "dark"}},
}

// accessible runs axe on the current page in every view. axe must find nothing
// serious, and no view may need horizontal scrolling.
func (b *browser) accessible(source, state string) {
	b.t.Helper()
	type violation struct{ ID, Impact, Help, Where string }
	for _, v := range views {
		b.prefers(append(v.features, "prefers-reduced-motion", "reduce")...) // during a transition, a colour is neither the old nor the new one
		b.do(chromedp.EmulateViewport(v.width, v.height))
		if !value[bool](b, `typeof axe === 'object'`) {
			value[int](b, source+";0")
		}
		found := value[[]violation](b, `axe.run(document, {resultTypes: ['violations']}).then(({ violations }) =>
			violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, where: nodes.map((n) => n.html).join(' ') })))`)
		for _, f := range found {
			text := fmt.Sprintf("%s, %s: axe says %s (%s): %s: %s", state, v.name, f.ID, f.Impact, f.Help, f.Where)
			if f.Impact == "serious" || f.Impact == "critical" {
				b.t.Error(text)
			} else {
				b.t.Log(text)
			}
		}
		if wide := value[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
			b.t.Errorf("%s, %s: the page is %d pixels too wide", state, v.name, wide)
		}
	}
	b.prefers()
	b.do(chromedp.EmulateViewport(1366, 768))
}

// TestAxeFinds checks that axe finds problems in a bad page.
func TestAxeFinds(t *testing.T) {
	source := axe(t)
	b := open(t, "about:blank")
	value[int](b, source+";0")
	value[int](b, `(() => {
		document.body.append(document.createElement('button'));
		const faint = document.createElement('p');
		faint.textContent = 'hardly there';
		faint.style.color = '#eee';
		document.body.append(faint);
		return 0;
	})()`)
	ids := value[string](b, `axe.run(document).then(({ violations }) =>
		violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id }) => id).join(' '))`)
	for _, want := range []string{"button-name", "color-contrast"} {
		if !strings.Contains(ids, want) {
			t.Errorf("axe overlooks %s: it finds %q", want, ids)
		}
	}
}
