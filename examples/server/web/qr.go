package web

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the width of the white border, in modules, that readers need
// (ISO/IEC 18004).
const quiet = 4

// code returns the QR code of an address as a picture, and whether there is
// one. It is black on white in every theme, since many readers need that.
func code(address string) (file, bool) {
	c, err := qr.Encode(address, qr.M)
	if address == "" || err != nil {
		return file{}, false
	}
	var svg strings.Builder
	size := c.Size + 2*quiet
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%dv%dH0z"/><path d="`, size, size, size, size)
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			begin := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if x > begin {
				fmt.Fprintf(&svg, "M%d %dh%dv1H%dz", begin+quiet, y+quiet, x-begin, begin+quiet)
			}
		}
	}
	svg.WriteString(`"/></svg>`)
	return newFile("qr.svg", []byte(svg.String())), true
}
