//go:build system

package systemtest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// apart has the one-way latencies between five regions in milliseconds.
var apart = [5][5]int{
	{0, 20, 40, 70, 110},
	{20, 0, 30, 60, 100},
	{40, 30, 0, 45, 90},
	{70, 60, 45, 0, 150},
	{110, 100, 90, 150, 0},
}

// wanFlags are the settings of docs/regions.md for round trips of up to 300 ms.
var wanFlags = []string{"--heartbeat-timeout", "3s", "--election-timeout", "3s", "--request-timeout", "20s"}

// The test measures introspections and single revocations in five regions, first without latency,
// then 20 to 150 ms apart, and logs the figures. It asserts that every request is answered, that no
// introspection leaves its node, and that no node answers active after the revocation.
func TestFiveRegions_AnswerLocally(t *testing.T) {
	w := newNetwork(t, len(apart))
	w.putLinks(t)
	for k, m := range w.Nodes {
		m.args = slices.Concat(wanFlags, []string{"--region", fmt.Sprintf("region%d", k+1)})
	}
	w.startAll(t)
	w.awaitReady(t, w.Nodes...)
	w.awaitVoters(t, len(apart), w.Nodes...)
	leader := w.leader(t)
	a := w.send(leader, request{method: http.MethodPatch, path: "/v1/settings", as: "admin",
		json:   map[string]any{"lease_duration": "12s"},
		header: http.Header{"Content-Type": {"application/merge-patch+json"}}})
	if err := a.want(http.StatusOK); err != nil {
		t.Fatalf("set lease_duration: %v", err)
	}
	w.mustRegister(t, leader, "stays", "alice", "stays-access", "stays-refresh")
	for _, m := range w.Nodes {
		w.awaitKnown(t, m, "stays-access")
	}
	w.measureRegions(t, "together")
	for i, m := range w.Nodes {
		for k, o := range w.Nodes[:i] {
			w.delayBetween(m, o, time.Duration(apart[i][k])*time.Millisecond, 0)
		}
	}
	w.measureRegions(t, "apart")
}

// measureRegions introspects and revokes at every node and logs the latencies.
func (w *network) measureRegions(t *testing.T, how string) {
	t.Helper()
	const introspections, revocations = 300, 7
	leader := slices.Index(w.Nodes, w.leader(t))
	far := slices.Max(apart[leader][:]) * 2
	t.Logf("%s: region%d leads; round trip to the farthest node %d ms, to the nearest majority %d ms", how, leader+1,
		far, 2*nearestMajority(leader))
	for i, m := range w.Nodes {
		left := w.metric(t, m, `revoked_lookups_total{verdict="unleased"}`)
		var introspected, revoked []time.Duration
		for range introspections {
			start := time.Now()
			a := w.introspect(m, "resource_server", "stays-access")
			introspected = append(introspected, time.Since(start))
			if a.status != http.StatusOK || !strings.Contains(string(a.body), `"active":true`) {
				t.Fatalf("%s at %s: got %d %s %v, want active", how, m.ID, a.status, a.body, a.err)
			}
		}
		if n := w.metric(t, m, `revoked_lookups_total{verdict="unleased"}`) - left; n != 0 {
			t.Errorf("%s at %s: got %v of %d introspections of a known token sent to the leader, want 0", how, m.ID, n,
				introspections)
		}
		for r := range revocations {
			name := fmt.Sprintf("%s-%d-%d", how, i, r)
			w.mustRegister(t, m, name, "alice", name+"-access", name+"-refresh")
			start := time.Now()
			w.mustRevoke(t, m, name+"-access")
			revoked = append(revoked, time.Since(start))
			other := w.Nodes[(i+1+r%4)%len(w.Nodes)]
			if a := w.introspect(other, "resource_server", name+"-access"); a.status != http.StatusOK ||
				strings.Contains(string(a.body), `"active":true`) {
				t.Fatalf("%s at %s after the revocation at %s: got %d %s %v, want inactive", how, other.ID, m.ID, a.status,
					a.body, a.err)
			}
		}
		slices.Sort(introspected)
		slices.Sort(revoked)
		t.Logf("%s: %s, round trip to the leader %d ms: introspection p50 %v, p99 %v; a single revocation p50 %v, fastest %v, slowest %v", how, m.ID,
			2*apart[leader][i], introspected[introspections/2].Round(10*time.Microsecond),
			introspected[introspections*99/100].Round(10*time.Microsecond),
			revoked[revocations/2].Round(time.Millisecond), revoked[0].Round(time.Millisecond),
			revoked[revocations-1].Round(time.Millisecond))
	}
}

// nearestMajority returns the one-way latency in milliseconds from the leader to the second nearest
// of the others. The three are a majority of five.
func nearestMajority(leader int) int {
	return slices.Sorted(slices.Values(apart[leader][:]))[2]
}
