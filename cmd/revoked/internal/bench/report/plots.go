package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"revoked/cmd/revoked/internal/bench/plot"
	"revoked/cmd/revoked/internal/cli"
)

// Plot draws the figures of reports, the output of bench with -o json, as SVG files in dir. It
// returns their names: connections.svg from a measure "curve", failover.svg from "failover", and
// growth.svg from reports with different numbers of pairs. If several reports have the measure of a
// figure, Plot uses the last of them.
func Plot(dir string, reports []string) (written []string, err error) {
	read := make([]*Report, 0, len(reports))
	for _, file := range reports {
		r, err := readReport(file)
		if err != nil {
			return nil, err
		}
		read = append(read, r)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for name, charts := range map[string][]plot.Chart{
		"connections.svg": curveCharts(read), "failover.svg": failoverCharts(read), "growth.svg": growthCharts(read),
	} {
		if len(charts) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), plot.Draw(charts...), 0o644); err != nil {
			return written, err
		}
		written = append(written, name)
	}
	if len(written) == 0 {
		return nil, cli.UsageError("the reports have nothing to draw: run the measures curve or failover, " +
			"or pass reports with different --pairs")
	}
	slices.Sort(written)
	return written, nil
}

func readReport(file string) (*Report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil || r.FormatVersion != 1 {
		return nil, fmt.Errorf("%s is not a report of revoked bench -o json: %w", file, cmp.Or(err,
			fmt.Errorf("format_version is %d", r.FormatVersion)))
	}
	return r, nil
}

// measure returns the newest measure with that name, or nil.
func measure(reports []*Report, name string) *Measure {
	for _, r := range slices.Backward(reports) {
		for _, m := range r.Measures {
			if m.Name == name {
				return m
			}
		}
	}
	return nil
}

// curveCharts returns the rates and the latencies over the connections.
func curveCharts(reports []*Report) []plot.Chart {
	m := measure(reports, "curve")
	if m == nil {
		return nil
	}
	rate := plot.Chart{Title: "Rate over connections", X: "connections", Y: "requests/s", LogX: true, LogY: true}
	late := plot.Chart{Title: "p99 over connections", X: "connections", Y: "ms", LogX: true, LogY: true}
	for _, load := range []string{LoadRevoke, LoadIntrospect} {
		r, l := plot.Series{Name: load}, plot.Series{Name: load}
		for _, p := range m.Points {
			if p.Load == load && p.Rate > 0 && p.Latency.P99 > 0 {
				r.X, r.Y = append(r.X, float64(p.Connections)), append(r.Y, p.Rate)
				l.X, l.Y = append(l.X, float64(p.Connections)), append(l.Y, p.Latency.P99)
			}
		}
		if len(r.X) > 0 {
			rate.Series, late.Series = append(rate.Series, r), append(late.Series, l)
		}
	}
	return []plot.Chart{rate, late}
}

// failoverBin is the width of a bar, in seconds.
const failoverBin = 0.1

func failoverCharts(reports []*Report) []plot.Chart {
	m := measure(reports, "failover")
	if m == nil || len(m.Samples) == 0 {
		return nil
	}
	first := math.Floor(slices.Min(m.Samples) / failoverBin)
	bins := make([]float64, int(slices.Max(m.Samples)/failoverBin-first)+2)
	for _, s := range m.Samples {
		bins[int(s/failoverBin-first)]++
	}
	s := plot.Series{Y: bins}
	for i := range bins {
		s.X = append(s.X, (first+float64(i))*failoverBin)
	}
	return []plot.Chart{{
		Title: fmt.Sprintf("Failover: %d kills of the leader, median %.2f s", len(m.Samples), Median(m.Samples)),
		X:     "seconds until a revocation succeeds", Y: "kills", Bars: true, Series: []plot.Series{s},
	}}
}

// growthCharts returns a chart for each measure that was run with more than one number of pairs.
func growthCharts(reports []*Report) (charts []plot.Chart) {
	for _, name := range []string{"register", "revoke", "introspect", "latency", "lone", "size", "restart"} {
		at := map[uint64]*Measure{}
		for _, r := range reports {
			if m := measure([]*Report{r}, name); m != nil {
				at[r.Parameters.Pairs] = m
			}
		}
		if len(at) < 2 {
			continue
		}
		var s plot.Series
		c := plot.Chart{X: "pairs", LogX: true}
		pairs := make([]uint64, 0, len(at))
		for n := range at {
			pairs = append(pairs, n)
		}
		slices.Sort(pairs)
		for _, n := range pairs {
			c.Title, c.Y = at[n].What, at[n].Unit
			s.X, s.Y = append(s.X, float64(n)), append(s.Y, at[n].Value)
		}
		c.Series = []plot.Series{s}
		charts = append(charts, c)
	}
	return charts
}
