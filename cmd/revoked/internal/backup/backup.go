package backup

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"revoked"
	"revoked/cmd/revoked/internal/backup/schedule"
	"revoked/internal/retry"
)

// A Source is the part of *node.Node that backups need.
type Source interface {
	// Snapshot writes a backup to w. The backup has every change that was acknowledged before the
	// call. After an error, w holds only a part of the backup.
	Snapshot(ctx context.Context, w io.Writer) error
	// NodeStatus returns the node's own view. Only ClusterID and Healthy are read.
	NodeStatus(ctx context.Context) revoked.NodeStatus
}

// Config has the settings of backups.
type Config struct {
	Source   Source
	NodeID   string
	Schedule schedule.Schedule
	Dir      string // must exist
	Keep     int    // number of backups to keep, at least 1

	// Free returns the free bytes of the file system of Dir, or 0 if they are unknown. It is nil
	// unless the data of the node is on the same file system. In that case, a backup leaves free space
	// for the node.
	Free func() int64

	Bucket    *BucketConfig     // nil: no copies in a bucket
	Transport http.RoundTripper // carries requests to the bucket; nil: the network

	Log     *slog.Logger
	Metrics *Metrics
	Now     func() time.Time
}

// Backups makes the backups of one node.
type Backups struct {
	cfg    Config
	dir    *folder
	bucket *bucket // nil: no copies in a bucket
	tasks  []*task
}

// New prepares the backups; Run makes them. The only file that New reads is the CA of the bucket.
func New(cfg Config) (*Backups, error) {
	b := &Backups{cfg: cfg, dir: &folder{dir: cfg.Dir, node: cfg.NodeID, keep: cfg.Keep, free: cfg.Free, log: cfg.Log}}
	dir := &task{b: b, target: targetDir, save: b.saveToDir, find: b.dir.newest}
	b.tasks = []*task{dir}
	if cfg.Bucket != nil {
		var err error
		if b.bucket, err = newBucket(*cfg.Bucket, cfg.Transport, cfg.Now); err != nil {
			return nil, fmt.Errorf("backup_s3_endpoint: %w", err)
		}
		dir.saved = make(chan struct{}, 1)
		b.tasks = append(b.tasks, &task{b: b, target: targetS3, save: b.upload, find: b.newestUploaded, source: dir})
	}
	return b, nil
}

const (
	joinPause  = time.Second // pause between two checks whether the node is in a cluster
	leasePause = time.Minute // longest wait for the node's lease before the first backup
)

// Run makes backups until ctx ends. It waits until the node is in a cluster.
func (b *Backups) Run(ctx context.Context) {
	cluster := b.awaitCluster(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	for _, t := range b.tasks {
		running.Go(func() { t.run(ctx, cluster) })
	}
}

// awaitCluster waits until the node is in a cluster and has had time to catch up. It returns the id
// of the cluster, or "" if ctx ends.
func (b *Backups) awaitCluster(ctx context.Context) string {
	for waited := time.Duration(0); ; {
		st := b.cfg.Source.NodeStatus(ctx)
		if st.ClusterID != "" && (st.Healthy || waited >= leasePause) {
			return st.ClusterID
		}
		if retry.Sleep(ctx, joinPause) != nil {
			return ""
		}
		if st.ClusterID != "" {
			waited += joinPause
		}
	}
}

func (b *Backups) saveToDir(ctx context.Context, _ string) (File, error) {
	return b.dir.save(ctx, b.cfg.Source, b.cfg.Now())
}

// Status returns the state of every target. It never blocks for long.
func (b *Backups) Status() []revoked.BackupStatus {
	var all []revoked.BackupStatus
	for _, t := range b.tasks {
		age := time.Duration(-1)
		if last := t.newest(); last.Name != "" {
			age = max(0, b.cfg.Now().Sub(last.At))
		}
		all = append(all, revoked.BackupStatus{Target: t.target, Age: age})
	}
	return all
}
