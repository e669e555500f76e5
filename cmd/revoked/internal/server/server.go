package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/api/serve"
	"revoked/cmd/revoked/internal/auditlog"
	"revoked/cmd/revoked/internal/backup"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/traces"
	"revoked/node"
	"revoked/node/certify"
)

// A server is one running node with its listeners. open starts the parts, stop stops them in
// reverse order.
type server struct {
	cfg   *config.Config
	build Build
	files *config.Files

	base     *slog.Logger       // logger for the node, which adds its id itself
	log      *slog.Logger       // base with the id of the node
	settings []config.Effective // as of the start, so that a request touches no file
	lines    *lineWriter        // output of all loggers
	recent   *recentLog         // newest lines of all loggers
	level    *slog.LevelVar

	limits   portLimits
	auditLog *auditlog.Log                // nil: audit_log is not set
	local    atomic.Pointer[auditlog.Log] // auditLog, once it is open; calls may come before that

	traces *traces.Traces // nil: traces_endpoint is not set

	endBackups func() // stops the scheduled backups; nil: no backups are scheduled

	node    *node.Node
	backend *backend
	handler *api.API
	api     *serve.Server // serves handler
	metrics *serve.Server // nil: the API port serves the metrics

	cancel  context.CancelFunc // stops the background goroutines
	ctx     context.Context
	running sync.WaitGroup
	failed  chan error // error of a listener that stopped unexpectedly
}

// open starts all parts. The caller must call stop, even after an error.
func (s *server) open(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.failed = make(chan error, 2)
	memory := readMemory()
	limitHeap(memory)
	s.limits = limitsOf(s.cfg, memory.bytes())
	reg, err := NewRegistry(s.build, s.cfg.NodeID, s.cfg.Region)
	if err != nil {
		return err
	}
	if err := bridgeMetrics(reg); err != nil {
		return err
	}
	if err := s.openTraces(reg); err != nil {
		return err
	}
	// Open the ports first: a conflict must be found before anything is written to the disk.
	ports, err := listen(s.cfg)
	if err != nil {
		return err
	}
	s.node, err = node.Open(ctx, s.nodeConfig(ports.cluster, memory.bytes(), reg))
	if err != nil {
		return errors.Join(err, ports.close())
	}
	s.backend = &backend{Node: s.node}
	if s.backend.backups, err = s.newBackups(reg); err != nil {
		return errors.Join(err, ports.close())
	}
	a, err := api.New(s.apiConfig(reg))
	if err != nil {
		return errors.Join(err, ports.close())
	}
	s.handler = a
	s.openServers(a, ports, reg)
	s.startBackups()
	reg.MustRegister(s.files.APICert.Metric())
	s.background(func(ctx context.Context) { s.files.APICert.Watch(ctx, reloadTime, s.apiCertChanged, s.apiCertExpires) })
	s.background(func(ctx context.Context) { s.files.ClientCAs.Watch(ctx, reloadTime, s.clientCAsChanged) })
	return s.openAuditLog(reg) // the servers own the ports now
}

// openTraces starts to export spans, if traces_endpoint is set.
func (s *server) openTraces(reg *prometheus.Registry) error {
	metrics, err := traces.NewMetrics(reg)
	c := s.cfg
	if err != nil || c.TracesEndpoint == "" {
		return err
	}
	s.traces, err = traces.Open(traces.Config{
		Endpoint: c.TracesEndpoint, CAFile: c.TracesCAFile, Sample: c.TracesSample,
		NodeID: c.NodeID, Region: c.Region, Version: s.build.Version, Log: s.log, Metrics: metrics,
	})
	return err
}

// openAuditLog starts to write audit_log, if it is set.
func (s *server) openAuditLog(reg *prometheus.Registry) error {
	metrics, err := auditlog.NewMetrics(reg)
	if err != nil {
		return err
	}
	path := s.cfg.AuditLog
	switch path {
	case "":
		return nil
	case config.Stderr:
		path = ""
	}
	start := s.node.NodeStatus(s.ctx).AppliedIndex
	if s.auditLog, err = auditlog.New(path, s.lines, s.backend, s.log, metrics); err == nil {
		s.local.Store(s.auditLog)
		s.background(func(ctx context.Context) { s.auditLog.Run(ctx, start) })
	}
	return err
}

func (s *server) nodeConfig(cluster net.Listener, memory int64, reg *prometheus.Registry) node.Config {
	c := s.cfg
	proxy, _ := c.JWKSProxyURL() // package config has checked it
	var renew *certify.Files
	if c.OwnCertificate {
		files := certificateFiles(c)
		renew = &files
	}
	return node.Config{
		CAKey: s.files.CAKey, Renew: renew,
		KeyFetch: node.KeyFetchConfig{CAFile: c.JWKSCAFile, Allow: c.JWKSAllowNetworks, Proxy: proxy},
		NodeID:   c.NodeID, Region: c.Region, DataDir: c.DataDir, API: c.APIAdvertise, Version: s.build.Version,
		Listener: cluster, ClusterAdvertise: c.ClusterAdvertise, Certs: s.files.Certs,
		GossipBind: c.GossipAddr, GossipAdvertise: c.GossipAdvertise, GossipKey: s.files.GossipKey,
		BootstrapExpect: c.BootstrapExpect, Join: c.Join, JoinToken: s.files.JoinToken,
		NonVoter: c.NonVoter, Rejoin: c.Rejoin,
		BootstrapClients: s.files.Clients,
		Defaults:         c.Replicated,
		HeartbeatTimeout: c.HeartbeatTimeout, ElectionTimeout: c.ElectionTimeout, RequestTimeout: c.RequestTimeout,
		CacheSize: cacheSize(c.CacheSize, memory), StoreCacheSize: cacheSize(c.StoreCacheSize, memory),
		Log: s.base, Registerer: reg, Now: time.Now, Crash: s.crash,
		LocalAudit: s.auditLocally, Tracer: s.traces.Tracer(),
	}
}

// auditLocally writes an entry of a node that is not in a cluster to audit_log, if it is open.
func (s *server) auditLocally(e revoked.AuditEntry) {
	if l := s.local.Load(); l != nil {
		l.Local(e)
	}
}

// crash ends the program immediately. The node calls it when a clean shutdown is impossible.
func (s *server) crash(err error) {
	s.lines.end()
	fmt.Fprintf(s.lines, "revoked: the node stopped: %v\n", withAdvice(err))
	os.Exit(cli.ExitFailed)
}

// withAdvice adds advice for the operator about a full disk.
func withAdvice(err error) error {
	// Some errors of the store do not wrap the system error.
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w; free some space and start it again: no acknowledged change is lost", err)
	}
	return err
}

func (s *server) apiConfig(reg *prometheus.Registry) api.Config {
	c := s.cfg
	return api.Config{
		Backend: s.backend, Log: s.requestLog(s.lines), RequestLog: s.requestLog(s.lines.later()),
		Registerer: reg, Gatherer: reg, Now: time.Now,
		Issuer: c.Issuer, MetadataExtra: c.MetadataExtra, ClientCAs: s.files.ClientCAs.Pool,
		RequireHTTPS: c.RequireHTTPS, RequirePost: c.RequirePost,
		CORSOrigins: c.CORSOrigins, TrustedProxies: c.TrustedProxies, CheckNetworks: c.CheckNetworks,
		MetricsOnAPI: c.MetricsAddr == "", MetricsNetworks: c.MetricsNetworks,
		Profiles: c.Pprof, Console: c.Console, NodeID: c.NodeID, RecentLog: s.recent.text, EffectiveConfig: s.effective,
		AuthFailuresPerMinute: c.AuthFailuresPerMinute, MissesPerSecond: c.MissesPerSecond,
		FeedLimit: c.FeedLimit, FeedLimitPerClient: c.FeedLimitPerClient,
		BulkLimit: c.BulkLimit, BulkLimitPerClient: c.BulkLimitPerClient,
		TempDir: c.TempDir, SpoolLimit: c.SpoolLimit, SpoolLimitPerRequest: c.SpoolLimitPerRequest,
		PublicRevocationsPerMinute: c.PublicRevocationsPerMinute,
		RequestTimeout:             c.RequestTimeout, Version: s.build.Version,
		MaxRequestsPerClient: s.limits.perClient,
		Tracer:               s.traces.Tracer(), TraceNetworks: c.TracesNetworks,
	}
}

// requestLog returns a logger for the lines of requests, which must not displace other recent
// lines.
func (s *server) requestLog(to io.Writer) *slog.Logger {
	return newLogger(io.MultiWriter(s.recent.ofRequests(), to), s.cfg.LogFormat, s.level).With("node", s.cfg.NodeID)
}

// An effectiveConfig is the configuration that this process runs with, as administrators see it.
type effectiveConfig struct {
	NodeID   string             `json:"node_id"`
	Build    Build              `json:"build"`
	Settings []config.Effective `json:"settings"`
}

// effective returns the configuration without secrets, as it was at the start. Only the log level
// may have changed since.
func (s *server) effective() any {
	settings := slices.Clone(s.settings)
	for i := range settings {
		if settings[i].Key == "log_level" {
			settings[i].Value = strings.ToLower(s.level.Level().String())
		}
	}
	return effectiveConfig{s.cfg.NodeID, s.build, settings}
}

// retireTime is the longest time for which responses have "Connection: close" before the API's
// listener closes. A connection that is in use closes within that time without a lost request.
const retireTime = time.Second

func (s *server) openServers(a *api.API, ports *serverPorts, reg *prometheus.Registry) {
	// Open requests get one half of the time. The node gets the other half, to transfer leadership
	// and return its lease.
	drain := s.cfg.ShutdownTimeout / 2
	s.api = serve.New(serve.Config{
		Listener: ports.api, TLS: serve.TLSConfig(s.files.APICert, s.files.ClientCAs), Handler: a.Handler(), Log: s.log,
		RequestTimeout: s.cfg.RequestTimeout, ShutdownTimeout: drain,
		Registerer: reg, TrustedProxies: s.cfg.TrustedProxies,
		MaxConns: s.limits.conns, MaxConnsPerAddress: s.limits.connsPerAddress,
		MaxRequests: s.limits.requests, MaxRequestsPerAddress: s.limits.requestsPerAddress,
		RetireTime: min(s.cfg.ShutdownDelay, retireTime, drain/2),
	})
	servers := []*serve.Server{s.api}
	if ports.metrics != nil {
		s.metrics = serve.New(serve.Config{
			Listener: ports.metrics, Handler: a.MetricsHandler(), Log: s.log,
			RequestTimeout: s.cfg.RequestTimeout, ShutdownTimeout: drain,
		})
		servers = append(servers, s.metrics)
	}
	for _, srv := range servers {
		s.running.Go(func() {
			if err := srv.Serve(); err != nil {
				s.failed <- err
			}
		})
	}
}

// background runs f in a goroutine. stop ends its context and waits for it.
func (s *server) background(f func(context.Context)) {
	s.running.Go(func() { f(s.ctx) })
}

// wait returns nil when ctx ends or the node has left its cluster. It returns the error of a part
// that fails.
func (s *server) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
		return nil
	case err := <-s.failed:
		return err
	case <-s.node.Done():
		if err := s.node.Err(); err != nil {
			return fmt.Errorf("the node stopped: %w", withAdvice(err))
		}
		s.log.Info("node has left its cluster")
		return nil
	}
}

// stop stops all parts within shutdown_timeout, which begins after shutdown_delay. It first makes
// the node unready, so that load balancers stop sending requests. It then stops the API, so that no
// request meets a half-closed node. The node then transfers leadership and returns its lease. The
// metrics listener closes last, so it can show the shutdown. The node stays a member.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.stopParts(ctx) }()
	select {
	case err := <-done:
		if err == nil && s.api != nil {
			s.log.Info("stopped")
		}
		return err
	case <-time.After(s.cfg.ShutdownTimeout + time.Second):
		return fmt.Errorf("not stopped within shutdown_timeout, %v; the node's data is safe", s.cfg.ShutdownTimeout)
	}
}

func (s *server) stopParts(ctx context.Context) error {
	var errs []error
	drain, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout/2)
	defer cancel()
	if s.backend != nil {
		s.backend.stopping.Store(true)
	}
	if s.api != nil {
		if err := s.api.Shutdown(ctx); err != nil {
			s.log.Warn("requests interrupted by shutdown", "error", err)
		}
		s.handler.Close(drain)
	}
	if s.endBackups != nil {
		s.endBackups()
	}
	if s.node != nil {
		errs = append(errs, s.node.Close(ctx))
	}
	if s.metrics != nil {
		errs = append(errs, s.metrics.Close())
	}
	s.cancel()
	s.running.Wait()
	s.traces.Close()
	return errors.Join(errs...)
}

func (s *server) apiCertChanged(err error) {
	if err != nil {
		s.log.Error("cannot reload API certificate; keeping the old one", "error", err)
		return
	}
	s.log.Info("API certificate reloaded", "not_after", s.files.APICert.NotAfter())
}

func (s *server) apiCertExpires(left time.Duration) {
	s.log.Warn("API certificate expires soon", "file", s.cfg.APICert, "not_after", s.files.APICert.NotAfter(),
		"left_seconds", left.Seconds())
}

func (s *server) clientCAsChanged(err error) {
	if err != nil {
		s.log.Error("cannot reload client CAs; keeping the old ones", "error", err)
		return
	}
	s.log.Info("client CAs reloaded")
}

// A backend adapts the node to the API. It reports that the node is not ready once the server has
// begun to stop.
type backend struct {
	*node.Node
	backups  *backup.Backups // nil: no backups are scheduled
	stopping atomic.Bool
}

var _ api.Backend = (*backend)(nil)

func (b *backend) Readiness(ctx context.Context) revoked.Readiness {
	r := b.Node.Readiness(ctx)
	if b.stopping.Load() {
		r.CanAnswer, r.CanRevoke = false, false
		r.Reasons = append(r.Reasons, "stopping")
	}
	return r
}
