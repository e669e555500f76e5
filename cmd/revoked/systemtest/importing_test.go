//go:build system

package systemtest

import (
	"net/http"
	"testing"
	"time"
)

// An issuer imports pairs through every node as fast as the nodes accept them. During the import,
// revocations are final everywhere, no node loses its lease or its readiness, and every node
// introspects active tokens without the leader.
func TestImport_DuringRevocations_KeepsLeases(t *testing.T) {
	c := startCluster(t, 3)
	issued := time.Now().Unix() - 60
	ended := export{name: "ended", pairs: 3000, issued: issued}
	ended.registerAll(t, c)
	imported := export{name: "imported", pairs: number(t, "REVOKED_IMPORT", 60_000), issued: issued}
	c.mustRegister(t, c.Nodes[0], "g-live", "carol", "a-live", "r-live")
	c.wantActive(t, "a-live", true, c.Nodes...)
	before := c.leaseMetrics(t)

	done := make(chan int, 1)
	go func() { done <- imported.registerAll(t, c) }()
	revoked := 0
	for rate := 0; rate == 0 && revoked < ended.pairs && !t.Failed(); revoked++ {
		c.mustRevoke(t, c.Nodes[revoked%3], ended.refresh(revoked))
		c.wantActive(t, ended.access(revoked), false, c.Nodes...)
		c.wantActive(t, "a-live", true, c.Nodes...)
		for _, m := range c.Nodes {
			if err := c.send(m, request{method: http.MethodGet, path: "/readyz"}).want(http.StatusOK); err != nil {
				t.Errorf("%s during the import: %v", m.ID, err)
			}
		}
		select {
		case rate = <-done:
			t.Logf("imported %d pairs/s during %d revocations", rate, revoked+1)
		default:
		}
	}
	if revoked == ended.pairs {
		t.Logf("imported %d pairs/s; the revocations ended earlier", <-done)
	}
	for name, was := range before {
		if is := c.leaseMetrics(t)[name]; is != was {
			t.Errorf("%s: got %v more during the import, want none", name, is-was)
		}
	}
	c.checkAgreement(t, c.Nodes...)
}

// leaseMetrics returns, over all nodes, how many leases were lost, and how many reads of tokens a
// node could not answer itself.
func (c *cluster) leaseMetrics(t testing.TB) map[string]float64 {
	t.Helper()
	sums := map[string]float64{}
	for _, name := range []string{
		"revoked_lease_losses_total", `revoked_lookups_total{verdict="unleased"}`, `revoked_lookups_total{verdict="unknown"}`,
	} {
		for _, m := range c.Nodes {
			sums[name] += c.metric(t, m, name)
		}
	}
	return sums
}
