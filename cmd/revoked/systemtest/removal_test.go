//go:build system

package systemtest

import (
	"net/http"
	"strings"
	"sync"
	"testing"
)

// A follower is cut off while it holds a lease, and removed before the lease has run out. Revocations are
// acknowledged only when it can say nothing more; it never says active afterwards, although it does not know that
// it is out; and when it hears of that it ends.
func TestRemovedWhileCutOff(t *testing.T) {
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
	for range 20 { // at once: each waits for request_timeout when there is no lease
		asked.Go(func() {
			if active, ok := w.introspect(out, "app", "removed-at").active(); ok && active {
				t.Errorf("%s says active after the revocation was acknowledged", out.ID)
			}
		})
	}
	asked.Wait()
	if err := (<-removed).want(http.StatusOK); err != nil {
		t.Logf("the first removal: %v", err)
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
		t.Errorf("who was removed ends with %d, want 1", code)
	}
	if last := tail(out.Log, 3); !strings.Contains(last, "was removed from its cluster") {
		t.Errorf("its last words are %q, want them to say that it was removed", last)
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
