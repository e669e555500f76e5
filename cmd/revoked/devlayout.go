package main

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// The distances of a node's other ports from its API port.
const (
	devClusterOffset = 1000
	devGossipOffset  = 2000
)

// maxDevNodes is how many nodes one machine is asked to carry.
const maxDevNodes = 15

// A devNode is a node of a development cluster. Its JSON is that of dev.json.
type devNode struct {
	ID      string `json:"id"`
	API     string `json:"api"`
	Cluster string `json:"cluster"`
	Gossip  string `json:"gossip"`
	PID     int    `json:"pid,omitempty"`
	Data    string `json:"data"`
	Config  string `json:"config"`
	Log     string `json:"log"`
}

// A devCredential is how dev.json shows a client.
type devCredential struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

// A devCluster is a development cluster. Its JSON is dev.json.
type devCluster struct {
	ClusterID string                   `json:"cluster_id"` // empty until the nodes have made it
	CA        string                   `json:"ca"`
	Nodes     []devNode                `json:"nodes"`
	Clients   map[string]devCredential `json:"clients"`

	dir   string
	hosts []string
}

// devHosts returns the host of each node: hosts as given, or 127.0.0.1 for all of n.
func devHosts(hosts []string, n int, nGiven bool) ([]string, error) {
	if len(hosts) > 0 {
		if nGiven && n != len(hosts) {
			return nil, usageError("--nodes %d, but --hosts names %d", n, len(hosts))
		}
		n = len(hosts)
	}
	if n < 1 || n > maxDevNodes {
		return nil, usageError("--nodes takes 1 to %d, not %d", maxDevNodes, n)
	}
	out := make([]string, n)
	for i := range out {
		out[i] = "127.0.0.1"
		if len(hosts) > 0 {
			out[i] = strings.TrimSpace(hosts[i])
		}
		if !isHost(out[i]) || strings.HasPrefix(out[i], "*") {
			return nil, usageError("--hosts: %q is neither a name nor an address", out[i])
		}
	}
	return out, nil
}

// checkDevPorts refuses an API port above which the ports of n nodes do not fit.
func checkDevPorts(apiPort, n int) error {
	if most := 65535 - devGossipOffset - n + 1; apiPort < 1 || apiPort > most {
		return usageError("--api-port takes 1 to %d here, not %d: the other ports lie above it", most, apiPort)
	}
	return nil
}

// newDevCluster lays out a cluster in dir (absolute). It touches nothing.
func newDevCluster(dir string, hosts []string, apiPort int, clients []devClient) (*devCluster, error) {
	if err := checkDevPorts(apiPort, len(hosts)); err != nil {
		return nil, err
	}
	c := &devCluster{CA: filepath.Join(dir, "ca.pem"), Clients: map[string]devCredential{}, dir: dir, hosts: hosts}
	for i, host := range hosts {
		id := nodeName(i)
		at := func(offset int) string { return net.JoinHostPort(host, strconv.Itoa(apiPort+i+offset)) }
		c.Nodes = append(c.Nodes, devNode{
			ID: id, API: "https://" + at(0), Cluster: at(devClusterOffset), Gossip: at(devGossipOffset),
			Data: filepath.Join(dir, id), Config: filepath.Join(dir, id+".yml"), Log: filepath.Join(dir, id+".log"),
		})
	}
	for _, cl := range clients {
		c.Clients[cl.ClientID] = devCredential{cl.ClientID, cl.ClientSecret}
	}
	return c, nil
}

// A devSetting is a line of a node's file.
type devSetting struct {
	key   string
	value any // as JSON, which is YAML
}

// settings returns the settings of node i. Paths are relative: the folder may be copied to another
// machine and the node started there.
func (c *devCluster) settings(i int) []devSetting {
	n := c.Nodes[i]
	var join []string
	for _, other := range c.Nodes {
		join = append(join, other.Cluster)
	}
	if len(join) == 1 {
		join = []string{}
	}
	return []devSetting{
		{"node_id", n.ID},
		{"data_dir", n.ID},
		{"issuer", c.Nodes[0].API},
		{"api_addr", strings.TrimPrefix(n.API, "https://")},
		{"api_cert", n.ID + "-api.pem"},
		{"api_key", n.ID + "-api-key.pem"},
		{"cluster_addr", n.Cluster},
		{"cluster_ca", "ca.pem"},
		{"cluster_cert", n.ID + ".pem"},
		{"cluster_key", n.ID + "-key.pem"},
		{"gossip_addr", n.Gossip},
		{"gossip_key_file", "gossip.key"},
		{"bootstrap_expect", len(c.Nodes)},
		{"join", join},
		{"bootstrap_clients_file", "clients.json"},
	}
}

// checkMoved refuses a folder whose nodes are members at other addresses: who moves finds the others, but not where all
// move at once.
func (c *devCluster) checkMoved() error {
	if len(c.Nodes) == 1 {
		return nil
	}
	for _, n := range c.Nodes {
		file, err := readBounded(n.Config, maxConfigFile)
		if err != nil || !isMember(n.Data) {
			continue
		}
		was := func(key string) string {
			_, rest, _ := strings.Cut(string(file), "\n"+key+": \"")
			value, _, _ := strings.Cut(rest, "\"")
			return value
		}
		if at := was("cluster_addr"); at != "" && at != n.Cluster {
			return fmt.Errorf("%s was made for other addresses: its %s is a member at %s, with its API at %s, not at %s; "+
				"start it with the --api-port and --hosts of then, or take another --dir", c.dir, n.ID, at, was("api_addr"), n.Cluster)
		}
	}
	return nil
}

// writeConfigs writes the file of every node.
func (c *devCluster) writeConfigs() error {
	for i, n := range c.Nodes {
		var b strings.Builder
		fmt.Fprintf(&b, "# Written by revoked dev. Start this node alone with: revoked server --config %s\n", shellQuote(n.Config))
		for _, s := range c.settings(i) {
			text, err := json.Marshal(s.value)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s: %s\n", s.key, text)
		}
		if err := replaceFile(newFile{n.Config, []byte(b.String()), privateMode}); err != nil {
			return err
		}
	}
	return nil
}

// file returns the name of dev.json.
func (c *devCluster) file() string { return filepath.Join(c.dir, "dev.json") }

// writeFile writes dev.json, whole or not at all.
func (c *devCluster) writeFile() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(newFile{c.file(), append(data, '\n'), privateMode})
}

// shellQuote returns s as one word of a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
