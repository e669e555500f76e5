package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/node"
)

// A server is one running node with its listeners. open wires it up, stop takes it apart in the
// reverse order.
type server struct {
	cfg   *config
	files *serverFiles
	log   *slog.Logger

	stderr io.Writer

	node    *node.Node
	face    *backend
	api     *api.Server
	metrics *api.Server // nil: on the API port

	cancel  context.CancelFunc // ends what runs in the background
	ctx     context.Context
	running sync.WaitGroup
	failed  chan error // a listener that ended by itself
}

// open starts everything. After an error stop must still be called.
func (s *server) open(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.failed = make(chan error, 2)
	memory := readMemory()
	limitHeap(memory)
	reg, err := newRegistry(s.cfg.NodeID, s.cfg.Region)
	if err != nil {
		return err
	}
	if err := bridgeMetrics(reg); err != nil {
		return err
	}
	// All ports first: a port that is taken is found before anything is written to the disk.
	ports, err := s.listen()
	if err != nil {
		return err
	}
	s.node, err = node.Open(ctx, s.nodeConfig(ports.cluster, memory.bytes(), reg))
	if err != nil {
		return errors.Join(err, ports.close())
	}
	s.face = &backend{Node: s.node}
	a, err := api.New(s.apiConfig(reg))
	if err != nil {
		return errors.Join(err, ports.close())
	}
	s.openServers(a, ports)
	s.background(func(ctx context.Context) { s.files.certs.Watch(ctx, reloadTime, nil) })
	s.background(func(ctx context.Context) { s.files.apiCert.Watch(ctx, reloadTime, s.apiCertChanged) })
	return nil
}

func (s *server) nodeConfig(cluster net.Listener, memory int64, reg *prometheus.Registry) node.Config {
	c := s.cfg
	return node.Config{
		NodeID: c.NodeID, Region: c.Region, DataDir: c.DataDir, API: c.APIAdvertise, Version: readVersion().Version,
		Listener: cluster, ClusterAdvertise: c.ClusterAdvertise, Certs: s.files.certs,
		GossipBind: c.GossipAddr, GossipAdvertise: c.GossipAdvertise, GossipKey: s.files.gossipKey,
		BootstrapExpect: c.BootstrapExpect, Join: c.Join, NonVoter: c.NonVoter, Rejoin: c.Rejoin,
		BootstrapClients: s.files.clients,
		Defaults: revoked.Settings{
			LeaseDuration: c.LeaseDuration, LateRegistrationWindow: c.LateRegistrationWindow,
			CutoffRetention: c.CutoffRetention, MaxClockSkew: c.MaxClockSkew, SecretGrace: c.SecretGrace,
		},
		HeartbeatTimeout: c.HeartbeatTimeout, ElectionTimeout: c.ElectionTimeout, RequestTimeout: c.RequestTimeout,
		CacheSize: cacheSize(c.CacheSize, memory), StoreCacheSize: cacheSize(c.StoreCacheSize, memory),
		Log: s.log, Registerer: reg, Now: time.Now, Crash: s.crash,
	}
}

// crash ends the program without an orderly stop: nothing can be stopped in order any more.
func (s *server) crash(err error) {
	fmt.Fprintf(s.stderr, "revoked: the node had to end: %v\n", withAdvice(err))
	os.Exit(exitFailed)
}

// withAdvice adds what an operator can do about an error of the disk.
func withAdvice(err error) error {
	// The store tells some of its errors as text only.
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w; free some space and start it again: nothing that was acknowledged is lost", err)
	}
	return err
}

func (s *server) apiConfig(reg *prometheus.Registry) api.Config {
	c := s.cfg
	return api.Config{
		Backend: s.face, Log: s.log, Registerer: reg, Gatherer: reg, Now: time.Now,
		Issuer: c.Issuer, MetadataExtra: c.MetadataExtra,
		RequireHTTPS: c.RequireHTTPS, RequirePost: c.RequirePost,
		CORSOrigins: c.CORSOrigins, TrustedProxies: c.TrustedProxies, CheckNetworks: c.CheckNetworks,
		MetricsOnAPI:          c.MetricsAddr == "",
		AuthFailuresPerMinute: c.AuthFailuresPerMinute, MissesPerSecond: c.MissesPerSecond,
		RequestTimeout: c.RequestTimeout, Version: readVersion().Version,
	}
}

// openServers begins to answer.
func (s *server) openServers(a *api.API, ports *serverPorts) {
	// Half of the time is for requests under way, the other for the node to hand over.
	drain := s.cfg.ShutdownTimeout / 2
	s.api = api.NewServer(api.ServerConfig{
		Listener: ports.api, TLS: api.TLSConfig(s.files.apiCert, s.files.clientCAs), API: a, Log: s.log, ShutdownTimeout: drain,
	})
	servers := []*api.Server{s.api}
	if ports.metrics != nil {
		s.metrics = api.NewServer(api.ServerConfig{
			Listener: ports.metrics, API: a, Handler: a.MetricsHandler(), Log: s.log, ShutdownTimeout: drain,
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

// background runs f until stop ends its context, and has stop wait for it.
func (s *server) background(f func(context.Context)) {
	s.running.Go(func() { f(s.ctx) })
}

// wait returns nil when ctx ends or the node has left, and an error when something broke.
func (s *server) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
		return nil
	case err := <-s.failed:
		return err
	case <-s.node.Done():
		if err := s.node.Err(); err != nil {
			return fmt.Errorf("the node had to end: %w", withAdvice(err))
		}
		s.log.Info("the node has left its cluster for good")
		return nil
	}
}

// stop takes everything apart within shutdown_timeout. First readiness, so that load balancers turn
// away; then the API, so that no request meets a node half closed; then the node, which hands over
// leadership and gives its lease back; last the metrics, which tell of all that. Membership stays.
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
	if s.face != nil {
		s.face.stopping.Store(true)
	}
	if s.api != nil {
		if err := s.api.Shutdown(ctx); err != nil {
			// Some request did not end in time, and was cut off; that is not a failed stop.
			s.log.Warn("requests were cut off", "error", err)
		}
	}
	if s.node != nil {
		errs = append(errs, s.node.Close(ctx))
	}
	if s.metrics != nil {
		errs = append(errs, s.metrics.Close())
	}
	s.cancel()
	s.running.Wait()
	return errors.Join(errs...)
}

func (s *server) apiCertChanged(err error) {
	if err != nil {
		s.log.Error("API certificate not reloaded; the old one stays in use", "error", err)
		return
	}
	s.log.Info("API certificate reloaded", "not_after", s.files.apiCert.NotAfter())
}

// A backend is the node as the API sees it: not ready as soon as the program is told to stop.
type backend struct {
	*node.Node
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

// serverPorts are the TCP ports of a node, bound.
type serverPorts struct{ api, cluster, metrics net.Listener }

func (p *serverPorts) close() error {
	var errs []error
	for _, l := range []net.Listener{p.api, p.cluster, p.metrics} {
		if l == nil {
			continue
		}
		// Whoever owned it meanwhile may have closed it.
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *server) listen() (*serverPorts, error) {
	var p serverPorts
	for _, l := range []struct {
		at        *net.Listener
		key, addr string
	}{{&p.api, "api_addr", s.cfg.APIAddr}, {&p.cluster, "cluster_addr", s.cfg.ClusterAddr}, {&p.metrics, "metrics_addr", s.cfg.MetricsAddr}} {
		if l.addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			return nil, errors.Join(s.listenError(l.key, l.addr, err), p.close())
		}
		*l.at = ln
	}
	// Gossip binds its own ports, but only once the node is in a cluster: too late to be told.
	for _, network := range []string{"tcp", "udp"} {
		if err := tryListen(network, s.cfg.GossipAddr); err != nil {
			return nil, errors.Join(s.listenError("gossip_addr", s.cfg.GossipAddr, err), p.close())
		}
	}
	return &p, nil
}

// listenError says which setting names an address that cannot be listened on.
func (s *server) listenError(key, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %s is in use by another process; stop that one or choose another port", s.cfg.where(key), addr)
	}
	return fmt.Errorf("%s: cannot listen on %s: %w", s.cfg.where(key), addr, err)
}
