package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/cmd/revoked/internal/backup"
	"revoked/cmd/revoked/internal/backup/schedule"
	"revoked/cmd/revoked/internal/config"
)

// newBackups returns the scheduled backups, or nil if there is no schedule.
func (s *server) newBackups(reg *prometheus.Registry) (*backup.Backups, error) {
	metrics, err := backup.NewMetrics(reg)
	if err != nil || s.cfg.BackupSchedule == "" {
		return nil, err
	}
	turns, err := schedule.Parse(s.cfg.BackupSchedule)
	if err != nil {
		return nil, err
	}
	cfg := backup.Config{
		Source: s.node, NodeID: s.cfg.NodeID, Schedule: turns, Dir: s.cfg.BackupDir, Keep: s.cfg.BackupKeep,
		Log: s.log, Metrics: metrics, Now: time.Now,
	}
	if s.cfg.SharesDisk() {
		cfg.Free = func() int64 { return config.FreeBytes(s.cfg.BackupDir) }
	}
	if s.cfg.BackupS3Endpoint != "" {
		cfg.Bucket = &backup.BucketConfig{
			Endpoint: s.cfg.BackupS3Endpoint, Bucket: s.cfg.BackupS3Bucket, Prefix: s.cfg.BackupS3Prefix,
			Region: s.cfg.BackupS3Region, PathStyle: s.cfg.BackupS3PathStyle, CAFile: s.cfg.BackupS3CAFile,
			AccessKeyFile: s.cfg.BackupS3AccessKeyFile, SecretKeyFile: s.cfg.BackupS3SecretKeyFile,
		}
	}
	return backup.New(cfg)
}

// startBackups starts the scheduled backups. They must stop before the node closes.
func (s *server) startBackups() {
	if s.backend.backups == nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	s.running.Go(func() {
		defer close(done)
		s.backend.backups.Run(ctx)
	})
	s.endBackups = func() {
		cancel()
		<-done
	}
}

// NodeStatus returns the status of the node, and adds the backups, which the node's own status
// lacks.
func (b *backend) NodeStatus(ctx context.Context) revoked.NodeStatus {
	st := b.Node.NodeStatus(ctx)
	if b.backups != nil {
		st.Backups = b.backups.Status()
	}
	return st
}
