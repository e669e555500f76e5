package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A benchReport is what bench prints with -o json. Fields are only added.
type benchReport struct {
	FormatVersion int             `json:"format_version"`
	Version       string          `json:"version"`
	StartedAt     string          `json:"started_at"`
	TookSeconds   float64         `json:"took_seconds"`
	Host          benchHost       `json:"host"`
	Parameters    benchParameters `json:"parameters"`
	Measures      []*benchMeasure `json:"measures"`
}

// benchParameters are what was asked for.
type benchParameters struct {
	Nodes       int     `json:"nodes"`
	Pairs       uint64  `json:"pairs"`
	Connections int     `json:"connections"`
	Rounds      int     `json:"rounds"`
	DurationS   float64 `json:"duration_seconds"`
	Client      string  `json:"client"`
	OwnCluster  bool    `json:"own_cluster"`
}

// A benchMeasure is one row of the report. Value and Baseline are medians of the rounds.
type benchMeasure struct {
	Name         string         `json:"name"`
	What         string         `json:"what"`
	Unit         string         `json:"unit"`
	Value        float64        `json:"value"`
	Baseline     *float64       `json:"baseline,omitempty"`
	Ratio        *float64       `json:"ratio,omitempty"`
	Goal         string         `json:"goal,omitempty"`
	Met          *bool          `json:"met,omitempty"`
	Rounds       []benchRound   `json:"rounds,omitempty"`
	Failures     uint64         `json:"failures"`
	FirstFailure string         `json:"first_failure,omitempty"`
	Details      map[string]any `json:"details,omitempty"`
}

// A benchRound is one run of the baseline and one of the subject, beside each other.
type benchRound struct {
	Subject  float64      `json:"subject"`
	Baseline float64      `json:"baseline,omitempty"`
	Latency  benchLatency `json:"latency"`
	// Processor time of all nodes, and of the baseline, by request. It holds on a busy machine too.
	SubjectCPUUS  float64 `json:"subject_cpu_us,omitempty"`
	BaselineCPUUS float64 `json:"baseline_cpu_us,omitempty"`
	// BaselineLatency is that of the baseline's run.
	BaselineLatency *benchLatency `json:"baseline_latency,omitempty"`
}

// A benchLatency is in milliseconds.
type benchLatency struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func latencyOf(h *histogram) benchLatency {
	return benchLatency{P50: millisOf(h.quantile(0.5)), P99: millisOf(h.quantile(0.99)), Max: millisOf(h.max)}
}

// goal says what is to be reached and whether it was.
func (m *benchMeasure) goal(text string, met bool) {
	m.Goal, m.Met = text, &met
}

// fail counts an answer that is not the one that is measured.
func (m *benchMeasure) fail(status int, body []byte) {
	m.Failures++
	m.FirstFailure = first(m.FirstFailure, fmt.Sprintf("status %d: %s", status, printable(string(body))))
}

// detail adds a fact.
func (m *benchMeasure) detail(name string, value any) {
	if m.Details == nil {
		m.Details = map[string]any{}
	}
	m.Details[name] = value
}

// median returns the middle of values, 0 when there is none.
func median(values []float64) float64 {
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

func (r *benchReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false) // goals read ">= 0.85"
		return enc.Encode(r)
	}
	p := r.Parameters
	fmt.Fprintf(w, "revoked %s, %s, %s, %d CPUs (nodes, baseline and load share them)\n", r.Version, r.Host.Go, r.Host.Platform, r.Host.CPUs)
	fmt.Fprintf(w, "data on %s, fsync p50 %.0f us, p99 %.0f us; %d nodes, %d pairs, %d connections of a %s client, %d rounds of %v\n",
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
			met = yesNo(*m.Met)
		}
		rows = append(rows, []string{m.What, number(m.Value) + " " + m.Unit, baseline, ratio, m.Goal, met, fmt.Sprint(m.Failures)})
	}
	if err := printTable(w, []string{"MEASURE", "VALUE", "BASELINE", "RATIO", "GOAL", "MET", "FAILURES"}, rows); err != nil {
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

// facts words the details, in the order of their names.
func (m *benchMeasure) facts() string {
	var parts []string
	if n := len(m.Rounds); n > 0 {
		var p50, p99 []float64
		for _, r := range m.Rounds {
			p50, p99 = append(p50, r.Latency.P50), append(p99, r.Latency.P99)
		}
		parts = append(parts, fmt.Sprintf("latency p50 %.2f ms, p99 %.2f ms", median(p50), median(p99)))
		var subject, baseline []float64
		for _, r := range m.Rounds {
			subject, baseline = append(subject, r.SubjectCPUUS), append(baseline, r.BaselineCPUUS)
		}
		if s, b := median(subject), median(baseline); s > 0 {
			parts = append(parts, fmt.Sprintf("processor time by request %.0f us of all nodes, %.0f us of the baseline", s, b))
		}
	}
	names := make([]string, 0, len(m.Details))
	for name := range m.Details {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := m.Details[name]
		if f, ok := value.(float64); ok {
			value = number(f)
		}
		parts = append(parts, fmt.Sprintf("%s %v", strings.ReplaceAll(name, "_", " "), value))
	}
	if m.FirstFailure != "" {
		parts = append(parts, "first failure: "+printable(m.FirstFailure))
	}
	return strings.Join(parts, "; ")
}

// number words a figure with three digits or more.
func number(f float64) string {
	switch {
	case f >= 100 || f <= -100 || f == 0:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
