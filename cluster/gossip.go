package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"revoked"
)

// reclaimAfter is the time after which a failed node may reappear at another address. Without it a
// node that moved would stay invisible until memberlist forgets the old address.
const reclaimAfter = 30 * time.Second

// lookupTimeout limits the lookup of a host name in Bind and Advertise. It bounds how long Start
// can block.
const lookupTimeout = 5 * time.Second

// Config configures Start. NodeID, Instance, ClusterID, Bind and Key are required.
type Config struct {
	NodeID    string
	Instance  string // instance of the data directory
	Region    string
	ClusterID string // nodes of other clusters are ignored
	Bind      string // host:port for TCP and UDP; port 0: any free port; no host: every interface
	Advertise string // host:port for other nodes; empty: the bound address
	Key       []byte // KeySize bytes, the same on every node
	API       string // URL of this node's API
	Cluster   string // host:port of this node's cluster port
	Version   string
	Log       *slog.Logger
	Metrics   *Metrics      // may be nil
	WAN       bool          // slower, with smaller packets, for links between regions
	JoinEvery time.Duration // time between attempts to reach missing peers; default 30 s
	// Peers returns gossip addresses of the members in Raft's configuration. Without it gossip, which
	// forgets failed nodes, would not find them after a long partition. It may be nil.
	Peers func(ctx context.Context) []string
}

// Gossip is a running gossip node. All methods may be called concurrently.
type Gossip struct {
	cfg  Config
	log  *slog.Logger
	list *memberlist.Memberlist
	book *peerBook

	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

// Start binds the port and starts gossip. It contacts the addresses of Config.Peers in the
// background, so a node that reaches no peer runs and finds peers later. After an error the port is
// free again.
func Start(cfg Config) (*Gossip, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.JoinEvery == 0 {
		cfg.JoinEvery = 30 * time.Second
	}
	mc, book, err := cfg.memberlist()
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	opener, err := newOpener(cfg.Key, cfg.ClusterID)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	guard, err := newGuard(mc, opener, cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	mc.Transport = guard
	list, err := memberlist.Create(mc)
	if err != nil {
		_ = guard.Shutdown()
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gossip{cfg: cfg, log: cfg.Log, list: list, book: book, cancel: cancel}
	if cfg.Peers != nil {
		g.wg.Go(func() { g.rejoin(ctx) })
	}
	return g, nil
}

// Addr returns the host:port of this node's gossip for other nodes.
func (g *Gossip) Addr() string {
	n := g.list.LocalNode()
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// Members returns the known nodes, this one included, sorted by node id. Failed nodes have Alive
// false. The caller owns the slice. A node appears once, even if several instances are known.
func (g *Gossip) Members() []Peer { return g.book.members() }

// Join contacts the gossip addresses (host:port) and returns how many answered. It returns an error
// if none answered. It blocks for up to a TCP timeout for each address.
func (g *Gossip) Join(addrs []string) (int, error) {
	n, err := g.list.Join(addrs)
	if err != nil {
		return n, fmt.Errorf("gossip join: %w (reachable over TCP and UDP? same gossip key, same cluster?)", err)
	}
	return n, nil
}

// Leave announces that this node leaves, and waits until the announcement is sent or timeout has
// passed. The caller must then call Close. If a node closes without Leave, the others suspect it
// and list it as alive for several more seconds.
func (g *Gossip) Leave(timeout time.Duration) error {
	if err := g.list.Leave(timeout); err != nil {
		return fmt.Errorf("gossip leave: %w", err)
	}
	return nil
}

// Close stops gossip without an announcement and waits for its goroutines. It is safe to call
// twice. It waits for at most one attempt to join, which ends with the TCP timeout.
func (g *Gossip) Close() error {
	g.once.Do(func() {
		g.cancel()
		g.err = g.list.Shutdown()
	})
	g.wg.Wait()
	return g.err
}

// rejoin contacts members that gossip does not list, every JoinEvery. So a partition heals even if
// both sides have forgotten each other.
func (g *Gossip) rejoin(ctx context.Context) {
	tick := time.NewTicker(g.cfg.JoinEvery)
	defer tick.Stop()
	for {
		g.joinMissing(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// joinMissing tries each address once. Failures are expected while a member is down, so they are
// logged at the debug level.
func (g *Gossip) joinMissing(ctx context.Context) {
	seen := map[string]bool{g.Addr(): true}
	for _, p := range g.Members() {
		if p.Alive {
			seen[p.Gossip] = true
		}
	}
	for _, addr := range g.cfg.Peers(ctx) {
		if ctx.Err() != nil {
			return
		}
		if seen[addr] {
			continue
		}
		// One address per call, so that Close waits for at most one attempt.
		if _, err := g.list.Join([]string{addr}); err != nil {
			g.log.Debug("cannot reach gossip member", "addr", addr, "error", err)
		}
	}
}

// memberlist returns the configuration of the library. It validates cfg first.
func (cfg Config) memberlist() (*memberlist.Config, *peerBook, error) {
	if revoked.CheckNodeID(cfg.NodeID) != nil || revoked.CheckNodeID(cfg.Instance) != nil {
		return nil, nil, fmt.Errorf("%w: invalid node id or instance "+
			"(got %q and %q, want 1 to 64 characters of A-Z a-z 0-9 . _ -)",
			revoked.ErrInvalid, cfg.NodeID, cfg.Instance)
	}
	if cfg.ClusterID == "" || len(cfg.ClusterID) > memberlist.LabelMaxSize {
		return nil, nil, fmt.Errorf("cluster id: invalid length (got %d bytes, want 1 to %d)", len(cfg.ClusterID),
			memberlist.LabelMaxSize)
	}
	if len(cfg.Key) != KeySize {
		return nil, nil, fmt.Errorf("%w (got %d bytes, want %d)", ErrBadKey, len(cfg.Key), KeySize)
	}
	own, err := meta{region: cfg.Region, api: cfg.API, cluster: cfg.Cluster, version: cfg.Version}.encode()
	if err != nil {
		return nil, nil, err
	}
	mc := memberlist.DefaultLANConfig()
	if cfg.WAN {
		mc = memberlist.DefaultWANConfig()
		mc.UDPBufferSize = 1200 // tunnels between regions silently drop longer packets
	}
	mc.TCPTimeout = min(mc.TCPTimeout, 5*time.Second) // Close waits for a join in progress
	mc.Name = gossipName(cfg.NodeID, cfg.Instance)
	mc.Label = cfg.ClusterID
	mc.SecretKey = cfg.Key
	mc.GossipVerifyIncoming, mc.GossipVerifyOutgoing = true, true
	mc.EnableCompression = false // the decompressor has no limit; the guard refuses compressed messages
	mc.DeadNodeReclaimTime = reclaimAfter
	mc.Logger = newLogger(cfg.Log)
	book := newPeerBook(own, cfg.Metrics)
	mc.Delegate, mc.Events, mc.Alive = book, book, book
	if mc.BindAddr, mc.BindPort, err = resolve(cfg.Bind, "0.0.0.0"); err != nil {
		return nil, nil, fmt.Errorf("bind address: %w", err)
	}
	mc.AdvertisePort = mc.BindPort
	if cfg.Advertise != "" {
		if mc.AdvertiseAddr, mc.AdvertisePort, err = resolve(cfg.Advertise, ""); err != nil {
			return nil, nil, fmt.Errorf("advertised address: %w", err)
		}
	}
	return mc, book, nil
}

// resolve splits host:port and resolves the host, because memberlist needs an IP address. noHost
// replaces an empty host; if noHost is empty too, a host is required. If the host has several
// addresses, resolve returns the first.
func resolve(hostport, noHost string) (ip string, port int, err error) {
	host, p, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", 0, fmt.Errorf("invalid address (got %q, want host:port)", hostport)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("invalid port (got %q, want 0 to 65535)", p)
	}
	if host == "" {
		host = noHost
	}
	if host == "" {
		return "", 0, fmt.Errorf("host is missing (got %q)", hostport)
	}
	if net.ParseIP(host) != nil {
		return host, int(n), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return "", 0, fmt.Errorf("look up %q: %w", host, err)
	}
	return addrs[0].IP.String(), int(n), nil
}
