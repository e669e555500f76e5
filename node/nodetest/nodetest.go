package nodetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/api/clientauth"
	"revoked/api/serve"
	"revoked/node"
	"revoked/transport/pki"
)

// Secret is the secret of every client that the kit creates.
const Secret = "nodetest-secret-of-32-bytes-or-more"

// Options configure a cluster. The zero value is three nodes with API servers and without gossip.
// The functions Node and API get the number of the node, from 0. They are called before each start
// of a node.
type Options struct {
	Nodes    int
	Expect   int // bootstrap_expect; default Nodes
	Clients  []revoked.Client
	Node     func(k int, c *node.Config) // changes a node's configuration before each start
	API      func(k int, c *api.Config)
	NoWait   bool // return before the nodes are ready
	Signers  int  // number of nodes, from the first, that have the key of the CA
	LogLevel slog.Level
	Log      slog.Handler // log of the nodes and their API servers; default: discard
}

// A Cluster is a set of nodes in this process, numbered from 0. Only the goroutine of the test may
// call its methods, unless a method's comment allows other goroutines. A failure ends the test.
type Cluster struct {
	T       testing.TB
	Members []*Member
	HTTP    *http.Client // trusts the cluster's CA
	opts    Options
	dir     string
	ca      *pki.CA
	log     slog.Handler
}

// A Member is one node of a Cluster, running or not. After a restart, a member has the same
// addresses and the same directory, so the other members reach it again.
type Member struct {
	Node *node.Node // nil while stopped
	URL  string     // URL of the API
	ID   string
	Dir  string

	c        *Cluster
	k        int
	cluster  string // address of the cluster port, which stays the same across restarts
	apiAddr  string
	api      *api.API
	server   *serve.Server
	serving  chan struct{}
	Registry *prometheus.Registry
}

// Start creates a cluster, waits until every node can answer, and stops it when the test ends. The
// environment variable NODETEST_LOG sends the logs of the nodes to standard error.
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
	c := &Cluster{T: t, opts: o, dir: t.TempDir(), log: slog.DiscardHandler}
	switch {
	case o.Log != nil:
		c.log = o.Log
	case os.Getenv("NODETEST_LOG") != "":
		c.log = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.LogLevel})
	}
	var err error
	if c.ca, err = pki.NewCA("nodetest", time.Hour); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.ca.CertPEM())
	c.HTTP = &http.Client{
		Timeout:       LongStop,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: true,
		},
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

// Clients returns the clients of `revoked dev`: admin, issuer, resource_server, app and other_app.
// All have the secret Secret. They share one hash, because computing a hash takes most of the time
// that a test needs to start.
func Clients() []revoked.Client {
	hash := clientauth.HashSecret(Secret)
	make := func(id string, roles ...revoked.Role) revoked.Client {
		return revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles, Secrets: []revoked.SecretHash{hash},
			AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost}}
	}
	return []revoked.Client{
		make("admin", revoked.RoleAdmin), make("issuer", revoked.RoleIssuer),
		make("resource_server", revoked.RoleResourceServer), make("app"), make("other_app"),
	}
}

// Add creates a node that is not in the cluster yet. The caller starts the node and joins it to the
// cluster. The node has a certificate and a directory, but no admission.
func (c *Cluster) Add() *Member {
	c.T.Helper()
	return c.addMember()
}

// Admit admits a node to the cluster. It retries the request while the cluster has no leader.
func (c *Cluster) Admit(m *Member) {
	c.T.Helper()
	c.Until(m.ID+" is admitted", func() bool {
		r := c.Leader().JSON(http.MethodPost, "/v1/cluster/admit", "admin", fmt.Sprintf(`{"node":%q}`, m.ID))
		return r.Status == http.StatusOK || r.Status == http.StatusConflict // the node is a member
	})
}

// addMember creates the directory and the certificates of the next node. No node runs yet.
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

// issue writes the certificates of a node for its cluster port and its API.
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
	if m.k < c.opts.Signers {
		write("ca-key.pem", c.ca.KeyPEM())
	}
	write("node.pem", cert)
	write("node-key.pem", key)
	if cert, key, err = c.ca.IssueServer([]string{"127.0.0.1"}, time.Hour); err != nil {
		c.T.Fatal(err)
	}
	write("api.pem", cert)
	write("api-key.pem", key)
}

// Start runs the node on its data directory. It ends the test if the node does not start.
func (m *Member) Start() {
	m.c.T.Helper()
	if err := m.TryStart(); err != nil {
		m.c.T.Fatalf("start %s: %v", m.ID, err)
	}
}

// TryStart is like Start, but returns an error if the node does not start. After an error the node
// does not run and its ports are free. Errors of the kit itself end the test.
func (m *Member) TryStart() error {
	t := m.c.T
	log := slog.New(m.c.log).With("n", m.ID)
	path := func(name string) string { return filepath.Join(m.Dir, name) }
	certs, err := pki.LoadCerts(path("ca.pem"), path("node.pem"), path("node-key.pem"), log)
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t, m.cluster)
	settings := revoked.DefaultSettings()
	settings.LeaseDuration = 2 * time.Second // long enough that no lease expires on a busy machine
	m.Registry = prometheus.NewRegistry()
	conf := node.Config{
		NodeID: m.ID, Region: fmt.Sprintf("region%d", m.k%2+1), DataDir: path("data"),
		API: m.URL, Version: "test",
		Listener: listener, Certs: certs, BootstrapClients: m.c.opts.Clients, Log: log, Registerer: m.Registry,
		Defaults:         settings,
		HeartbeatTimeout: 500 * time.Millisecond, ElectionTimeout: 500 * time.Millisecond, StableTime: 300 * time.Millisecond,
		CacheSize: 8 << 20, StoreCacheSize: 8 << 20,
	}
	if m.k < m.c.opts.Signers {
		if conf.CAKey, err = pki.LoadSigner(certs, path("ca-key.pem")); err != nil {
			t.Fatal(err)
		}
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

// serve runs the API of the node, with TLS, on the same address as before a restart.
func (m *Member) serve(log *slog.Logger) {
	t := m.c.T
	conf := api.Config{
		Backend: m.Node, Log: log, Registerer: m.Registry, Gatherer: m.Registry, Issuer: "https://as.example",
		RequireHTTPS: true, RequirePost: true, MetricsOnAPI: true,
		MetricsNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Version: "test"}
	if f := m.c.opts.API; f != nil {
		f(m.k, &conf)
	}
	a, err := api.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	m.api = a
	cert, err := serve.LoadCertificate(filepath.Join(m.Dir, "api.pem"), filepath.Join(m.Dir, "api-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	m.server = serve.New(serve.Config{
		Listener: listen(t, m.apiAddr), TLS: serve.TLSConfig(cert, nil), Handler: a.Handler(), Log: log,
	})
	m.serving = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = m.server.Serve()
	}(m.serving)
}

// StopGracefully finishes the running requests and then stops the node, like the program on
// SIGTERM. It blocks until the last response has been sent, for at most LongStop.
func (m *Member) StopGracefully() {
	ctx, cancel := context.WithTimeout(context.Background(), LongStop)
	defer cancel()
	if err := m.server.Shutdown(ctx); err != nil {
		m.c.T.Errorf("shut down the API of %s: %v", m.ID, err)
	}
	m.Stop()
}

// Stop closes the node cleanly; the node stays a member. It blocks until all of its goroutines have
// ended. It does nothing for a stopped node.
func (m *Member) Stop() {
	if m.Node == nil {
		return
	}
	_ = m.server.Close()
	<-m.serving
	ctx, cancel := context.WithTimeout(context.Background(), LongStop)
	defer cancel()
	entries, end := context.WithTimeout(ctx, time.Second) // the test may have stopped the quorum
	defer end()
	m.api.Close(entries)
	if err := m.Node.Close(ctx); err != nil {
		m.c.T.Errorf("stop %s: %v", m.ID, err)
	}
	m.Node = nil
}

// Restart stops and starts the node, which keeps its addresses and its data.
func (m *Member) Restart() {
	m.c.T.Helper()
	m.Stop()
	m.Start()
}

// Wipe removes the data of the stopped node. At the next start, the node is another instance with
// the same node id.
func (m *Member) Wipe() {
	if err := os.RemoveAll(filepath.Join(m.Dir, "data")); err != nil {
		m.c.T.Fatal(err)
	}
}

// ClusterAddr returns the address of the cluster port. Only Move changes it.
func (m *Member) ClusterAddr() string { return m.cluster }

// Move changes the cluster address of the stopped node. The returned function restores the old
// address. The other members learn the new address when the node starts and announces it.
func (m *Member) Move() (back func()) {
	was := m.cluster
	m.cluster = freePort(m.c.T)
	return func() { m.cluster = was }
}

// stopAll stops every member, one after the other. Start registers it as a cleanup, so no test
// needs to call it.
func (c *Cluster) stopAll() {
	for _, m := range c.Members {
		m.Stop()
	}
	c.HTTP.CloseIdleConnections()
}

// Leader waits until a node reports that it leads, and returns it. The leader may change before the
// caller uses it: retry calls that depend on it.
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

// Follower returns a running node that does not lead. If several do not lead, it returns the one
// that was created first.
func (c *Cluster) Follower() *Member {
	c.T.Helper()
	leader := c.Leader()
	for _, m := range c.Members {
		if m.Node != nil && m != leader {
			return m
		}
	}
	c.T.Fatal("got no running follower, want one")
	return nil
}
