package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"revoked"
)

// reclaimAfter is how long a name must be dead before it may appear at another address.
const reclaimAfter = 30 * time.Second

// lookupTimeout bounds the lookup of a host name in Bind and Advertise.
const lookupTimeout = 5 * time.Second

// A Config is what gossip needs. NodeID, Instance, ClusterID, Bind and Key are required.
type Config struct {
	NodeID    string
	Instance  string // drawn with the data directory
	Region    string
	ClusterID string // nodes of another cluster are not heard
	Bind      string // host:port for TCP and UDP; port 0 takes a free one; no host means every interface
	Advertise string // host:port that others use; empty: the address bound to
	Key       []byte // KeySize bytes, the same on every node
	API       string // URL of this node's API
	Cluster   string // host:port of this node's cluster port
	Version   string
	Log       *slog.Logger
	WAN       bool          // slower and with smaller packets, for links between regions
	JoinEvery time.Duration // between attempts to reach peers that are missing; default 30 s
	// Peers returns gossip addresses of the members that Raft knows, to find them again after a
	// long partition: gossip alone forgets the dead. Nil: none.
	Peers func(ctx context.Context) []string
}

// Gossip is a running node of the gossip. All methods may be called at once.
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

// Start binds and begins to gossip. It reaches nobody before Join, or before Peers names somebody.
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
	list, err := memberlist.Create(mc)
	if err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gossip{cfg: cfg, log: cfg.Log, list: list, book: book, cancel: cancel}
	if cfg.Peers != nil {
		g.wg.Go(func() { g.rejoin(ctx) })
	}
	return g, nil
}

// Addr returns host:port at which others reach this node's gossip.
func (g *Gossip) Addr() string {
	n := g.list.LocalNode()
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// Members returns the nodes that were heard of, this one included, sorted by node id; dead ones stay
// with Alive false.
func (g *Gossip) Members() []Peer { return g.book.members() }

// Join contacts the gossip addresses (host:port) and returns how many answered; an error when none
// did.
func (g *Gossip) Join(addrs []string) (int, error) {
	n, err := g.list.Join(addrs)
	if err != nil {
		return n, fmt.Errorf("gossip join: %w (reachable over TCP and UDP? same gossip key, same cluster?)", err)
	}
	return n, nil
}

// Leave tells the others that this node goes on purpose, and waits until they were told or timeout
// is over. Close must follow.
func (g *Gossip) Leave(timeout time.Duration) error {
	if err := g.list.Leave(timeout); err != nil {
		return fmt.Errorf("gossip leave: %w", err)
	}
	return nil
}

// Health returns 0 when this node's own view is sound, more when it misses answers that it should
// get, at most 7.
func (g *Gossip) Health() int { return g.list.GetHealthScore() }

// Close ends gossip without a farewell and waits for what it started. Safe twice.
func (g *Gossip) Close() error {
	g.once.Do(func() {
		g.cancel()
		g.err = g.list.Shutdown()
	})
	g.wg.Wait()
	return g.err
}

// rejoin looks for members that gossip does not see.
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
		// One at a time: Close waits for one attempt, not for all of them.
		if _, err := g.list.Join([]string{addr}); err != nil {
			g.log.Debug("gossip: member not reached", "addr", addr, "err", err)
		}
	}
}

// memberlist returns the library's configuration.
func (cfg Config) memberlist() (*memberlist.Config, *peerBook, error) {
	if !plain(cfg.NodeID) || !plain(cfg.Instance) {
		return nil, nil, fmt.Errorf("%w: node id %q and instance %q must be 1 to 64 of A-Z a-z 0-9 . _ -",
			revoked.ErrInvalid, cfg.NodeID, cfg.Instance)
	}
	if cfg.ClusterID == "" || len(cfg.ClusterID) > memberlist.LabelMaxSize {
		return nil, nil, errors.New("a cluster id of 1 to 255 bytes is needed")
	}
	if len(cfg.Key) != KeySize {
		return nil, nil, fmt.Errorf("%w: %d bytes, want %d", ErrBadKey, len(cfg.Key), KeySize)
	}
	own, err := meta{region: cfg.Region, api: cfg.API, cluster: cfg.Cluster, version: cfg.Version}.encode()
	if err != nil {
		return nil, nil, err
	}
	mc := memberlist.DefaultLANConfig()
	if cfg.WAN {
		mc = memberlist.DefaultWANConfig()
		mc.UDPBufferSize = 1200 // tunnels between regions drop what is longer, silently
	}
	mc.TCPTimeout = min(mc.TCPTimeout, 5*time.Second) // Close waits for a join that is under way
	mc.Name = gossipName(cfg.NodeID, cfg.Instance)
	mc.Label = cfg.ClusterID
	mc.SecretKey = cfg.Key
	mc.GossipVerifyIncoming, mc.GossipVerifyOutgoing = true, true
	mc.EnableCompression = false // the decompressor has no bound in this version
	mc.DeadNodeReclaimTime = reclaimAfter
	mc.Logger = newLogBridge(cfg.Log).logger()
	book := newPeerBook(own)
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

// resolve splits host:port and looks the host up: memberlist wants an IP address.
func resolve(hostport, noHost string) (ip string, port int, err error) {
	host, p, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", 0, fmt.Errorf("want host:port, got %q", hostport)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not 0 to 65535", p)
	}
	if host == "" {
		host = noHost
	}
	if host == "" {
		return "", 0, fmt.Errorf("%q names no host", hostport)
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
