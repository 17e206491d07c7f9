// Package svg draws the pictures of docs: a few shapes whose colours suit a light
// page and a dark one.
package svg

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// Canvas collects shapes. Coordinates are in pixels from the upper left corner.
// A class is one or more of the words that the style below knows.
type Canvas struct{ shapes strings.Builder }

// style has the classes. Text: title, head, dim, small, and where x is: mid or end
// (else its beginning). Lines: grid, axis. Shapes and text: one and two, which stand
// for things to tell apart; good and bad; hollow for a circle that is only a ring.
const style = `<style>
svg { background: #fff; font: 11px sans-serif }
text { fill: #1f2328 }
.title { font-size: 14px; font-weight: bold } .head { font-weight: bold } .small { font-size: 10px }
.dim { fill: #59636e } .mid { text-anchor: middle } .end { text-anchor: end }
.grid { stroke: #d8dee4 } .axis { stroke: #59636e; stroke-dasharray: 4 3 }
.one { fill: #2b6cb0; stroke: #2b6cb0 } .two { fill: #c05621; stroke: #c05621 }
.good { fill: #1a7f37; stroke: #1a7f37 } .bad { fill: #bc4c00; stroke: #bc4c00 }
.pale { opacity: .35 } text { stroke: none !important } circle.hollow { fill: #fff }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 } text { fill: #e6edf3 } .dim { fill: #9198a1 }
.grid { stroke: #30363d } .axis { stroke: #9198a1 }
.one { fill: #6cb6ff; stroke: #6cb6ff } .two { fill: #f0883e; stroke: #f0883e }
.good { fill: #57ab5a; stroke: #57ab5a } .bad { fill: #f0883e; stroke: #f0883e }
circle.hollow { fill: #0d1117 }
}
</style>
`

// Text writes a line whose foot is at y.
func (c *Canvas) Text(x, y float64, class, format string, args ...any) {
	fmt.Fprintf(&c.shapes, `<text x="%.1f" y="%.1f" class="%s">`, x, y, class)
	xml.EscapeText(&c.shapes, fmt.Appendf(nil, format, args...)) // a Builder takes all
	c.shapes.WriteString("</text>\n")
}

// Line draws a straight one.
func (c *Canvas) Line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&c.shapes, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

// Rect draws a filled rectangle from (x, y) down to the right.
func (c *Canvas) Rect(x, y, width, height float64, class string) {
	fmt.Fprintf(&c.shapes, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s"/>`+"\n", x, y, width, height, class)
}

// Circle draws one around (x, y).
func (c *Canvas) Circle(x, y, radius float64, class string) {
	fmt.Fprintf(&c.shapes, `<circle cx="%.1f" cy="%.1f" r="%.1f" class="%s"/>`+"\n", x, y, radius, class)
}

// Picture returns the file's text.
func (c *Canvas) Picture(width, height float64) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]g %[2]g" width="%[1]g" height="%[2]g">`+"\n%s%s</svg>\n",
		width, height, style, c.shapes.String())
}
