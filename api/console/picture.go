package console

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Dimensions of the diagram, in units of its view box. It fits the screen of a small phone.
const (
	pictureWidth = 336
	columns      = 3
	nodeWidth    = pictureWidth / columns
	nodeHeight   = 72
	regionHead   = 26
	regionGap    = 10
)

// A picture is the drawing of the regions and their nodes.
type picture struct {
	Width, Height int
	Regions       []regionBox
	Text          string // content of the picture in words
}

type regionBox struct {
	Name             string
	Y, Width, Height int
	TextY            int
	Nodes            []nodeMark
}

// A nodeMark is a node: a disk for a voter, a ring for a non-voter, a cross for a lost node. The
// leader has a second ring.
type nodeMark struct {
	ID, Label, State  string
	Voter, Leader     bool
	Alive             bool
	X, Y, NameY, SubY int
	Left, Right       int // edges of the cross
	Top, Bottom       int
}

// draw returns the picture of the members.
func draw(members []member) picture {
	byRegion := map[string][]member{}
	var names []string
	for _, m := range members {
		if _, ok := byRegion[m.Region]; !ok {
			names = append(names, m.Region)
		}
		byRegion[m.Region] = append(byRegion[m.Region], m)
	}
	slices.Sort(names)
	p := picture{Width: pictureWidth, Height: 1} // space for the upper half of the border
	var words []string
	for _, name := range names {
		list := byRegion[name]
		slices.SortFunc(list, func(a, b member) int { return strings.Compare(a.NodeID, b.NodeID) })
		rows := (len(list) + columns - 1) / columns
		box := regionBox{Name: short(name, 40), Y: p.Height, Width: pictureWidth - 2, TextY: p.Height + 18,
			Height: regionHead + rows*nodeHeight}
		var inWords []string
		for i, m := range list {
			x, y := nodeWidth*(i%columns)+nodeWidth/2, p.Height+regionHead+nodeHeight*(i/columns)+22
			box.Nodes = append(box.Nodes, nodeMark{ID: m.NodeID, Label: short(m.NodeID, 14), State: m.State(),
				Voter: m.Voter, Leader: m.Leader, Alive: m.Alive, X: x, Y: y, NameY: y + 28, SubY: y + 43,
				Left: x - 7, Right: x + 7, Top: y - 7, Bottom: y + 7})
			inWords = append(inWords, m.NodeID+" "+m.State())
		}
		words = append(words, "region "+name+": "+strings.Join(inWords, ", "))
		p.Regions = append(p.Regions, box)
		p.Height += box.Height + regionGap
	}
	p.Text = strings.Join(words, "; ")
	return p
}

// short truncates a text to at most n characters.
func short(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
