package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/internal/retry"
)

// A nodeUse is the use of resources by one node.
type nodeUse struct {
	resident int64
	disk     int64
	parts    map[string]int64 // disk, split by entry of the data directory
	cpu      time.Duration
}

func (r *run) uses() ([]nodeUse, error) {
	var all []nodeUse
	for _, n := range r.cluster.nodes {
		if n.PID == 0 {
			return nil, fmt.Errorf("the process id of %s is unknown", n.ID)
		}
		var u nodeUse
		var err error
		if u.cpu, u.resident, err = host.Usage(n.PID); err != nil {
			return nil, err
		}
		if u.disk, u.parts, err = host.DiskBytes(n.Data); err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// idle measures the processor time of idle nodes after their startup is complete.
func (r *run) idle(ctx context.Context, m *report.Measure) error {
	const startUp, watch = 3 * time.Second, 10 * time.Second
	if err := retry.Sleep(ctx, startUp); err != nil {
		return err
	}
	before, err := r.uses()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := retry.Sleep(ctx, watch); err != nil {
		return err
	}
	after, err := r.uses()
	if err != nil {
		return err
	}
	took := time.Since(start)
	var share []float64
	for i := range before {
		share = append(share, 100*(after[i].cpu-before[i].cpu).Seconds()/took.Seconds())
		m.SetDetail(r.cluster.nodes[i].ID, share[i])
	}
	m.Value = slices.Max(share)
	m.SetGoal("<= 5 %", m.Value <= 5)
	return nil
}

// size measures memory and disk of every node per token. The disk also holds the revoked pairs of
// the other measures. size adds a measure "memory" to the report and fills in m with the disk use.
func (r *run) size(ctx context.Context, m *report.Measure) error {
	if err := r.cluster.awaitIdle(ctx); err != nil {
		return err
	}
	now, err := r.uses()
	if err != nil {
		return err
	}
	tokens := float64(2 * r.used)
	var resident, disk, grown []float64
	for i, u := range now {
		resident = append(resident, float64(u.resident)/(1<<20))
		disk = append(disk, float64(u.disk)/tokens)
		if r.empty != nil {
			grown = append(grown, float64(u.resident-r.empty[i].resident)/tokens)
		}
	}
	mem := &report.Measure{Name: "memory", What: "resident memory of a node, the largest", Unit: "MiB"}
	mem.Value = slices.Max(resident)
	r.report.Measures = append(r.report.Measures, mem)
	mem.SetDetail("tokens_registered", 2*r.used)
	if len(grown) > 0 {
		mem.SetDetail("bytes_per_token_over_an_empty_node", slices.Max(grown))
	}
	mem.SetGoal("<= 1024", mem.Value <= 1024)
	m.Name, m.Value = "disk", slices.Max(disk)
	m.SetDetail("holds", "state, Raft log and snapshots: "+formatParts(now[0].parts))
	m.SetGoal("<= 200", m.Value <= 200)
	return nil
}

// formatParts formats the parts of a data directory, the largest first.
func formatParts(parts map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(parts), func(a, b string) int { return int(parts[b]>>10) - int(parts[a]>>10) })
	var words []string
	for _, name := range names {
		if parts[name] >= 1<<20 {
			words = append(words, fmt.Sprintf("%s %.1f MiB", name, float64(parts[name])/(1<<20)))
		}
	}
	if len(words) == 0 {
		return "less than 1 MiB"
	}
	return strings.Join(words, ", ")
}
