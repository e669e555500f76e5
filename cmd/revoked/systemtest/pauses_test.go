//go:build system

package systemtest

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A node pauses for longer than its lease and wakes with requests in its sockets. During the pause,
// the others revoke. The node, leader or not, never answers active to a request sent after the
// acknowledgement.
func TestPause_NeverAnswersStale(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 30)
	l.pin()
	for round := range 4 {
		leads := round%2 == 1
		t.Run(map[bool]string{false: "a follower", true: "the leader"}[leads], func(t *testing.T) {
			m := c.leader(t)
			if !leads {
				m = c.without(m)[0]
			}
			c.checkPause(t, m, fmt.Sprintf("pause-%d", round))
			l.check(t)
		})
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

func (c *cluster) checkPause(t *testing.T, m *member, name string) {
	t.Helper()
	c.mustRegister(t, m, name, "alice", name+"-at", name+"-rt")
	c.wantActive(t, name+"-at", true, c.Nodes...) // every node caches it
	patient := *m
	patient.client = &http.Client{Transport: m.client.Transport, Timeout: longStop}

	m.proc.Signal(syscall.SIGSTOP)
	await(t, m.ID+" to be stopped", m.proc.checkStopped)
	var waiting sync.WaitGroup
	ask := func(n int, look func(answer)) {
		for i := range n {
			waiting.Go(func() { look(c.introspect(&patient, "app", name+[]string{"-at", "-rt"}[i%2])) })
		}
	}
	ask(8, func(answer) {}) // sent before the revocation: they may get the old state
	for i := range 4 {
		waiting.Go(func() { _ = c.revoke(&patient, "app", fmt.Sprintf("%s-unknown-%d", name, i)) })
	}
	c.mustRevoke(t, c.without(m)[0], name+"-rt") // waits for the lease of the paused node
	answered := make(chan answer, 16)
	ask(cap(answered), func(a answer) { answered <- a })
	select {
	case a := <-answered:
		t.Errorf("paused node: got %d %s, error %v, want no answer", a.status, a.body, a.err)
	case <-time.After(300 * time.Millisecond): // all requests are in its sockets
	}
	m.proc.Signal(syscall.SIGCONT)
	waiting.Wait()
	close(answered)
	answers := 0
	for a := range answered {
		if active, ok := a.active(); ok {
			answers++
			if active {
				t.Errorf("%s, awake: got active after the acknowledged revocation, want inactive or 503", m.ID)
			}
		}
	}
	c.awaitReady(t, m)
	c.wantActive(t, name+"-at", false, c.Nodes...)
	t.Logf("%s woke with %d requests: %d answers, the rest 503", m.ID, cap(answered), answers)
}
