package browser_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestWater checks that the water's level shows the share of the memory in use,
// and that text is readable at every level. axe does not check text on a
// gradient.
func TestWater(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"phone", 360, 740}, {"tablet", 820, 1180}, {"laptop", 1366, 768}, {"4K", 3840, 2160}} {
		b.do(chromedp.EmulateViewport(size.width, size.height))
		for _, scheme := range []string{"light", "dark"} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			for _, percent := range []float64{0, 4, 63, 88, 100} {
				device(message{"text": "word ", "prompt": "Think.", "memory": memory(percent)}.String())
				b.holds("the figure is shown", fmt.Sprintf(`document.querySelector('#memory').value === %v`, percent))
				// The height of the surface above the lower edge is the
				// memory's share of the space below the label.
				off := value[float64](b, `(() => {
					const label = document.querySelector('.label');
					const top = getComputedStyle(label).backgroundColor === 'rgba(0, 0, 0, 0)' ? 0 : label.getBoundingClientRect().bottom;
					const surface = document.querySelector('.water').getBoundingClientRect().top;
					return surface - (innerHeight - (innerHeight - top) * document.querySelector('#memory').value / 100);
				})()`)
				if off < -1.5 || off > 1.5 {
					t.Errorf("%s, %s, %v%%: the surface is %v pixels off", size.name, scheme, percent, off)
				}
				if gap := value[float64](b, `document.documentElement.clientWidth - document.querySelector('.water').getBoundingClientRect().width`); gap != 0 {
					t.Errorf("%s: the water ends %v pixels before the edge", size.name, gap)
				}
				if least := value[float64](b, contrast); least < 4.5 {
					t.Errorf("%s, %s, %v%%: the least contrast is %.2f, below 4.5 (WCAG 2.2, 1.4.3)", size.name, scheme, percent, least)
				}
			}
		}
	}
	b.silent()
}

// contrast returns the smallest contrast of any ink with the paper and with the
// deepest water.
const contrast = `(() => {
	const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
	const probe = document.querySelector('.tide').appendChild(document.createElement('i'));
	const paint = (...colours) => {
		context.clearRect(0, 0, 1, 1);
		for (const colour of colours) {
			probe.style.color = colour;
			context.fillStyle = getComputedStyle(probe).color;
			context.fillRect(0, 0, 1, 1);
		}
		return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
			.map((v) => v / 255)
			.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
			.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	};
	const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
	const dry = paint('var(--paper)');
	const wet = paint('var(--paper)', 'color-mix(in oklab, transparent, var(--water) var(--deep))');
	if (document.querySelector('#memory').value > 0 && dry === wet) return 0;
	const inks = ['var(--ink)', 'var(--ink-settled)', 'var(--ink-label)'].map((ink) => paint(ink));
	probe.remove();
	return Math.min(...inks.flatMap((ink) => [ratio(ink, dry), ratio(ink, wet)]));
})()`
