package plot_test

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/bench/plot"
)

// elements parses a document and returns its elements by name.
func elements(t *testing.T, doc []byte) map[string][]xml.StartElement {
	t.Helper()
	found := map[string][]xml.StartElement{}
	d := xml.NewDecoder(strings.NewReader(string(doc)))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("got %v, want a well-formed document:\n%s", err, doc)
		}
		if e, ok := token.(xml.StartElement); ok {
			found[e.Name.Local] = append(found[e.Name.Local], e)
		}
	}
}

func attribute(t *testing.T, e xml.StartElement, name string) float64 {
	t.Helper()
	for _, a := range e.Attr {
		if a.Name.Local == name {
			v, err := strconv.ParseFloat(a.Value, 64)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("%s of %s: got %q, want a number", name, e.Name.Local, a.Value)
			}
			return v
		}
	}
	t.Fatalf("%s has no %s", e.Name.Local, name)
	return 0
}

// Every point is inside its chart, and larger values are further up and to the right.
func TestDraw_Points_AreInOrder(t *testing.T) {
	for name, c := range map[string]plot.Chart{
		"linear": {Series: []plot.Series{{X: []float64{1, 2, 30}, Y: []float64{0.5, 7, 9}}}},
		"logarithmic": {LogX: true, LogY: true,
			Series: []plot.Series{{X: []float64{1, 64, 512}, Y: []float64{3, 40, 9000}}}},
		"powers of ten":    {LogX: true, Series: []plot.Series{{X: []float64{1e4, 1e5, 1e7}, Y: []float64{1, 2, 3}}}},
		"one point":        {Series: []plot.Series{{X: []float64{5}, Y: []float64{5}}}},
		"one point at log": {LogX: true, LogY: true, Series: []plot.Series{{X: []float64{5}, Y: []float64{5}}}},
		"zero":             {Series: []plot.Series{{X: []float64{0}, Y: []float64{0}}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.Title, c.X, c.Y = `a < b & "c"`, "x", "y"
			x, y := -1.0, 1e9
			for _, e := range elements(t, plot.Draw(c))["circle"] {
				cx, cy := attribute(t, e, "cx"), attribute(t, e, "cy")
				if cx < 70 || cx > 640 || cy < 30 || cy > 290 {
					t.Errorf("got a point at %v, %v, want it inside the axes", cx, cy)
				}
				if cx <= x || cy >= y {
					t.Errorf("got a point at %v, %v after %v, %v, want it right of and above it", cx, cy, x, y)
				}
				x, y = cx, cy
			}
			if x < 0 {
				t.Error("got no point, want some")
			}
		})
	}
}

func TestDraw_Bars_BeginAtTheAxis(t *testing.T) {
	c := plot.Chart{Bars: true, Series: []plot.Series{{X: []float64{1, 1.1, 1.2}, Y: []float64{3, 0, 9}}}}
	bars := elements(t, plot.Draw(c, plot.Chart{}))["rect"][1:] // the first is the background
	if len(bars) != 3 {
		t.Fatalf("got %d bars, want 3", len(bars))
	}
	for i, e := range bars {
		if bottom := attribute(t, e, "y") + attribute(t, e, "height"); math.Abs(bottom-270) > 0.2 {
			t.Errorf("bar %d ends at %v, want 270", i, bottom)
		}
	}
	if h := attribute(t, bars[1], "height"); h != 0 {
		t.Errorf("bar of 0: got height %v, want 0", h)
	}
}
