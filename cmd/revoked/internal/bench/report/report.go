// Package report defines the results of a benchmark: the JSON document of bench -o json, its table,
// and the figures that [Plot] draws from it.
//
// Fields are only added to the document, so that old reports can be drawn. The package measures
// nothing.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/cli"
)

// A Report is the output of bench with -o json. Fields are only added.
type Report struct {
	FormatVersion int        `json:"format_version"`
	Version       string     `json:"version"`
	StartedAt     string     `json:"started_at"`
	TookSeconds   float64    `json:"took_seconds"`
	Host          host.Host  `json:"host"`
	Parameters    Parameters `json:"parameters"`
	Measures      []*Measure `json:"measures"`
}

// Parameters are the options of the run.
type Parameters struct {
	Nodes       int     `json:"nodes"`
	Pairs       uint64  `json:"pairs"`
	DenyEntries uint64  `json:"deny_entries"`
	Connections int     `json:"connections"`
	Rounds      int     `json:"rounds"`
	DurationS   float64 `json:"duration_seconds"`
	Client      string  `json:"client"`
	OwnCluster  bool    `json:"own_cluster"`
	Against     string  `json:"against,omitempty"`
}

// A Measure is one row of the report. Value and Baseline are medians of the rounds.
type Measure struct {
	Name     string   `json:"name"`
	What     string   `json:"what"`
	Unit     string   `json:"unit"`
	Value    float64  `json:"value"`
	Baseline *float64 `json:"baseline,omitempty"`
	Ratio    *float64 `json:"ratio,omitempty"`
	// Peer and PeerRatio are medians for the side of --against.
	Peer      *float64 `json:"peer,omitempty"`
	PeerRatio *float64 `json:"peer_ratio,omitempty"`
	Goal      string   `json:"goal,omitempty"`
	Met       *bool    `json:"met,omitempty"`
	Rounds    []Round  `json:"rounds,omitempty"`
	// Points are the turns of the measure curve; Samples are the single figures behind a median.
	Points  []Point   `json:"points,omitempty"`
	Samples []float64 `json:"samples,omitempty"`
	load.Tally
	Details map[string]any `json:"details,omitempty"`

	Broken int `json:"-"` // number of active answers for revoked tokens
}

// A Round is one turn of the baseline and one of the subject.
type Round struct {
	Subject  float64 `json:"subject"`
	Baseline float64 `json:"baseline,omitempty"`
	Latency  Latency `json:"latency"`
	// These are microseconds of processor time per request, of all nodes and of the baseline. A busy
	// machine does not change them.
	SubjectCPUUS    float64  `json:"subject_cpu_us,omitempty"`
	BaselineCPUUS   float64  `json:"baseline_cpu_us,omitempty"`
	BaselineLatency *Latency `json:"baseline_latency,omitempty"`
	// Results for the side of --against.
	Peer         float64  `json:"peer,omitempty"`
	PeerCPUUS    float64  `json:"peer_cpu_us,omitempty"`
	PeerLatency  *Latency `json:"peer_latency,omitempty"`
	PeerFailures uint64   `json:"peer_failures,omitempty"`
}

// Values of Point.Load.
const (
	LoadRevoke     = "revocations, all nodes"
	LoadIntrospect = "introspections, one follower"
)

// A Point is one turn of a load with a number of connections.
type Point struct {
	Load        string  `json:"load"`
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate"`
	Latency     Latency `json:"latency"`
}

// A Latency has quantiles in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// LatencyOf returns the quantiles of h. They are zero if h is empty.
func LatencyOf(h *load.Histogram) Latency {
	return Latency{P50: host.Millis(h.Quantile(0.5)), P99: host.Millis(h.Quantile(0.99)), Max: host.Millis(h.Max)}
}

// SetGoal sets the goal and whether the measure met it.
func (m *Measure) SetGoal(text string, met bool) {
	m.Goal, m.Met = text, &met
}

// Compare sets the baseline and the ratio to it.
func (m *Measure) Compare(baseline, ratio float64) { m.Baseline, m.Ratio = &baseline, &ratio }

// ComparePeer sets the medians of the peer. The ratio is the median of the rounds' ratios, because
// other load on the machine varies between rounds.
func (m *Measure) ComparePeer() {
	value := m.Median(func(r Round) float64 { return r.Peer })
	ratio := m.Median(func(r Round) float64 { return r.Subject / max(r.Peer, 1) })
	m.Peer, m.PeerRatio = &value, &ratio
}

// SetDetail sets a figure that the table has no column for. name is its key in the JSON document.
func (m *Measure) SetDetail(name string, value any) {
	if m.Details == nil {
		m.Details = map[string]any{}
	}
	m.Details[name] = value
}

// Median returns the median of values, or 0 if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// Median returns the median of a figure of the rounds.
func (m *Measure) Median(figure func(Round) float64) float64 {
	var values []float64
	for _, r := range m.Rounds {
		values = append(values, figure(r))
	}
	return Median(values)
}

// Print writes the report as a table, or as JSON.
func (r *Report) Print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false) // goals read ">= 0.85"
		return enc.Encode(r)
	}
	p := r.Parameters
	fmt.Fprintf(w, "revoked %s, %s, %s, %d CPUs (nodes, baseline and load share them)\n",
		r.Version, r.Host.Go, r.Host.Platform, r.Host.CPUs)
	fmt.Fprintf(w, "data on %s, fsync p50 %.0f us, p99 %.0f us; "+
		"%d nodes, %d pairs, %d connections of a %s client, %d rounds of %v\n",
		r.Host.Filesystem, r.Host.FsyncP50US, r.Host.FsyncP99US, p.Nodes, p.Pairs, p.Connections, p.Client, p.Rounds,
		time.Duration(p.DurationS*float64(time.Second)))
	fmt.Fprintf(w, "load average when it began: %s\n\n", number(r.Host.LoadAverage))
	rows := make([][]string, 0, len(r.Measures))
	for _, m := range r.Measures {
		baseline, ratio, met := "", "", ""
		if m.Baseline != nil {
			baseline = number(*m.Baseline)
		}
		if m.Ratio != nil {
			ratio = fmt.Sprintf("%.2f", *m.Ratio)
		}
		if m.Met != nil {
			met = cli.YesNo(*m.Met)
		}
		rows = append(rows, []string{
			m.What, number(m.Value) + " " + m.Unit, baseline, ratio, m.Goal, met, fmt.Sprint(m.Failures),
		})
	}
	heading := []string{"MEASURE", "VALUE", "BASELINE", "RATIO", "GOAL", "MET", "FAILURES"}
	if err := cli.PrintTable(w, heading, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, m := range r.Measures {
		if facts := m.facts(); facts != "" {
			fmt.Fprintf(w, "%s: %s\n", m.Name, facts)
		}
	}
	return nil
}

// facts formats latencies, processor times and details, sorted by name.
func (m *Measure) facts() string {
	var parts []string
	if len(m.Rounds) > 0 {
		parts = append(parts, fmt.Sprintf("latency p50 %.2f ms, p99 %.2f ms",
			m.Median(func(r Round) float64 { return r.Latency.P50 }), m.Median(func(r Round) float64 { return r.Latency.P99 })))
		subject := m.Median(func(r Round) float64 { return r.SubjectCPUUS })
		if baseline := m.Median(func(r Round) float64 { return r.BaselineCPUUS }); subject > 0 {
			parts = append(parts,
				fmt.Sprintf("processor time per request %.0f us of all nodes, %.0f us of the baseline", subject, baseline))
		}
	}
	if m.Peer != nil {
		parts = append(parts, fmt.Sprintf("peer %s %s, ratio to it %.2f (p50 %.2f ms, p99 %.2f ms; "+
			"processor time per request %.0f us of its nodes)", number(*m.Peer), m.Unit, *m.PeerRatio,
			m.Median(func(r Round) float64 { return r.PeerLatency.P50 }),
			m.Median(func(r Round) float64 { return r.PeerLatency.P99 }),
			m.Median(func(r Round) float64 { return r.PeerCPUUS })))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Details)) {
		value := m.Details[name]
		if f, ok := value.(float64); ok {
			value = number(f)
		}
		parts = append(parts, fmt.Sprintf("%s %v", strings.ReplaceAll(name, "_", " "), value))
	}
	if m.FirstFailure != "" {
		parts = append(parts, "first failure: "+cli.Clean(m.FirstFailure))
	}
	return strings.Join(parts, "; ")
}

// number formats f with two decimals below 10, one below 100, and none from 100 on or for 0.
func number(f float64) string {
	switch {
	case f >= 100 || f <= -100 || f == 0:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
