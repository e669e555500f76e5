package nodetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/node"
	"revoked/transport"
)

// LongStop bounds every wait of the kit: what has not happened by then never will.
const LongStop = 60 * time.Second

// Secret is the secret of every client that the kit makes.
const Secret = "nodetest-secret-of-32-bytes-or-more"

// Options of a cluster. The zero value is three nodes, each with an API server and no gossip.
type Options struct {
	Nodes    int
	Expect   int // bootstrap_expect; default Nodes
	Clients  []revoked.Client
	Node     func(k int, c *node.Config) // changes a node's configuration before it starts
	API      func(k int, c *api.Config)
	NoWait   bool // do not wait until all are ready
	LogLevel slog.Level
	Log      slog.Handler // where the nodes and their API servers log; default: nowhere
}

// A Cluster is a number of nodes, numbered from 0.
type Cluster struct {
	T       testing.TB
	Members []*Member
	HTTP    *http.Client // trusts the cluster's CA

	opts Options
	dir  string
	ca   *transport.Authority
	log  slog.Handler
}

// A Member is one node of a Cluster, running or not.
type Member struct {
	Node *node.Node // nil while stopped
	URL  string     // of the API
	ID   string
	Dir  string

	c        *Cluster
	k        int
	cluster  string // address of the cluster port, kept over restarts
	apiAddr  string
	server   *api.Server
	serving  chan struct{}
	Registry *prometheus.Registry
}

// Start makes a cluster, waits until every node can answer, and stops it when the test ends.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Expect == 0 {
		o.Expect = o.Nodes
	}
	if o.Clients == nil {
		o.Clients = Clients()
	}
	c := &Cluster{T: t, opts: o, dir: t.TempDir()}
	c.log = slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: o.LogLevel})
	if os.Getenv("NODETEST_LOG") == "" {
		c.log = slog.DiscardHandler
	}
	if o.Log != nil {
		c.log = o.Log
	}
	var err error
	if c.ca, err = transport.NewAuthority("nodetest", time.Hour); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.ca.CertPEM())
	c.HTTP = &http.Client{
		Timeout:       LongStop,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true},
	}
	t.Cleanup(c.stopAll)
	for range o.Nodes {
		c.addMember()
	}
	for _, m := range c.Members {
		m.Start()
	}
	if !o.NoWait {
		c.WaitReady()
	}
	return c
}

// Clients are those of `revoked dev`: admin, issuer, resource_server, app, other_app; all with Secret.
func Clients() []revoked.Client {
	hash := api.HashSecret(Secret)
	make := func(id string, roles ...revoked.Role) revoked.Client {
		return revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles, Secrets: []revoked.SecretHash{hash},
			AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost}}
	}
	return []revoked.Client{
		make("admin", revoked.RoleAdmin), make("issuer", revoked.RoleIssuer),
		make("resource_server", revoked.RoleResourceServer), make("app"), make("other_app"),
	}
}

// Add makes one more node that is in no cluster; start and join it yourself.
func (c *Cluster) Add() *Member {
	c.T.Helper()
	return c.addMember()
}

func (c *Cluster) addMember() *Member {
	c.T.Helper()
	k := len(c.Members)
	m := &Member{c: c, k: k, ID: fmt.Sprintf("node%d", k+1), cluster: freePort(c.T), apiAddr: freePort(c.T)}
	m.URL = "https://" + m.apiAddr
	m.Dir = filepath.Join(c.dir, m.ID)
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		c.T.Fatal(err)
	}
	c.issue(m)
	c.Members = append(c.Members, m)
	return m
}

func (c *Cluster) issue(m *Member) {
	c.T.Helper()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(m.Dir, name), b, 0o600); err != nil {
			c.T.Fatal(err)
		}
	}
	cert, key, err := c.ca.IssueNode(m.ID, []string{"127.0.0.1"}, time.Hour)
	if err != nil {
		c.T.Fatal(err)
	}
	write("ca.pem", c.ca.CertPEM())
	write("node.pem", cert)
	write("node-key.pem", key)
	if cert, key, err = c.ca.IssueServer([]string{"127.0.0.1"}, time.Hour); err != nil {
		c.T.Fatal(err)
	}
	write("api.pem", cert)
	write("api-key.pem", key)
}

// handedOut are the addresses that freePort has returned.
var handedOut sync.Map

// freePort returns a loopback address that was free a moment ago, and each only once. It lies below the ports that
// the system hands out: a node finds it free again after a restart, whatever connections others open meanwhile.
func freePort(t testing.TB) string {
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 22_000+rand.IntN(10_000))
		if _, taken := handedOut.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			defer l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Start runs the node, in the directory of its last run.
func (m *Member) Start() {
	m.c.T.Helper()
	if err := m.TryStart(); err != nil {
		m.c.T.Fatalf("start %s: %v", m.ID, err)
	}
}

// TryStart is Start for a node that may be refused.
func (m *Member) TryStart() error {
	t := m.c.T
	log := slog.New(m.c.log).With("n", m.ID)
	certs, err := transport.LoadCerts(filepath.Join(m.Dir, "ca.pem"), filepath.Join(m.Dir, "node.pem"), filepath.Join(m.Dir, "node-key.pem"), log)
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t, m.cluster)
	m.Registry = prometheus.NewRegistry()
	conf := node.Config{
		NodeID: m.ID, Region: fmt.Sprintf("region%d", m.k%2+1), DataDir: filepath.Join(m.Dir, "data"), API: m.URL, Version: "test",
		Listener: listener, Certs: certs, BootstrapClients: m.c.opts.Clients, Log: log, Registerer: m.Registry,
		HeartbeatTimeout: 500 * time.Millisecond, ElectionTimeout: 500 * time.Millisecond, StableTime: 300 * time.Millisecond,
		CacheSize: 8 << 20, StoreCacheSize: 8 << 20,
	}
	if m.k < m.c.opts.Expect {
		conf.BootstrapExpect = m.c.opts.Expect
		for _, o := range m.c.Members[:m.c.opts.Expect] {
			conf.Join = append(conf.Join, o.cluster)
		}
	}
	if f := m.c.opts.Node; f != nil {
		f(m.k, &conf)
	}
	n, err := node.Open(context.Background(), conf)
	if err != nil {
		return err
	}
	m.Node = n
	m.serve(log)
	return nil
}

func (m *Member) serve(log *slog.Logger) {
	t := m.c.T
	conf := api.Config{Backend: m.Node, Log: log, Registerer: m.Registry, Gatherer: m.Registry, Issuer: "https://as.example",
		RequireHTTPS: true, RequirePost: true, MetricsOnAPI: true, Version: "test"}
	if f := m.c.opts.API; f != nil {
		f(m.k, &conf)
	}
	a, err := api.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := api.LoadCertificate(filepath.Join(m.Dir, "api.pem"), filepath.Join(m.Dir, "api-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	m.server = api.NewServer(api.ServerConfig{Listener: listen(t, m.apiAddr), TLS: api.TLSConfig(cert, nil), API: a, Log: log})
	m.serving = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		m.server.Serve()
	}(m.serving)
}

// listen takes a port again that the last life of a node may just have given back.
func listen(t testing.TB, addr string) net.Listener {
	deadline := time.Now().Add(LongStop)
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// StopGracefully lets requests finish before it stops the node, as the program does on SIGTERM.
func (m *Member) StopGracefully() {
	ctx, cancel := context.WithTimeout(context.Background(), LongStop)
	defer cancel()
	if err := m.server.Shutdown(ctx); err != nil {
		m.c.T.Errorf("shut down the API of %s: %v", m.ID, err)
	}
	m.Stop()
}

// Stop ends the node in order. It stays a member.
func (m *Member) Stop() {
	if m.Node == nil {
		return
	}
	m.server.Close()
	<-m.serving
	ctx, cancel := context.WithTimeout(context.Background(), LongStop)
	defer cancel()
	if err := m.Node.Close(ctx); err != nil {
		m.c.T.Errorf("stop %s: %v", m.ID, err)
	}
	m.Node = nil
}

// Restart stops and starts the node.
func (m *Member) Restart() {
	m.c.T.Helper()
	m.Stop()
	m.Start()
}

// Wipe throws the stopped node's data away.
func (m *Member) Wipe() {
	if err := os.RemoveAll(filepath.Join(m.Dir, "data")); err != nil {
		m.c.T.Fatal(err)
	}
}

// ClusterAddr is where peers reach the node.
func (m *Member) ClusterAddr() string { return m.cluster }

// Move gives the stopped node another cluster address, and returns how to give the old one back.
func (m *Member) Move() (back func()) {
	was := m.cluster
	m.cluster = freePort(m.c.T)
	return func() { m.cluster = was }
}

func (c *Cluster) stopAll() {
	for _, m := range c.Members {
		m.Stop()
	}
	c.HTTP.CloseIdleConnections()
}

// Until waits for ok to become true, looking often, and fails the test at the long stop.
func (c *Cluster) Until(what string, ok func() bool) {
	c.T.Helper()
	deadline := time.Now().Add(LongStop)
	for !ok() {
		if time.Now().After(deadline) {
			c.T.Fatalf("waited %v in vain until %s", LongStop, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// WaitReady waits until every running node can answer and revoke.
func (c *Cluster) WaitReady() {
	c.T.Helper()
	for _, m := range c.Members {
		if m.Node != nil {
			c.Until(m.ID+" is ready", func() bool { return m.Node.Readiness(context.Background()).CanAnswer })
		}
	}
}

// Leader waits for a leader that knows it, and returns it.
func (c *Cluster) Leader() *Member {
	c.T.Helper()
	var leader *Member
	c.Until("there is a leader", func() bool {
		for _, m := range c.Members {
			if m.Node == nil {
				continue
			}
			if st := m.Node.NodeStatus(context.Background()); st.State == "leader" && st.Leader.NodeID == m.ID {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// Follower returns a running node that does not lead.
func (c *Cluster) Follower() *Member {
	c.T.Helper()
	leader := c.Leader()
	for _, m := range c.Members {
		if m.Node != nil && m != leader {
			return m
		}
	}
	c.T.Fatal("no follower is running")
	return nil
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	os.Stderr.Write(p)
	return len(p), nil
}
