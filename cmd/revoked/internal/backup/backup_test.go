package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/cmd/revoked/internal/backup"
	"revoked/cmd/revoked/internal/backup/schedule"
	"revoked/fsm/snapshot"
)

// golden returns a snapshot from the tests of package fsm, and its header.
func golden(t *testing.T) ([]byte, snapshot.Header) {
	t.Helper()
	data, err := os.ReadFile("../../../../fsm/testdata/snapshot-1")
	if err != nil {
		t.Fatal(err)
	}
	h, err := snapshot.Verify(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return data, h
}

// A node is a source of backups.
type node struct {
	cluster string
	joined  time.Time
	write   func(ctx context.Context, w io.Writer) error
	calls   []time.Duration // times of the calls of Snapshot, since begin
	begin   time.Time
}

func (n *node) NodeStatus(context.Context) revoked.NodeStatus {
	if time.Now().Before(n.joined) {
		return revoked.NodeStatus{}
	}
	return revoked.NodeStatus{ClusterID: n.cluster, Healthy: true}
}

func (n *node) Snapshot(ctx context.Context, w io.Writer) error {
	n.calls = append(n.calls, time.Since(n.begin))
	return n.write(ctx, w)
}

// writes returns the write function of a node that always has the same backup.
func writes(data []byte) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// A bench is a directory and a node that makes backups in it, in virtual time.
type bench struct {
	dir    string
	node   *node
	cfg    backup.Config
	reg    *prometheus.Registry
	log    bytes.Buffer
	status []revoked.BackupStatus // status at the end of the newest run
}

func newBench(t *testing.T) *bench {
	t.Helper()
	data, h := golden(t)
	b := &bench{dir: t.TempDir(), node: &node{cluster: h.ClusterID, write: writes(data)}}
	turns, err := schedule.Parse("1h")
	if err != nil {
		t.Fatal(err)
	}
	b.cfg = backup.Config{Source: b.node, NodeID: "node1", Schedule: turns, Dir: b.dir, Keep: 3, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(&b.log, nil))}
	return b
}

// run makes backups for some virtual time. It must be called in a bubble of synctest.
func (b *bench) run(t *testing.T, d time.Duration) {
	t.Helper()
	b.reg = prometheus.NewRegistry()
	var err error
	if b.cfg.Metrics, err = backup.NewMetrics(b.reg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	made, err := backup.New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	b.node.begin, b.node.calls = time.Now(), nil
	go func() {
		defer close(done)
		made.Run(ctx)
	}()
	time.Sleep(d)
	synctest.Wait()
	b.status = made.Status()
	cancel()
	<-done
}

// metric returns the value of a metric for the target "dir", or -1 if there is no series.
func (b *bench) metric(t *testing.T, name string) float64 { return b.metricOf(t, name, "dir") }

func (b *bench) metricOf(t *testing.T, name, target string) float64 {
	t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && m.Label[0].GetValue() == target {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// nameAt returns the name that the golden backup gets if it is made at the given time.
func nameAt(t *testing.T, at time.Time) string {
	t.Helper()
	_, h := golden(t)
	return fmt.Sprintf("revoked-%s-%s-%d.snap", at.UTC().Format("20060102T150405.000Z"), h.ClusterID, h.Index)
}

func put(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRun_ManyBackups_KeepsNewestAndForeignFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		start := time.Now()
		foreign := []string{".revoked-backup-node1-x-7.tmp", ".revoked-backup-node12-7.tmp", "notes.txt",
			"revoked-19990101T000000.000Z-othercluster-7.snap", "revoked-19990101T000000Z-" + b.node.cluster + "-7.snap",
			nameAt(t, start.Add(-time.Minute)) + ".gz"}
		for _, name := range foreign {
			put(t, b.dir, name)
		}
		folder := strings.Replace(nameAt(t, start.Add(-time.Hour)), "-", "-", 1)
		if err := os.Mkdir(filepath.Join(b.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, b.dir, ".revoked-backup-node1-123.tmp") // left by a killed process
		b.run(t, 5*time.Hour+time.Minute)
		want := append(foreign, folder)
		for _, h := range []time.Duration{3, 4, 5} {
			want = append(want, nameAt(t, start.Add(h*time.Hour)))
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, names(t, b.dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		newest := filepath.Join(b.dir, nameAt(t, start.Add(5*time.Hour)))
		got, err := os.ReadFile(newest)
		data, _ := golden(t)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("got %d bytes, %v, want the backup", len(got), err)
		}
		if st, err := os.Stat(newest); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
		}
		for name, want := range map[string]float64{
			"revoked_backup_last_success_timestamp_seconds": float64(start.Add(5 * time.Hour).Unix()),
			"revoked_backup_due_timestamp_seconds":          float64(start.Add(6 * time.Hour).Unix()),
			"revoked_backup_size_bytes":                     float64(len(data)),
		} {
			if got := b.metric(t, name); got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		if want := []revoked.BackupStatus{{Target: "dir", Age: time.Minute}}; !slices.Equal(b.status, want) {
			t.Errorf("status: got %v, want %v", b.status, want)
		}
	})
}

// A failure leaves the older backups, and no half-written file. The next attempts follow with
// growing pauses. After a success, the schedule applies again.
func TestRun_Failures_KeepsOlderAndRetries(t *testing.T) {
	data, _ := golden(t)
	damaged := slices.Clone(data)
	damaged[len(damaged)/2] ^= 1
	for name, write := range map[string]func(context.Context, io.Writer) error{
		"no leader": func(context.Context, io.Writer) error { return revoked.ErrNotCurrent },
		"broken off": func(_ context.Context, w io.Writer) error {
			return errors.Join(writes(data[:len(data)/2])(nil, w), errors.New("disk failed"))
		},
		"cut off":      writes(data[:len(data)-1]),
		"damaged":      writes(damaged),
		"with garbage": writes(append(slices.Clone(data), 0)),
		"empty":        writes(nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.cfg.Keep = 1
				start := time.Now()
				good := b.node.write
				b.node.write = func(ctx context.Context, w io.Writer) error {
					if n := len(b.node.calls); n > 1 && n < 6 {
						return write(ctx, w)
					}
					return good(ctx, w)
				}
				b.run(t, time.Hour+time.Minute)
				if got, want := names(t, b.dir), []string{nameAt(t, start)}; !slices.Equal(got, want) {
					t.Errorf("while it fails: got %v, want %v", got, want)
				}
				if got := b.metric(t, "revoked_backup_failures_total"); got != 4 {
					t.Errorf("got %v failures, want 4", got)
				}
				if got := b.metric(t, "revoked_backup_due_timestamp_seconds"); got != float64(start.Add(time.Hour).Unix()) {
					t.Errorf("got due %v, want %v", got, start.Add(time.Hour).Unix())
				}
				if !strings.Contains(b.log.String(), "level=ERROR msg=\"backup failed; older backups are kept\" target=dir error=") {
					t.Errorf("got log %s, want the failure", &b.log)
				}
				b.node.write = good
				b.run(t, time.Minute) // after a restart: a backup was missed
				if got, want := names(t, b.dir), []string{nameAt(t, start.Add(time.Hour+time.Minute))}; !slices.Equal(got, want) {
					t.Errorf("after the failures: got %v, want %v", got, want)
				}
			})
		})
	}
}

func TestRun_Failures_PausesGrowUpToSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		turns, err := schedule.Parse("*/12 * * * *")
		if err != nil {
			t.Fatal(err)
		}
		b.cfg.Schedule = turns
		b.node.write = writes(nil)
		b.run(t, 18*time.Minute)
		var got []string
		for _, c := range b.node.calls {
			got = append(got, c.String())
		}
		// The bubble begins at midnight. The pause of 5 minutes ends early, at the scheduled time of 12
		// minutes.
		want := []string{"0s", "5s", "15s", "35s", "1m15s", "2m35s", "5m15s", "10m15s", "12m0s", "17m0s"}
		if !slices.Equal(got, want) {
			t.Errorf("got attempts at %v, want %v", got, want)
		}
	})
}

// Backups on the disk of the node's data leave space for the node's log.
func TestRun_SharedDiskNearlyFull_LeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var free atomic.Int64
		free.Store(100 << 20)
		b.cfg.Free = free.Load
		b.run(t, time.Second)
		const reason = "no space left on device: 100 MiB are left"
		if got := names(t, b.dir); len(got) > 0 || !strings.Contains(b.log.String(), reason) {
			t.Errorf("got %v and log %s, want no file and the reason", got, &b.log)
		}
		free.Store(1 << 30)
		b.run(t, time.Second)
		if got := names(t, b.dir); len(got) != 1 {
			t.Errorf("got %v, want a backup", got)
		}
	})
}

// After a restart, the schedule continues from the newest backup on the disk.
func TestRun_Restarted_ContinuesSchedule(t *testing.T) {
	for name, tt := range map[string]struct {
		newest time.Duration // age of the newest backup at the start
		want   []time.Duration
	}{
		"half an hour ago":        {30 * time.Minute, []time.Duration{30 * time.Minute, 90 * time.Minute}},
		"missed backups":          {30 * time.Hour, []time.Duration{0, time.Hour}},
		"made by a clock in 2099": {-73 * 8766 * time.Hour, []time.Duration{time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.cfg.Keep = 1
				put(t, b.dir, nameAt(t, time.Now().Add(-tt.newest)))
				b.run(t, 100*time.Minute)
				if !slices.Equal(b.node.calls, tt.want) {
					t.Errorf("got backups at %v, want %v", b.node.calls, tt.want)
				}
				last := nameAt(t, b.node.begin.Add(tt.want[len(tt.want)-1]))
				if got := names(t, b.dir); !slices.Equal(got, []string{last}) {
					t.Errorf("got %v, want %s", got, last)
				}
			})
		})
	}
}

func TestRun_NodeWithoutCluster_Waits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.node.joined = time.Now().Add(10 * time.Minute)
		b.run(t, 11*time.Minute)
		if want := []time.Duration{10 * time.Minute}; !slices.Equal(b.node.calls, want) {
			t.Errorf("got backups at %v, want %v", b.node.calls, want)
		}
		if got := b.metric(t, "revoked_backup_failures_total"); got > 0 {
			t.Errorf("got %v failures, want none", got)
		}
	})
}

func TestRun_StoppedDuringBackup_LeavesNoFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.node.write = func(ctx context.Context, w io.Writer) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		b.run(t, time.Second)
		if got := names(t, b.dir); len(got) > 0 || strings.Contains(b.log.String(), "failed") {
			t.Errorf("got %v and log %s, want neither", got, &b.log)
		}
	})
}

func TestRun_DirectoryMissing_FailsUntilItExists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if err := os.Remove(b.dir); err != nil {
			t.Fatal(err)
		}
		b.run(t, 6*time.Second)
		if got := b.metric(t, "revoked_backup_failures_total"); got != 2 {
			t.Errorf("got %v failures, want 2", got)
		}
		if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want no directory: its disk may not be mounted", err)
		}
		if err := os.Mkdir(b.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		b.run(t, time.Second)
		if got := names(t, b.dir); len(got) != 1 {
			t.Errorf("got %v, want a backup", got)
		}
	})
}
