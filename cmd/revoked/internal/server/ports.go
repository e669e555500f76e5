package server

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"revoked/cmd/revoked/internal/config"
)

// serverPorts are the TCP listeners of a node.
type serverPorts struct{ api, cluster, metrics net.Listener }

func (p *serverPorts) close() error {
	var errs []error
	for _, l := range []net.Listener{p.api, p.cluster, p.metrics} {
		if l == nil {
			continue
		}
		// The server that used the listener may have closed it.
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// listen opens all TCP listeners and checks that gossip can bind its ports.
func listen(cfg *config.Config) (*serverPorts, error) {
	var p serverPorts
	for _, l := range []struct {
		at        *net.Listener
		key, addr string
	}{
		{&p.api, "api_addr", cfg.APIAddr}, {&p.cluster, "cluster_addr", cfg.ClusterAddr},
		{&p.metrics, "metrics_addr", cfg.MetricsAddr},
	} {
		if l.addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			return nil, errors.Join(listenError(cfg, l.key, l.addr, err), p.close())
		}
		*l.at = ln
	}
	// Gossip binds its own ports, but only once the node is in a cluster. Report a conflict now.
	for _, network := range []string{"tcp", "udp"} {
		if err := config.TryListen(network, cfg.GossipAddr); err != nil {
			return nil, errors.Join(listenError(cfg, "gossip_addr", cfg.GossipAddr, err), p.close())
		}
	}
	return &p, nil
}

func listenError(cfg *config.Config, key, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: %s is in use by another process; stop it or choose another port", cfg.Place(key), addr)
	}
	return fmt.Errorf("%s: cannot listen on %s: %w", cfg.Place(key), addr, err)
}
