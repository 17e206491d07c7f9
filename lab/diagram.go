package lab

import (
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Diagram draws the topology from the customer at the top to the VM at the
// bottom: boxes in layers, by their distance from the first hosts, and lines
// for the links between one layer and the next.
func Diagram(w io.Writer, t *Topology) error {
	d := newDiagram(t)
	d.layout()
	text := t.Name + ": " + t.Description + "\n\n" + d.draw()
	for _, l := range d.others {
		text += fmt.Sprintf("also %s ─ %s\n", l.Ends[0], l.Ends[1])
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write diagram: %w", err)
	}
	return nil
}

type diagram struct {
	layers [][]*box
	others []Link // that do not lead from one layer to the next
}

type box struct {
	nodeCard
	x, width int
	up, down []*edge
}

// edge is a link between two layers.
type edge struct {
	upper, lower   *box
	upperIf        string
	lowerIf        string
	fromX, toX     int
	track, nTracks int
}

const boxGap = 3

func newDiagram(t *Topology) *diagram {
	depth := depths(t)
	boxes := map[string]*box{}
	d := &diagram{layers: make([][]*box, slices.Max(depth)+1)}
	for i := range t.Nodes {
		b := &box{nodeCard: describe(t, &t.Nodes[i])}
		boxes[t.Nodes[i].Name] = b
		d.layers[depth[i]] = append(d.layers[depth[i]], b)
	}
	layerOf := func(e Endpoint) int {
		return depth[slices.IndexFunc(t.Nodes, func(n Node) bool { return n.Name == e.Node })]
	}
	for _, l := range t.Links {
		a, b := l.Ends[0], l.Ends[1]
		if layerOf(a) > layerOf(b) {
			a, b = b, a
		}
		if layerOf(b)-layerOf(a) != 1 {
			d.others = append(d.others, l)
			continue
		}
		e := &edge{upper: boxes[a.Node], lower: boxes[b.Node], upperIf: a.Interface, lowerIf: b.Interface}
		e.upper.down = append(e.upper.down, e)
		e.lower.up = append(e.lower.up, e)
	}
	return d
}

// depths returns each node's distance in links from the hosts that stand before
// the first MSEE, or from the first node where there is none.
func depths(t *Topology) []int {
	const far = 1 << 20
	depth := make([]int, len(t.Nodes))
	firstMSEE := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.Kind == KindMSEE })
	for i := range depth {
		if depth[i] = far; i == 0 || i < firstMSEE && t.Nodes[i].Kind == KindHost {
			depth[i] = 0
		}
	}
	index := map[string]int{}
	for i := range t.Nodes {
		index[t.Nodes[i].Name] = i
	}
	for changed := true; changed; {
		changed = false
		for _, l := range t.Links {
			a, b := index[l.Ends[0].Node], index[l.Ends[1].Node]
			if depth[b] > depth[a]+1 {
				depth[b], changed = depth[a]+1, true
			}
			if depth[a] > depth[b]+1 {
				depth[a], changed = depth[b]+1, true
			}
		}
	}
	last := 0
	for _, x := range depth {
		if x < far {
			last = max(last, x)
		}
	}
	for i := range depth { // nodes without any way to the others go to the bottom
		depth[i] = min(depth[i], last+1)
	}
	return depth
}

// layout sets widths and columns: every layer in the middle.
func (d *diagram) layout() {
	widest := 0
	widths := make([]int, len(d.layers))
	for i, layer := range d.layers {
		for _, b := range layer {
			b.width = b.needs()
			widths[i] += b.width + boxGap
		}
		widest = max(widest, widths[i])
	}
	for i, layer := range d.layers {
		x := (widest - widths[i]) / 2
		for _, b := range layer {
			b.x = x
			x += b.width + boxGap
		}
	}
	for _, layer := range d.layers {
		d.place(layer)
	}
	for _, layer := range d.layers {
		d.tracks(layer)
	}
}

// needs is the box's width: its text, and its links with their labels.
func (b *box) needs() int {
	width := utf8.RuneCountInString(b.title) + 6
	for _, line := range b.lines {
		width = max(width, utf8.RuneCountInString(line)+4)
	}
	up, down := 4, 4
	for _, e := range b.up {
		up += len(e.lowerIf) + 3
	}
	for _, e := range b.down {
		down += len(e.upperIf) + 3
	}
	return max(width, up, down)
}

// place spreads the links of each box over its edges, in the order of what they
// lead to, so that they cross as little as possible.
func (d *diagram) place(layer []*box) {
	for _, b := range layer {
		slices.SortStableFunc(b.up, func(x, y *edge) int { return x.upper.x - y.upper.x })
		slices.SortStableFunc(b.down, func(x, y *edge) int { return x.lower.x - y.lower.x })
		for i, e := range b.up {
			e.toX = b.x + (2*i+1)*b.width/(2*len(b.up))
		}
		for i, e := range b.down {
			e.fromX = b.x + (2*i+1)*b.width/(2*len(b.down))
		}
	}
}

// tracks gives every link below a layer that is not straight a row of its own,
// and keeps what ends in a column from running into what begins there.
func (d *diagram) tracks(layer []*box) {
	var edges []*edge
	for _, b := range layer {
		edges = append(edges, b.down...)
	}
	n := 0
	for _, e := range edges {
		if abs(e.fromX-e.toX) <= 2 && e.fromX > e.lower.x && e.fromX < e.lower.x+e.lower.width-1 {
			e.toX = e.fromX
		}
		for slices.ContainsFunc(edges, func(o *edge) bool { return o != e && o.fromX == e.toX }) {
			e.toX++
		}
		if e.fromX != e.toX {
			e.track = n
			n++
		}
	}
	for _, e := range edges {
		e.nTracks = n
	}
}

func abs(n int) int { return max(n, -n) }
