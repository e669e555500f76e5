package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// reloadTime is the pause between two looks at the files.
const reloadTime = 2 * time.Second

// A reloader takes over certificates and the log level, on SIGHUP and when their files change.
// Everything else needs a restart.
type reloader struct {
	flags *configFlags
	file  string // of the settings; empty: none
	files *serverFiles
	level *slog.LevelVar
	log   *slog.Logger
}

// run works until ctx ends.
func (r *reloader) run(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(reloadTime)
	defer tick.Stop()
	seen := stampOf(r.file)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			r.log.Info("SIGHUP: reloading certificates and log level")
			r.certificates()
			r.logLevel()
			seen = stampOf(r.file)
		case <-tick.C:
			if now := stampOf(r.file); now != seen {
				seen = now
				r.logLevel()
			}
		}
	}
}

func (r *reloader) certificates() {
	if err := r.files.certs.Reload(); err != nil {
		r.log.Error("cluster certificate not reloaded; the old one stays in use", "error", err)
	}
	if _, err := r.files.apiCert.Reload(); err != nil {
		r.log.Error("API certificate not reloaded; the old one stays in use", "error", err)
	}
}

// logLevel reads the settings again, for one of them.
func (r *reloader) logLevel() {
	cfg, err := r.flags.load(os.LookupEnv)
	if err != nil {
		r.log.Error("settings not reloaded", "error", err)
		return
	}
	if level := parseLevel(cfg.LogLevel); level != r.level.Level() {
		r.level.Set(level)
		r.log.Info("log level changed", "log_level", cfg.LogLevel)
	}
}

// A fileStamp changes when a file is replaced or written.
type fileStamp struct {
	modified time.Time
	size     int64
}

func stampOf(name string) fileStamp {
	if name == "" {
		return fileStamp{}
	}
	st, err := os.Stat(name)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{st.ModTime(), st.Size()}
}
