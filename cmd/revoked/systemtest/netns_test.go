//go:build system

package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A network has a network namespace for each node, and one for the clients and the bridge to the
// nodes. Cuts are between nodes; clients reach all nodes.
type network struct {
	*cluster
	hub   string
	hosts map[*member]string   // namespace of each node
	links map[[2]*member]*link // for connections from the first to the second, see putLinks
}

const (
	networkPort    = 8443
	networkAddress = "10.77.0." // node k has address 10.77.0.k
)

// startNetwork creates n hosts, starts a node on each and waits until all are ready.
func startNetwork(t *testing.T, n int) *network {
	t.Helper()
	w := newNetwork(t, n)
	w.startAll(t)
	w.awaitReady(t, w.Nodes...)
	return w
}

// newNetwork creates n hosts and starts no node.
func newNetwork(t *testing.T, n int) *network {
	t.Helper()
	needRoot(t, "network namespaces")
	need(t, "ip")
	need(t, "nft")
	name := fmt.Sprintf("rv%x", rand.Uint32()&0xffffff)
	w := &network{hub: name + "-hub", hosts: map[*member]string{}}
	w.addHost(t, w.hub)
	mustTool(t, "ip", "-n", w.hub, "link", "add", "bridge", "type", "bridge")
	mustTool(t, "ip", "-n", w.hub, "addr", "add", networkAddress+"254/24", "dev", "bridge")
	mustTool(t, "ip", "-n", w.hub, "link", "set", "bridge", "up")
	var addresses, hosts []string
	for k := 1; k <= n; k++ {
		host, address, plug := fmt.Sprintf("%s-%d", name, k), networkAddress+strconv.Itoa(k), fmt.Sprintf("to%d", k)
		w.addHost(t, host)
		mustTool(t, "ip", "-n", w.hub, "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", host)
		mustTool(t, "ip", "-n", w.hub, "link", "set", plug, "master", "bridge", "up")
		mustTool(t, "ip", "-n", host, "addr", "add", address+"/24", "dev", "eth0")
		mustTool(t, "ip", "-n", host, "link", "set", "eth0", "up")
		addresses, hosts = append(addresses, address), append(hosts, host)
	}
	dir := realDir(t)
	code, out, messages := runProgram(t, nil, "", "dev", "--init-only", "--dir", dir, "--hosts",
		strings.Join(addresses, ","), "--api-port", strconv.Itoa(networkPort))
	if code != 0 {
		t.Fatalf("dev --init-only: got exit code %d, want 0: %s%s", code, out, messages)
	}
	w.cluster = readCluster(t, dir)
	w.t = t
	t.Cleanup(func() { w.atEnd(t) })
	for k, m := range w.Nodes {
		w.hosts[m] = hosts[k]
		m.client.Transport.(*http.Transport).DialContext = dialFrom(w.hub)
		m.within = []string{"ip", "netns", "exec", hosts[k]}
	}
	return w
}

// addHost creates a namespace that test cleanup removes.
func (w *network) addHost(t *testing.T, name string) {
	t.Helper()
	mustTool(t, "ip", "netns", "add", name)
	t.Cleanup(func() { mustTool(t, "ip", "netns", "del", name) })
	mustTool(t, "ip", "-n", name, "link", "set", "lo", "up")
}

func mustTool(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := tool(t, nil, name, args...); err != nil {
		t.Fatal(err)
	}
}

// dialFrom connects from inside a namespace.
func dialFrom(host string) func(ctx context.Context, netw, addr string) (net.Conn, error) {
	return dialFromWith(host, new(net.Dialer))
}

func dialFromWith(host string, d *net.Dialer) func(ctx context.Context, netw, addr string) (net.Conn, error) {
	return func(ctx context.Context, netw, addr string) (conn net.Conn, err error) {
		err = inside(host, func() error {
			conn, err = d.DialContext(ctx, netw, addr)
			return err
		})
		return conn, err
	}
}

// inside runs f in a namespace. A socket belongs to the namespace of the thread that creates it, so
// sockets that f creates may be used anywhere. The thread stays in the namespace and exits with its
// goroutine.
func inside(host string, f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock
		ns, openErr := os.Open(filepath.Join("/run/netns", host))
		if openErr != nil {
			err = openErr
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}

// A drop is a packet filter rule of one host.
type drop struct {
	at   *member
	rule string // nftables rule without its verdict
}

// from returns the drops of all packets from speakers at hearers.
func from(speakers, hearers []*member) []drop {
	var drops []drop
	for _, s := range speakers {
		for _, h := range hearers {
			drops = append(drops, drop{h, "ip saddr " + s.host()})
		}
	}
	return drops
}

// both returns the drops of all packets between two groups of nodes.
func both(a, b []*member) []drop { return append(from(a, b), from(b, a)...) }

func (m *member) host() string {
	host, _, err := net.SplitHostPort(m.Cluster)
	if err != nil {
		panic(err)
	}
	return host
}

func portOf(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }

// cut replaces all active drops.
func (w *network) cut(t testing.TB, drops []drop) {
	t.Helper()
	for _, m := range w.Nodes {
		var rules strings.Builder
		rules.WriteString("table inet cut\ndelete table inet cut\ntable inet cut {\nchain in {\ntype filter hook input priority 0;\n")
		for _, d := range drops {
			if d.at == m {
				rules.WriteString(d.rule + " drop\n")
			}
		}
		rules.WriteString("}\n}\n")
		w.filter(t, m, rules.String())
	}
}

// heal ends every cut.
func (w *network) heal(t testing.TB) {
	t.Helper()
	w.cut(t, nil)
	for _, k := range w.links {
		k.heal()
		k.delay(0, 0, 0)
	}
}
