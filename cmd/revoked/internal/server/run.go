package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"revoked/cmd/revoked/internal/config"
	"revoked/transport/pki"
)

// CheckConfig loads the settings and every file that they name, and tries the addresses and the
// data directory. It prints warnings to stderr and a summary to stdout; the error lists every
// problem.
func CheckConfig(flags *config.Flags, stdout, stderr io.Writer) error {
	cfg, loaded, err := config.Load(flags)
	if err != nil {
		return err
	}
	if err := cfg.CheckStart(); err != nil {
		return err
	}
	warnings := append(cfg.Warnings(), loaded.Warnings...)
	if w := cfg.TempDirWarning(); w != "" {
		warnings = append(warnings, w)
	}
	for _, w := range warnings {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	fmt.Fprintf(stdout, "configuration is valid: node %s in region %s, API %s (%s), cluster %s (%s), gossip %s (%s), "+
		"data %s\n", cfg.NodeID, cfg.Region, cfg.APIAddr, cfg.APIAdvertise, cfg.ClusterAddr, cfg.ClusterAdvertise,
		cfg.GossipAddr, cfg.GossipAdvertise, cfg.DataDir)
	return nil
}

// A Stop decides when a node must stop. Its functions and channels may be nil.
type Stop struct {
	Begin   <-chan struct{} // closed when the shutdown begins
	Now     <-chan struct{} // closed to end shutdown_delay early
	Release func()          // called when Now no longer has an effect
}

// Run runs a node until stop begins, ctx ends or the node stops itself. It returns nil after a
// clean shutdown. It logs to stderr.
func Run(ctx context.Context, stop Stop, flags *config.Flags, build Build, stderr io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-stop.Begin:
			cancel()
		case <-ctx.Done():
		}
	}()
	hup := make(chan os.Signal, 1) // from here on, SIGHUP does not kill the process
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg, loaded, err := config.Load(flags)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(parseLevel(cfg.LogLevel))
	lines, recent := &lineWriter{to: stderr}, &recentLog{}
	defer lines.end()
	base := newLogger(io.MultiWriter(recent.ofOthers(), lines), cfg.LogFormat, level)
	log := base.With("node", cfg.NodeID)
	for _, w := range append(cfg.Warnings(), loaded.Warnings...) {
		log.Warn("suspicious configuration", "warning", w)
	}
	// Load ran before the log existed. So load the certificates again, with the log, which reports
	// their reload and expiry.
	if loaded.NeedsCertificate {
		if err := getCertificate(ctx, cfg, loaded, hup, log); err != nil || ctx.Err() != nil {
			return err
		}
	}
	if loaded.Certs, err = pki.LoadCerts(cfg.ClusterCA, cfg.ClusterCert, cfg.ClusterKey, log); err != nil {
		return err
	}
	if err := cfg.LoadSigner(loaded); err != nil {
		return err
	}
	s := &server{cfg: cfg, build: build, files: loaded, settings: cfg.Effective(), base: base, log: log,
		lines: lines, recent: recent, level: level}
	if err := s.open(ctx); err != nil {
		return s.ended(withAdvice(err))
	}
	reload := &reloader{flags: flags, file: cfg.File, files: loaded, level: level, log: log,
		auditLog: s.auditLog, hup: hup}
	s.background(reload.run)
	systemd := findSupervisor(log)
	s.background(systemd.run)
	log.Info("node is up", "version", build.Version, "region", cfg.Region,
		"data_dir", cfg.DataDir, "api", cfg.APIAdvertise, "cluster", cfg.ClusterAdvertise, "gossip", cfg.GossipAdvertise)
	systemd.report(stateReady)
	err = s.wait(ctx)
	lines.end() // another signal may kill the process
	systemd.report(stateStopping)
	if err == nil && ctx.Err() != nil {
		s.delay(stop.Now)
	}
	if stop.Release != nil {
		stop.Release()
	}
	return s.ended(err)
}

// delay makes the node unready and continues to serve for shutdown_delay, so that load balancers
// send their requests elsewhere. It returns early if now is closed or the node stops itself.
func (s *server) delay(now <-chan struct{}) {
	s.backend.stopping.Store(true)
	if s.cfg.ShutdownDelay == 0 {
		return
	}
	s.log.Info("no longer ready, still serving", "shutdown_delay", s.cfg.ShutdownDelay.Seconds())
	select {
	case <-time.After(s.cfg.ShutdownDelay):
	case <-now:
		s.log.Info("shutdown_delay ended by a second signal")
	case <-s.node.Done():
	case err := <-s.failed:
		s.log.Warn("listener failed", "error", err)
	}
}

// ended stops everything and returns the reason. If reason is not nil, an error of the shutdown is
// only logged: the user must see the reason last.
func (s *server) ended(reason error) error {
	err := s.stop()
	if reason == nil {
		return err
	}
	if err != nil {
		s.log.Warn("shutdown failed", "error", err)
	}
	return reason
}
