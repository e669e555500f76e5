package server

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"revoked/cmd/revoked/internal/auditlog"
	"revoked/cmd/revoked/internal/config"
	"revoked/internal/filewatch"
)

// reloadTime is the interval at which files are checked for changes.
const reloadTime = 2 * time.Second

// A reloader applies a new log level and new certificates on SIGHUP, and reopens audit_log. It also
// applies a new log level when the settings file changes. Every other setting needs a restart.
type reloader struct {
	flags *config.Flags
	file  string // configuration file; may be empty
	files *config.Files
	level *slog.LevelVar
	log   *slog.Logger
	hup   <-chan os.Signal

	auditLog *auditlog.Log // nil: audit_log is not set
}

func (r *reloader) run(ctx context.Context) {
	if r.file != "" {
		settings := filewatch.New(func([][]byte) error { return r.logLevel() }, r.file)
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			settings.Watch(ctx, reloadTime, func(_ bool, err error) { r.report("settings not reloaded", err) })
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hup:
			r.log.Info("reloading certificates and log level on SIGHUP")
			r.report("cannot reload cluster certificate; keeping the old one", r.files.Certs.Reload())
			_, err := r.files.APICert.Reload()
			r.report("cannot reload API certificate; keeping the old one", err)
			if r.auditLog != nil {
				r.log.Info("reopening audit_log on SIGHUP")
				r.auditLog.Reopen()
			}
			_, err = r.files.ClientCAs.Reload()
			r.report("cannot reload client CAs; keeping the old ones", err)
			r.report("settings not reloaded", r.logLevel())
		}
	}
}

func (r *reloader) report(problem string, err error) {
	if err != nil {
		r.log.Error(problem, "error", err)
	}
}

// logLevel reads the settings again and applies log_level.
func (r *reloader) logLevel() error {
	cfg, err := r.flags.Read(os.LookupEnv)
	if err != nil {
		return err
	}
	if level := parseLevel(cfg.LogLevel); level != r.level.Level() {
		r.level.Set(level)
		r.log.Info("log level changed", "log_level", cfg.LogLevel)
	}
	return nil
}

func newLogger(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func parseLevel(s string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(s)) // package config checked it
	return l
}
