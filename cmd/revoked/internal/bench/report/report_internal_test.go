package report

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
)

func TestReport_Print_WritesTableAndJSON(t *testing.T) {
	base, ratio := 10_000.0, 0.91
	m := &Measure{
		Name: "introspect", What: "introspections of active tokens, one follower", Unit: "1/s", Value: 9_100, Baseline: &base,
		Ratio: &ratio,
		Rounds: []Round{{Subject: 9_100, Baseline: 10_000, Latency: Latency{P50: 5, P99: 12.5, Max: 20}, SubjectCPUUS: 61,
			BaselineCPUUS: 52}},
	}
	m.SetGoal("ratio >= 0.85", true)
	m.SetDetail("cache_hit_ratio", 0.97)
	r := &Report{
		FormatVersion: 1, Version: "1.0.0", StartedAt: "2026-01-31T12:00:00Z", TookSeconds: 60,
		Host: host.Host{CPUs: 2, Platform: "linux/amd64", Go: "go1.26", Filesystem: "ext4", FsyncP50US: 250,
			FsyncP99US: 900, FsyncProbes: 300, LoadAverage: 0.25},
		Parameters: Parameters{Nodes: 3, Pairs: 100_000, DenyEntries: 20_000, Connections: 64, Rounds: 3,
			DurationS: 5, Client: "lean",
			OwnCluster: true},
		Measures: []*Measure{m, {Name: "size", What: "resident memory", Unit: "MiB", Value: 151.4,
			Tally: load.Tally{Failures: 1, FirstFailure: "status 503"}}},
	}
	for name, asJSON := range map[string]bool{"bench-table": false, "bench-json": true} {
		var out bytes.Buffer
		if err := r.Print(&out, asJSON); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".golden")
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), out.String()); diff != "" {
			t.Errorf("%s: -want +got:\n%s", file, diff)
		}
	}
}
