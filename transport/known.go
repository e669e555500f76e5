package transport

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"revoked/internal/retry"
	"revoked/internal/slots"
)

const (
	knownEvery    = 10 * time.Second // time between reads of Config.Known
	lookupTimeout = 2 * time.Second  // limit for the lookup of one host name
	maxLearned    = 256              // number of addresses of authenticated peers
)

// known holds the source addresses for which half of the slots are reserved. These are the
// addresses of the hosts in Config.Known and of recently authenticated peers. An address proves
// nothing; it only determines which connections wait.
type known struct {
	list func() []string
	log  *slog.Logger

	mu      sync.Mutex
	hosts   map[string][]netip.Addr  // addresses, by host in Config.Known
	learned map[netip.Addr]time.Time // time of the last handshake, by address
}

func newKnown(cfg Config) *known {
	return &known{
		list: cfg.Known, log: cfg.Log, hosts: map[string][]netip.Addr{}, learned: map[netip.Addr]time.Time{},
	}
}

// run reads Config.Known and looks up its hosts until ctx ends. Without Config.Known only learned
// addresses are known.
func (k *known) run(ctx context.Context) {
	for k.list != nil && ctx.Err() == nil {
		k.refresh(ctx)
		_ = retry.Sleep(ctx, knownEvery)
	}
}

// refresh looks up the listed hosts. If the lookup of a host fails, its previous addresses are
// kept. So members stay known while a name server fails. It may block for lookupTimeout for each
// host.
func (k *known) refresh(ctx context.Context) {
	fresh := make(map[string][]netip.Addr)
	for _, hostport := range k.list() {
		host, _, err := net.SplitHostPort(hostport)
		if err != nil {
			continue
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			fresh[host] = []netip.Addr{slots.Network(ip)}
			continue
		}
		if ips := lookup(ctx, host); len(ips) > 0 {
			fresh[host] = ips
			continue
		}
		k.mu.Lock()
		fresh[host] = k.hosts[host]
		k.mu.Unlock()
	}
	k.mu.Lock()
	changed := len(fresh) != len(k.hosts)
	for host := range fresh {
		if _, ok := k.hosts[host]; !ok {
			changed = true
		}
	}
	k.hosts = fresh
	k.mu.Unlock()
	if changed {
		k.log.Debug("known addresses of the cluster port changed", "hosts", len(fresh))
	}
}

// lookup returns the networks of the addresses of a host, or nil if the host has no address or the
// lookup fails.
func lookup(ctx context.Context, host string) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	for i, ip := range ips {
		ips[i] = slots.Network(ip)
	}
	return ips
}

// has reports whether the source of a connection is known. It is called for each connection before
// anything is read, so it looks up no name.
func (k *known) has(from net.Addr) bool {
	source := slots.Source(from)
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.learned[source]; ok {
		return true
	}
	for _, ips := range k.hosts {
		for _, ip := range ips {
			if ip == source {
				return true
			}
		}
	}
	return false
}

// learn records the address of an authenticated peer. Beyond maxLearned it forgets the least
// recently used address.
func (k *known) learn(from net.Addr) {
	source := slots.Source(from)
	if !source.IsValid() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.learned[source] = time.Now()
	if len(k.learned) <= maxLearned {
		return
	}
	oldest := source
	for ip, at := range k.learned {
		if at.Before(k.learned[oldest]) {
			oldest = ip
		}
	}
	delete(k.learned, oldest)
}
