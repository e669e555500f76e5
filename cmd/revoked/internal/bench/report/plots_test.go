package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func writeReport(t *testing.T, pairs uint64, measures ...*Measure) string {
	t.Helper()
	b, err := json.Marshal(&Report{FormatVersion: 1, Parameters: Parameters{Pairs: pairs}, Measures: measures})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPlot_Reports_DrawsTheirFigures(t *testing.T) {
	curve := &Measure{Name: "curve", Points: []Point{
		{LoadRevoke, 1, 200, Latency{P99: 8}}, {LoadIntrospect, 1, 3000, Latency{P99: 1}},
		{LoadRevoke, 64, 3000, Latency{P99: 40}}, {LoadIntrospect, 64, 13000, Latency{P99: 9}},
	}}
	failover := &Measure{Name: "failover", Samples: []float64{0.91, 0.99, 1.02, 1.31}}
	size := func(v float64) *Measure { return &Measure{Name: "size", What: "disk", Unit: "bytes", Value: v} }
	small, large := writeReport(t, 10_000, curve, size(90)), writeReport(t, 1_000_000, failover, size(120))
	for name, tc := range map[string]struct {
		reports, want []string
	}{
		"one":  {[]string{small}, []string{"connections.svg"}},
		"both": {[]string{small, large}, []string{"connections.svg", "failover.svg", "growth.svg"}},
	} {
		dir := filepath.Join(t.TempDir(), "plots")
		got, err := Plot(dir, tc.reports)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, tc.want)
		}
		for _, file := range got {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(b), "</svg>") {
				t.Errorf("%s: got %q, %v, want a document", file, b, err)
			}
		}
	}
	if c := failoverCharts([]*Report{{Measures: []*Measure{failover}}}); len(c) != 1 ||
		!slices.Equal(c[0].Series[0].Y, []float64{2, 1, 0, 0, 1, 0}) {
		t.Errorf("got %+v, want 2 kills from 0.9 s, 1 from 1.0 s and 1 from 1.3 s", c)
	}
}

func TestPlot_NothingToDraw_IsAnError(t *testing.T) {
	empty := writeReport(t, 10_000, &Measure{Name: "revoke"})
	other := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(other, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		empty: "nothing to draw", other: "not a report", other + "x": "no such file",
	} {
		if _, err := Plot(t.TempDir(), []string{file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
