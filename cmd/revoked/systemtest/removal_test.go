//go:build system

package systemtest

import (
	"net/http"
	"strings"
	"sync"
	"testing"
)

// A follower is cut off while it holds a lease and removed before the lease expires. Revocations
// are acknowledged only after its lease has expired. The follower has not seen its removal. It
// never answers active afterwards, and exits when it learns of the removal.
func TestRemoval_WhileCutOff_KeepsPromise(t *testing.T) {
	w := newNetwork(t, 4)
	w.startAll(t)
	w.awaitReady(t, w.Nodes...)
	l := startLoad(t, w.cluster, 8, 25)
	l.pin()
	w.mustRegister(t, w.Nodes[0], "removed", "alice", "removed-at", "removed-rt")
	w.wantActive(t, "removed-at", true, w.Nodes...)
	leader := w.leader(t)
	out := w.without(leader)[0]
	others := w.without(out)
	w.cut(t, both([]*member{out}, others))
	removed := make(chan answer, 1)
	go func() {
		removed <- w.send(leader, request{method: http.MethodPost, path: "/v1/cluster/remove", as: "admin",
			json: map[string]any{"node": out.ID, "force": true, "reason": "it is cut off"}})
	}()
	w.mustRevoke(t, leader, "removed-rt")
	var asked sync.WaitGroup
	for range 20 { // concurrently: without a lease each takes request_timeout
		asked.Go(func() {
			if active, ok := w.introspect(out, "app", "removed-at").active(); ok && active {
				t.Errorf("%s: got active after the acknowledged revocation, want inactive or 503", out.ID)
			}
		})
	}
	asked.Wait()
	if err := (<-removed).want(http.StatusOK); err != nil {
		t.Logf("first removal: %v", err)
		await(t, "the removal", func() error {
			return w.send(w.leader(t), request{method: http.MethodPost, path: "/v1/cluster/remove", as: "admin",
				json: map[string]any{"node": out.ID, "force": true, "reason": "it is cut off"}}).want(http.StatusOK)
		})
	}
	w.awaitVoters(t, 3, others...)
	w.awaitNotReady(t, out)
	before, err := w.status(w.leader(t))
	if err != nil {
		t.Fatal(err)
	}
	w.heal(t)
	if code := out.proc.exit(t); code != 1 {
		t.Errorf("removed node: got exit code %d, want 1", code)
	}
	if last := tail(out.Log, 3); !strings.Contains(last, "was removed from its cluster") {
		t.Errorf("removed node: got log %q, want the removal in it", last)
	}
	l.use(others...)
	awaitWrites(t, l, 20)
	after, err := w.status(w.leader(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("terms: %d before the heal, %d after", before.Term, after.Term)
	w.wantActive(t, "removed-at", false, others...)
	l.halt()
	w.awaitReady(t, others...)
	w.checkAgreement(t, others...)
	l.end(t, others...)
}
