package devfolder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/files"
)

// Prepare writes everything that the nodes need and removes an old dev.json. It fails before it
// changes the settings of a node if members would move: see [Folder.checkMoved].
func (f Folder) Prepare() (*devcluster.Cluster, error) {
	if err := errors.Join(f.Make(), f.makeIssuer()); err != nil {
		return nil, err
	}
	clients, err := f.clients()
	if err != nil {
		return nil, err
	}
	c := f.layout()
	for _, cl := range clients {
		c.Clients[cl.ClientID] = cl.Credential
	}
	if err := f.checkMoved(c.Nodes); err != nil {
		return nil, err
	}
	if err := os.Remove(f.DevFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, writeConfigs(c.Nodes)
}

type setting struct {
	key   string
	value any // written as JSON, which is valid YAML
}

// settingsOf returns the settings of node i. Paths are relative, so that the directory can be
// copied to another machine and the node started there.
func settingsOf(nodes []devcluster.Node, i int) []setting {
	join := []string{}
	if len(nodes) > 1 {
		for _, other := range nodes {
			join = append(join, other.Cluster)
		}
	}
	return settingsFor(nodes, i, len(nodes), join)
}

// settingsFor returns the settings of node i. The node bootstraps a cluster of expect nodes, unless
// expect is 0.
func settingsFor(nodes []devcluster.Node, i, expect int, join []string) []setting {
	n := nodes[i]
	return []setting{
		{"node_id", n.ID},
		{"data_dir", n.ID},
		{"issuer", nodes[0].API},
		{"api_addr", strings.TrimPrefix(n.API, "https://")},
		{"api_cert", n.ID + "-api.pem"},
		{"api_key", n.ID + "-api-key.pem"},
		{"cluster_addr", n.Cluster},
		{"cluster_ca", "ca.pem"},
		{"cluster_cert", n.ID + ".pem"},
		{"cluster_key", n.ID + "-key.pem"},
		{"gossip_addr", n.Gossip},
		{"gossip_key_file", "gossip.key"},
		{"bootstrap_expect", expect},
		{"join", join},
		{"bootstrap_clients_file", "clients.json"},
		{"shutdown_delay", "0s"}, // no load balancer to wait for
		{"console", true},
	}
}

func writeConfigs(nodes []devcluster.Node) error {
	for i, n := range nodes {
		if err := writeConfig(n, settingsOf(nodes, i)); err != nil {
			return err
		}
	}
	return nil
}

func writeConfig(n devcluster.Node, settings []setting) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by revoked dev. Start this node alone with: revoked server --config %s\n",
		cli.ShellQuote(n.Config))
	for _, s := range settings {
		text, err := json.Marshal(s.value)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s: %s\n", s.key, text)
	}
	return files.Write(true, files.Private(n.Config, []byte(b.String())))
}

// AddNode writes the files of the last node of f, and returns that node. The node does not
// bootstrap a cluster: it joins through the cluster addresses in join, or has the data of a member.
// The files of the other nodes stay as they are.
func (f Folder) AddNode(join []string) (devcluster.Node, error) {
	if err := f.Make(); err != nil {
		return devcluster.Node{}, err
	}
	nodes := f.layout().Nodes
	last := len(nodes) - 1
	return nodes[last], writeConfig(nodes[last], settingsFor(nodes, last, 0, slices.Concat([]string{}, join)))
}

// checkMoved rejects a directory whose nodes are members at other addresses. A single member that
// moves finds the others; members that all move at the same time do not find each other.
func (f Folder) checkMoved(nodes []devcluster.Node) error {
	if len(nodes) == 1 {
		return nil
	}
	for _, n := range nodes {
		text, err := files.Read(n.Config, maxFile)
		if err != nil || !config.IsMember(n.Data) {
			continue
		}
		was := func(key string) string {
			_, rest, _ := strings.Cut(string(text), "\n"+key+": \"")
			value, _, _ := strings.Cut(rest, "\"")
			return value
		}
		if at := was("cluster_addr"); at != "" && at != n.Cluster {
			return fmt.Errorf("%s was made for other addresses: its %s is a member at %s, with its API at %s, not at %s; "+
				"start it with the previous --api-port and --hosts, or use another --dir",
				f.Dir, n.ID, at, was("api_addr"), n.Cluster)
		}
	}
	return nil
}

// Environment returns environ without the variables that would override the settings of a node.
func Environment(environ []string) []string {
	drop := []string{
		"config", "api_advertise", "cluster_advertise", "gossip_advertise", "metrics_addr",
		"bootstrap_admin_secret_file", "join_token_file", "non_voter", "rejoin",
		"jwks_ca_file", "jwks_allow_networks", "jwks_proxy", "audit_log",
		"backup_schedule", "backup_dir", "backup_keep",
		"backup_s3_endpoint", "backup_s3_bucket", "backup_s3_prefix", "backup_s3_region", "backup_s3_access_key_file",
		"backup_s3_secret_key_file", "backup_s3_ca_file", "backup_s3_path_style",
	}
	for _, s := range settingsOf(make([]devcluster.Node, 1), 0) {
		drop = append(drop, s.key)
	}
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(drop, func(key string) bool { return name == config.Variable(key) })
	})
}
