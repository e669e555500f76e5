// Package plot draws charts as SVG: lines, bars and two kinds of axes. It has no dependency: a
// plotting library would put fonts and image formats into a security program.
package plot

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
)

// A Chart has one or more series over common axes.
type Chart struct {
	Title, X, Y string // labels
	LogX, LogY  bool   // logarithmic: values must be positive
	Bars        bool   // bars instead of lines
	Series      []Series
}

// A Series is a list of points. X and Y have the same length.
type Series struct {
	Name string // empty: no legend
	X, Y []float64
}

// The layout of one chart, in pixels.
const (
	width, height = 640.0, 320.0
	left, right   = 76.0, 20.0
	top, bottom   = 34.0, 50.0
)

// colors are the colors of the series, distinct also for color-blind readers (Okabe and Ito).
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}

// Draw returns an SVG document with the charts below one another.
func Draw(charts ...Chart) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" `+
		`font-family="sans-serif" font-size="12" role="img">`+"\n", width, height*float64(len(charts)),
		width, height*float64(len(charts)))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	for i, c := range charts {
		fmt.Fprintf(&b, `<g transform="translate(0 %.0f)">`+"\n", height*float64(i))
		c.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (c *Chart) draw(b *bytes.Buffer) {
	x, y := c.axes()
	px := func(v float64) float64 { return left + x.place(v)*(width-left-right) }
	py := func(v float64) float64 { return height - bottom - y.place(v)*(height-top-bottom) }
	text(b, width/2, 18, "middle", c.Title, ` font-weight="bold"`)
	text(b, left+(width-left-right)/2, height-10, "middle", c.X, "")
	text(b, 0, 0, "middle", c.Y, fmt.Sprintf(` transform="translate(16 %.1f) rotate(-90)"`, top+(height-top-bottom)/2))
	for _, v := range y.ticks {
		line(b, left, py(v), width-right, py(v), "#ddd")
		text(b, left-6, py(v)+4, "end", number(v), "")
	}
	for _, v := range x.ticks {
		line(b, px(v), height-bottom, px(v), height-bottom+4, "#000")
		text(b, px(v), height-bottom+18, "middle", number(v), "")
	}
	line(b, left, height-bottom, width-right, height-bottom, "#000")
	line(b, left, top, left, height-bottom, "#000")
	named := 0
	for i, s := range c.Series {
		color := colors[i%len(colors)]
		if c.Bars {
			s.bars(b, px, py, color)
		} else {
			s.line(b, px, py, color)
		}
		if s.Name != "" {
			named++
			text(b, width-right-10, height-bottom-16*float64(named), "end", s.Name, fmt.Sprintf(` fill="%s"`, color))
		}
	}
}

func (s *Series) line(b *bytes.Buffer, px, py func(float64) float64, color string) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, color)
	for i := range s.X {
		fmt.Fprintf(b, "%.1f,%.1f ", px(s.X[i]), py(s.Y[i]))
	}
	b.WriteString(`"/>` + "\n")
	for i := range s.X {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s: %s</title></circle>`+"\n",
			px(s.X[i]), py(s.Y[i]), color, number(s.X[i]), number(s.Y[i]))
	}
}

// bars draws bars whose X is the left edge. Each bar is as wide as the distance between the first
// two values of X.
func (s *Series) bars(b *bytes.Buffer, px, py func(float64) float64, color string) {
	for i := range s.X {
		w := px(s.X[min(1, len(s.X)-1)]) - px(s.X[0])
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: %s</title></rect>`+"\n",
			px(s.X[i])+1, py(s.Y[i]), max(w-2, 2), height-bottom-py(s.Y[i]), color, number(s.X[i]), number(s.Y[i]))
	}
}

// An axis maps values to the range from 0 to 1.
type axis struct {
	low, high float64
	log       bool
	ticks     []float64
}

func (a *axis) place(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		low, high, v = math.Log(low), math.Log(high), math.Log(max(v, a.low))
	}
	return (v - low) / (high - low)
}

// axes returns axes that hold all points. A linear axis begins at 0, except the X axis.
func (c *Chart) axes() (x, y axis) {
	var xs, ys []float64
	for _, s := range c.Series {
		xs, ys = append(xs, s.X...), append(ys, s.Y...)
	}
	if c.Bars && len(xs) > 1 {
		xs = append(xs, 2*xs[len(xs)-1]-xs[len(xs)-2]) // right edge of the last bar
	}
	if !c.LogY {
		ys = append(ys, 0)
	}
	return newAxis(xs, c.LogX), newAxis(ys, c.LogY)
}

func newAxis(values []float64, log bool) axis {
	if len(values) == 0 {
		values = []float64{1}
	}
	a := axis{low: slices.Min(values), high: slices.Max(values), log: log}
	if a.low == a.high {
		a.high = a.low + cmp.Or(math.Abs(a.low), 1)
	}
	if log {
		a.logTicks(values)
	} else {
		a.linearTicks()
	}
	return a
}

// linearTicks sets about five round ticks, and ends the axis at ticks.
func (a *axis) linearTicks() {
	step := math.Pow(10, math.Floor(math.Log10((a.high-a.low)/5)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if (a.high-a.low)/(step*factor) <= 6 {
			step *= factor
			break
		}
	}
	first, last := math.Floor(a.low/step), math.Ceil(a.high/step)
	for k := first; k <= last; k++ {
		a.ticks = append(a.ticks, k*step)
	}
	a.low, a.high = first*step, last*step
}

// logTicks sets ticks at powers of two if all values are powers of two. Otherwise it sets them at
// 1, 2 and 5 times the powers of ten. Beyond three decades it sets them only at the powers of ten.
func (a *axis) logTicks(values []float64) {
	factors := []float64{1, 2, 5}
	base := 10.0
	switch {
	case !slices.ContainsFunc(values, func(v float64) bool { return math.Exp2(math.Round(math.Log2(v))) != v }):
		factors, base = factors[:1], 2
	case a.high/a.low > 1000:
		factors = factors[:1]
	}
	first := math.Floor(math.Log(a.low)/math.Log(base) + 1e-9)
	for k := first; ; k++ {
		for _, f := range factors {
			v := f * math.Pow(base, k)
			if n := len(a.ticks); n > 0 && v <= a.low {
				a.ticks = a.ticks[:n-1]
			}
			a.ticks = append(a.ticks, v)
			if v >= a.high*(1-1e-9) {
				a.low, a.high = a.ticks[0], v
				return
			}
		}
	}
}

func line(b *bytes.Buffer, x1, y1, x2, y2 float64, color string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, color)
}

func text(b *bytes.Buffer, x, y float64, anchor, s, attributes string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>`, x, y, anchor, attributes)
	_ = xml.EscapeText(b, []byte(s)) // a bytes.Buffer does not fail
	b.WriteString("</text>\n")
}

// number formats a value for a label.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.4gM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.4gk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
