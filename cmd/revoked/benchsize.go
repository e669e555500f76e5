package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A nodeUse is what one node takes of the machine.
type nodeUse struct {
	resident int64
	disk     int64
	parts    map[string]int64 // of disk, by first name below the data directory
	cpu      time.Duration
}

// uses returns what every node takes.
func (r *benchRun) uses() ([]nodeUse, error) {
	var all []nodeUse
	for _, n := range r.cluster.dev.Nodes {
		if n.PID == 0 {
			return nil, fmt.Errorf("the process of %s is not known", n.ID)
		}
		var u nodeUse
		var err error
		if u.resident, err = residentBytes(n.PID); err != nil {
			return nil, err
		}
		if u.cpu, err = processorTime(n.PID); err != nil {
			return nil, err
		}
		if u.disk, u.parts, err = diskBytes(n.Data); err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// idle measures the processor time of nodes that are asked nothing, once they have done with starting.
func (r *benchRun) idle(ctx context.Context) error {
	const settle, watch = 3 * time.Second, 10 * time.Second
	if err := pause(ctx, settle); err != nil {
		return err
	}
	before, err := r.uses()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := pause(ctx, watch); err != nil {
		return err
	}
	after, err := r.uses()
	if err != nil {
		return err
	}
	took := time.Since(start)
	var share []float64
	m := &benchMeasure{Name: "idle", What: "an idle node, the busiest", Unit: "% of a core"}
	for i := range before {
		share = append(share, 100*(after[i].cpu-before[i].cpu).Seconds()/took.Seconds())
		m.detail(r.cluster.dev.Nodes[i].ID, share[i])
	}
	m.Value = slices.Max(share)
	m.goal("<= 5 %", m.Value <= 5)
	r.add(m)
	return nil
}

// size measures memory and disk of every node by token, dead pairs of the other measures included in
// what is on disk.
func (r *benchRun) size(ctx context.Context) error {
	if err := r.cluster.settle(ctx); err != nil {
		return err
	}
	now, err := r.uses()
	if err != nil {
		return err
	}
	tokens := float64(2 * r.used)
	var resident, disk, grown []float64
	var parts map[string]int64
	for i, u := range now {
		resident = append(resident, float64(u.resident)/(1<<20))
		disk = append(disk, float64(u.disk)/tokens)
		if r.empty != nil {
			grown = append(grown, float64(u.resident-r.empty[i].resident)/tokens)
		}
		if i == 0 {
			parts = u.parts
		}
	}
	mem := r.add(&benchMeasure{Name: "memory", What: "resident memory of a node, the largest", Unit: "MiB", Value: slices.Max(resident)})
	mem.detail("tokens_registered", 2*r.used)
	if len(grown) > 0 {
		mem.detail("bytes_per_token_over_an_empty_node", slices.Max(grown))
	}
	mem.goal("<= 1024", mem.Value <= 1024)
	d := r.add(&benchMeasure{Name: "disk", What: "disk of a node by token registered, the largest", Unit: "bytes", Value: slices.Max(disk)})
	d.detail("holds", "state, Raft log and snapshots: "+wordParts(parts))
	d.goal("<= 200", d.Value <= 200)
	return nil
}

// wordParts words the parts of a data directory, the largest first.
func wordParts(parts map[string]int64) string {
	names := make([]string, 0, len(parts))
	for name := range parts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(parts[b]>>10) - int(parts[a]>>10) })
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
