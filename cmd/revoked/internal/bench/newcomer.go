package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"revoked/client"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
)

// longest is how long one step with a large state may take.
const longest = 30 * time.Minute

// extra prepares the k-th additional node of the cluster, without starting it.
func (r *run) extra(k int, join []string) (*cluster, error) {
	hosts, err := devfolder.Hosts(nil, len(r.cluster.nodes)+k, true)
	if err != nil {
		return nil, err
	}
	n, err := devfolder.Folder{Dir: r.dir, Hosts: hosts, APIPort: r.opts.APIPort}.AddNode(join)
	if err != nil {
		return nil, fmt.Errorf("prepare one more node: %w", err)
	}
	dev := *r.cluster.Cluster
	dev.Nodes = []devcluster.Node{n}
	return newCluster(&dev)
}

// join measures how long a new node takes until it answers from the whole state, while pairs are
// revoked at a steady rate. Afterwards the node leaves.
func (r *run) join(ctx context.Context, m *report.Measure) error {
	const slowest = 20_000 // pairs a second that a node receives
	ended, err := r.fresh(ctx, besideRate*(60+r.used/slowest))
	if err != nil {
		return err
	}
	var addresses []string
	for _, n := range r.cluster.nodes {
		addresses = append(addresses, n.Cluster)
	}
	newcomer, err := r.extra(1, addresses)
	if err != nil {
		return err
	}
	defer newcomer.stop()
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return err
	}
	if _, err := r.cluster.Client("admin", leader).Admit(ctx, client.Admission{Node: newcomer.nodes[0].ID}); err != nil {
		return err
	}
	_, losses, err := r.forwardedReads(ctx)
	if err != nil {
		return err
	}
	beside := r.revocations(ended.each, true)
	beside.Connections, beside.PerSecond = 63, besideRate
	revoking, err := beside.Start(ctx)
	if err != nil {
		return err
	}
	took, err := r.bringUp(ctx, m, newcomer)
	revoked := revoking.Stop()
	if err != nil {
		return err
	}
	_, lossesAfter, err := r.forwardedReads(ctx)
	if err != nil {
		return err
	}
	m.Tally.Add(revoked.Tally)
	m.Value = took.Seconds()
	m.SetDetail("tokens", 2*r.used)
	m.SetDetail("revocations_per_second", revoked.Rate())
	m.SetDetail("revocation_p99_ms", report.LatencyOf(&revoked.Latency).P99)
	m.SetDetail("leases_lost", lossesAfter-losses)
	m.SetGoal("no lease lost, nothing fails", lossesAfter == losses && m.Failures == 0)
	_, err = newcomer.Client("admin", 0).Leave(ctx)
	return err
}

// bringUp starts the node of c, waits until it is ready, and introspects active tokens there.
func (r *run) bringUp(ctx context.Context, m *report.Measure, c *cluster) (took time.Duration, err error) {
	started := time.Now()
	defer r.reportProgress(m.Name, func() string {
		return fmt.Sprintf("%s is not ready after %.0f s", c.nodes[0].ID, time.Since(started).Seconds())
	})()
	if err := c.Start(0); err != nil {
		return 0, err
	}
	if err := c.awaitReady(ctx, 0, longest); err != nil {
		return 0, err
	}
	took = time.Since(started)
	conn, err := c.target(0, true).Dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	const asked = 100
	for k := range uint64(asked) {
		status, answer, err := conn.Do(r.introspection(), form(r.tokens.access(), k*(r.opts.Pairs/asked)))
		if err != nil {
			return 0, err
		}
		if !isActive(status, answer) {
			m.Fail(load.Describe(status, answer))
		}
	}
	return took, nil
}

// backup measures how long a backup takes, a restore of it, and the start of the restored node.
func (r *run) backup(ctx context.Context, m *report.Measure) error {
	file := filepath.Join(r.dir, "backup.snap")
	node, err := r.idleFollower(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	size, err := r.save(ctx, node, file)
	if err != nil {
		return err
	}
	saved := time.Since(begun)
	r.say(m.Name, "saved %d MiB in %.1f s", size>>20, saved.Seconds())
	restored, err := r.extra(2, nil)
	if err != nil {
		return err
	}
	defer restored.stop()
	begun = time.Now()
	if err := restore(ctx, file, restored.nodes[0]); err != nil {
		return err
	}
	filled := time.Since(begun)
	r.say(m.Name, "restored in %.1f s", filled.Seconds())
	ready, err := r.bringUp(ctx, m, restored)
	if err != nil {
		return err
	}
	m.Value = (saved + filled + ready).Seconds()
	m.SetDetail("tokens", 2*r.used)
	m.SetDetail("backup_s", saved.Seconds())
	m.SetDetail("backup_mib", float64(size)/(1<<20))
	m.SetDetail("restore_s", filled.Seconds())
	m.SetDetail("restored_node_ready_s", ready.Seconds())
	return nil
}

// save writes a backup from a node to file, and syncs it. The restore verifies it.
func (r *run) save(ctx context.Context, node int, file string) (size int64, err error) {
	body, _, err := r.cluster.Client("admin", node).Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(f, body)
	return size, errors.Join(err, f.Sync(), f.Close())
}

// restore fills the data directory of n from a backup, with this program.
func restore(ctx context.Context, file string, n devcluster.Node) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, exe, "snapshot", "restore", file, "--data-dir", n.Data, "--node-id", n.ID,
		"--accept-loss", "--reason", "bench").CombinedOutput()
	if err != nil {
		return fmt.Errorf("restore the backup: %w: %s", err, cli.Clean(string(out)))
	}
	return nil
}
