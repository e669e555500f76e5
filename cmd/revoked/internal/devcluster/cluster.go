// Package devcluster runs the nodes of a development cluster as child processes.
//
// It uses only the program's command line, dev.json and HTTP API. So tests of the built program can
// use it, like the commands dev and bench.
//
// Dangerous: a [Process] is killed by the kernel (on Linux) when this process exits.
package devcluster

import (
	"crypto/tls"
	"encoding/json"
	"fmt"

	"revoked/cmd/revoked/internal/files"
)

// A Node is one node of a development cluster. Its JSON is part of dev.json. All paths are
// absolute.
type Node struct {
	ID      string `json:"id"`
	API     string `json:"api"`
	Cluster string `json:"cluster"`
	Gossip  string `json:"gossip"`
	PID     int    `json:"pid,omitempty"`
	Data    string `json:"data"`
	Config  string `json:"config"`
	Log     string `json:"log"`
}

// A Credential is a client in dev.json.
type Credential struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

// A Cluster is a development cluster. Its JSON is dev.json.
type Cluster struct {
	ClusterID string                `json:"cluster_id"` // empty until the cluster is bootstrapped
	CA        string                `json:"ca"`
	Nodes     []Node                `json:"nodes"`
	Clients   map[string]Credential `json:"clients"`
}

// Read reads a dev.json.
func Read(file string) (*Cluster, error) {
	data, err := files.Read(file, 1<<20)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// Write writes c as a dev.json to file, which it replaces in one step.
func (c *Cluster) Write(file string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return files.Write(true, files.Private(file, append(data, '\n')))
}

// TLS returns the configuration of a TLS client that trusts the CA of the cluster.
func (c *Cluster) TLS() (*tls.Config, error) {
	pool, err := files.CertPool(c.CA)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, err
}
