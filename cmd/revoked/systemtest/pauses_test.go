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

// A node that stands still for longer than its lease while clients go on asking it, and wakes with their
// requests in its sockets. The others revoke meanwhile. What it then says to questions that began
// after the acknowledgement is never active, whether it led or not.
func TestPauses(t *testing.T) {
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
	c.wantActive(t, name+"-at", true, c.Nodes...) // it is in every cache
	patient := *m
	patient.client = &http.Client{Transport: m.client.Transport, Timeout: longStop}

	m.proc.signal(syscall.SIGSTOP)
	await(t, m.ID+" to stand still", m.proc.standsStill)
	var waiting sync.WaitGroup
	ask := func(n int, look func(answer)) {
		for i := range n {
			waiting.Go(func() { look(c.introspect(&patient, "app", name+[]string{"-at", "-rt"}[i%2])) })
		}
	}
	ask(8, func(answer) {}) // these may be told the old state, were it not that their node sleeps too long
	for i := range 4 {
		waiting.Go(func() { _ = c.revoke(&patient, "app", fmt.Sprintf("%s-unknown-%d", name, i)) })
	}
	c.mustRevoke(t, c.without(m)[0], name+"-rt") // its lease has run out by then: this waited for it
	answered := make(chan answer, 16)
	ask(cap(answered), func(a answer) { answered <- a })
	select {
	case a := <-answered:
		t.Errorf("it stands still and answers: %d %s (%v)", a.status, a.body, a.err)
	case <-time.After(300 * time.Millisecond): // all are in its sockets
	}
	m.proc.signal(syscall.SIGCONT)
	waiting.Wait()
	close(answered)
	said := 0
	for a := range answered {
		if active, ok := a.active(); ok {
			said++
			if active {
				t.Errorf("%s woke and says active after the revocation was acknowledged", m.ID)
			}
		}
	}
	c.awaitReady(t, m)
	c.wantActive(t, name+"-at", false, c.Nodes...)
	t.Logf("%s woke with %d questions: %d answers, the rest 503", m.ID, cap(answered), said)
}
