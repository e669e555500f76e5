//go:build system

package systemtest

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"revoked/internal/scenario"
)

func TestScenarios(t *testing.T) {
	const spares = 2 // nodes that a scenario may add
	for _, s := range scenario.All {
		t.Run(s.Name, func(t *testing.T) {
			c := newCluster(t, s.Nodes+spares)
			var addresses []string
			for _, m := range c.Nodes[:s.Nodes] {
				addresses = append(addresses, strconv.Quote(m.Cluster))
			}
			for k, m := range c.Nodes {
				if k >= s.Nodes {
					c.rewriteConfig(t, m)
					continue
				}
				c.rewriteConfig(t, m, "bootstrap_expect: "+strconv.Itoa(s.Nodes), "join: ["+strings.Join(addresses, ", ")+"]")
				c.start(t, m)
			}
			s.Run(t, &processes{cluster: c, t: t, started: s.Nodes})
		})
	}
}

// processes runs the nodes of a scenario as processes.
type processes struct {
	*cluster
	t       *testing.T
	started int // nodes that have run
}

func (p *processes) Add() int {
	k := p.started
	p.started++
	p.Start(k)
	return k
}

func (p *processes) Start(k int) { p.start(p.t, p.Nodes[k]) }
func (p *processes) Stop(k int)  { stop(p.t, p.Nodes[k]) }
func (p *processes) Kill(k int)  { p.Nodes[k].proc.Kill() }

func (p *processes) Refused(k int) string {
	p.Start(k)
	return p.Exit(k)
}

func (p *processes) Exit(k int) string {
	if p.Nodes[k].proc.exit(p.t) == 0 {
		return ""
	}
	return tail(p.Nodes[k].Log, 4)
}

func (p *processes) Wipe(k int) {
	if err := os.RemoveAll(p.Nodes[k].Data); err != nil {
		p.t.Fatal(err)
	}
}

func (p *processes) ID(k int) string      { return p.Nodes[k].ID }
func (p *processes) Address(k int) string { return p.Nodes[k].Cluster }
func (p *processes) URL(k int) string     { return p.Nodes[k].API }
func (p *processes) HTTP() *http.Client   { return p.Nodes[0].client }

func (p *processes) Credentials(client string) (id, secret string) {
	c := p.Clients[client]
	return c.ClientID, c.ClientSecret
}
