package node_test

import (
	"net/http"
	"testing"
	"time"

	"revoked/internal/scenario"
	"revoked/node"
	"revoked/node/nodetest"
)

func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, s := range scenario.All {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			s.Run(t, inProcess{nodetest.Start(t, nodetest.Options{Nodes: s.Nodes, Node: func(_ int, conf *node.Config) {
				conf.HeartbeatTimeout, conf.ElectionTimeout = time.Second, time.Second // members count as alive for three
			}})})
		})
	}
}

// inProcess runs the nodes of a scenario in this process.
type inProcess struct{ *nodetest.Cluster }

func (c inProcess) Add() int {
	c.Cluster.Add().Start()
	return len(c.Members) - 1
}

func (c inProcess) Start(k int) { c.Members[k].Start() }
func (c inProcess) Stop(k int)  { c.Members[k].Stop() }
func (c inProcess) Kill(k int)  { c.Members[k].Stop() }
func (c inProcess) Wipe(k int)  { c.Members[k].Wipe() }

func (c inProcess) Refused(k int) string {
	err := c.Members[k].TryStart()
	if err == nil {
		c.T.Fatalf("start of %s: got no error, want one", c.ID(k))
	}
	return err.Error()
}

func (c inProcess) Exit(k int) string {
	c.T.Helper()
	m := c.Members[k]
	select {
	case <-m.Node.Done():
	case <-time.After(nodetest.LongStop):
		c.T.Fatalf("%s: got no exit, want one", m.ID)
	}
	err := m.Node.Err()
	m.Stop()
	if err == nil {
		return ""
	}
	return err.Error()
}

func (c inProcess) ID(k int) string      { return c.Members[k].ID }
func (c inProcess) Address(k int) string { return c.Members[k].ClusterAddr() }
func (c inProcess) URL(k int) string     { return c.Members[k].URL }
func (c inProcess) HTTP() *http.Client   { return c.Cluster.HTTP }

func (c inProcess) Credentials(client string) (id, secret string) { return client, nodetest.Secret }
