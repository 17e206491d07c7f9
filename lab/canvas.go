package lab

import "strings"

// canvas is text to draw on. Lines are kept as the directions they leave a cell
// in, so that what crosses or meets gets the right character.
type canvas struct {
	text  map[[2]int]rune
	lines map[[2]int]uint8
	rows  int
}

const (
	goUp = 1 << iota
	goDown
	goLeft
	goRight
)

// lineRunes is indexed by the directions.
var lineRunes = [16]rune{
	' ', '│', '│', '│', '─', '┘', '┐', '┤', '─', '└', '┌', '├', '─', '┴', '┬', '┼',
}

func newCanvas() *canvas {
	return &canvas{text: map[[2]int]rune{}, lines: map[[2]int]uint8{}}
}

func (c *canvas) line(x, y int, directions uint8) {
	c.lines[[2]int{x, y}] |= directions
	c.rows = max(c.rows, y+1)
}

func (c *canvas) vertical(x, fromY, toY int) {
	for y := fromY; y < toY; y++ {
		c.line(x, y, goDown)
		c.line(x, y+1, goUp)
	}
}

func (c *canvas) horizontal(y, fromX, toX int) {
	for x := min(fromX, toX); x < max(fromX, toX); x++ {
		c.line(x, y, goRight)
		c.line(x+1, y, goLeft)
	}
}

func (c *canvas) write(x, y int, s string) {
	for _, r := range s {
		c.text[[2]int{x, y}] = r
		x++
	}
	c.rows = max(c.rows, y+1)
}

func (c *canvas) String() string {
	width := 0
	for at := range c.text {
		width = max(width, at[0]+1)
	}
	for at := range c.lines {
		width = max(width, at[0]+1)
	}
	var out strings.Builder
	for y := range c.rows {
		var row strings.Builder
		for x := range width {
			at := [2]int{x, y}
			if r, ok := c.text[at]; ok {
				row.WriteRune(r)
			} else {
				row.WriteRune(lineRunes[c.lines[at]])
			}
		}
		out.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	return out.String()
}

// draw puts the laid-out boxes and links on a canvas.
func (d *diagram) draw() string {
	c := newCanvas()
	y := 0
	for _, layer := range d.layers {
		height := 0
		for _, b := range layer {
			height = max(height, len(b.lines)+2)
		}
		links := 0
		for _, b := range layer {
			b.draw(c, y, height)
			for _, e := range b.down {
				e.draw(c, y+height-1)
				links = e.rows()
			}
		}
		y += height + links
	}
	return c.String()
}

func (b *box) draw(c *canvas, y, height int) {
	right, bottom := b.x+b.width-1, y+height-1
	c.horizontal(y, b.x, right)
	c.horizontal(bottom, b.x, right)
	c.vertical(b.x, y, bottom)
	c.vertical(right, y, bottom)
	c.write(b.x+2, y, " "+b.title+" ")
	for i, line := range b.lines {
		c.write(b.x+2, y+1+i, line)
	}
}

// rows is the room between two layers: a label at each end, the tracks between.
func (e *edge) rows() int { return 2 + e.nTracks }

// draw runs from the bottom of the upper box, at row y, to the top of the lower
// one.
func (e *edge) draw(c *canvas, y int) {
	end := y + e.rows() + 1
	turn := y + 2 + e.track
	if e.fromX == e.toX {
		turn = end
	}
	c.vertical(e.fromX, y, turn)
	if turn != end {
		c.horizontal(turn, e.fromX, e.toX)
		c.vertical(e.toX, turn, end)
	}
	c.write(e.fromX+1, y+1, e.upperIf)
	c.write(e.toX+1, end-1, e.lowerIf)
}
