// Package devfolder creates the directory of a development cluster: keys, certificates, first
// clients, a demo issuer of JWTs, and the settings of each node.
//
// Do not use it in production: the keys of the CA and of the demo issuer are stored together with
// the keys of the nodes. The package never replaces an existing CA, gossip key, client or key of an
// issuer.
package devfolder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
)

// The offsets of a node's other ports from its API port.
const (
	ClusterOffset = 1000
	GossipOffset  = 2000
)

// MaxNodes limits the nodes of a development cluster.
const MaxNodes = 15

// Hosts returns the host of each node: hosts, or 127.0.0.1 for each of n nodes. If nodesSet is
// true, the user set n, and it must be the number of hosts.
func Hosts(hosts []string, n int, nodesSet bool) ([]string, error) {
	if len(hosts) > 0 {
		if nodesSet && n != len(hosts) {
			return nil, cli.UsageError("--nodes is %d, but --hosts has %d", n, len(hosts))
		}
		n = len(hosts)
	}
	if n < 1 || n > MaxNodes {
		return nil, cli.UsageError("--nodes must be 1 to %d, not %d", MaxNodes, n)
	}
	if len(hosts) == 0 {
		return slices.Repeat([]string{"127.0.0.1"}, n), nil
	}
	out := make([]string, n)
	for i, h := range hosts {
		if out[i] = strings.TrimSpace(h); !cli.IsHost(out[i]) || strings.HasPrefix(out[i], "*") {
			return nil, cli.UsageError("--hosts: %q is neither a name nor an address", out[i])
		}
	}
	return out, nil
}

// CheckPorts returns a usage error if the ports of n nodes exceed 65535.
func CheckPorts(apiPort, n int) error {
	if most := 65535 - GossipOffset - n + 1; apiPort < 1 || apiPort > most {
		return cli.UsageError("--api-port must be 1 to %d here, not %d: the other ports are higher", most, apiPort)
	}
	return nil
}

// A Folder describes the directory of a cluster. Dir is absolute.
type Folder struct {
	Dir     string
	Hosts   []string // host of each node, by index
	APIPort int      // port of node 1; each next node has the next port
}

func (f Folder) path(name string) string { return filepath.Join(f.Dir, name) }

// DevFile returns the name of dev.json.
func (f Folder) DevFile() string { return f.path("dev.json") }

// Lock locks the directory against another `revoked dev`. The lock lasts until Close or the end of
// the process.
func (f Folder) Lock() (*os.File, error) {
	l, err := os.OpenFile(f.path("dev.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(l.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		err = fmt.Errorf("another revoked dev uses %s: stop it, or choose another --dir", f.Dir)
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// layout returns the nodes and their addresses. It accesses no file.
func (f Folder) layout() *devcluster.Cluster {
	c := &devcluster.Cluster{CA: f.path("ca.pem"), Clients: map[string]devcluster.Credential{}}
	for i, host := range f.Hosts {
		id := nodeName(i)
		at := func(offset int) string { return net.JoinHostPort(host, strconv.Itoa(f.APIPort+i+offset)) }
		c.Nodes = append(c.Nodes, devcluster.Node{
			ID: id, API: "https://" + at(0), Cluster: at(ClusterOffset), Gossip: at(GossipOffset),
			Data: f.path(id), Config: f.path(id + ".yml"), Log: f.path(id + ".log"),
		})
	}
	return c
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

var errInUse = errors.New("is in use by another process")

// CheckFree returns an error that names the first port in use, and an API port to try instead.
func (f Folder) CheckFree() error {
	err := f.tryPorts()
	if !errors.Is(err, errInUse) {
		return err
	}
	advice := "choose other ports with --api-port"
	if port := FreePort(f.Hosts); port != 0 {
		advice = fmt.Sprintf("try --api-port %d", port)
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// tryPorts opens and closes a listener on every port. The error names the first port that it cannot
// use.
func (f Folder) tryPorts() error {
	for _, n := range f.layout().Nodes {
		for _, l := range [][3]string{
			{"API", "tcp", strings.TrimPrefix(n.API, "https://")}, {"cluster", "tcp", n.Cluster},
			{"gossip", "tcp", n.Gossip}, {"gossip", "udp", n.Gossip},
		} {
			err := config.TryListen(l[1], l[2])
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%s %w; %s needs it for its %s port", l[2], errInUse, n.ID, l[0])
			}
			if err != nil {
				return fmt.Errorf("%s cannot use %s for its %s port: %w", n.ID, l[2], l[0], err)
			}
		}
	}
	return nil
}

// FreePort returns an API port for which all ports of the nodes are free, or 0.
func FreePort(hosts []string) int {
	for port := 18443; port < 19443; port += 100 {
		if (Folder{Dir: "/", Hosts: hosts, APIPort: port}).tryPorts() == nil {
			return port
		}
	}
	return 0
}
