//go:build system

package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every node, including the leader, is restarted under load, one after the other. Each exits with
// 0, and the others answer for every token during the restart.
func TestRollingRestart_OthersAnswer(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	l.pin()
	c.mustRegister(t, c.Nodes[0], "rolling", "alice", "rolling-at", "rolling-rt")
	for round := range 2 {
		for _, m := range append([]*member{c.leader(t)}, c.Nodes...) {
			m.proc.Signal(syscall.SIGTERM)
			if code := m.proc.exit(t); code != 0 {
				t.Errorf("%s: got exit code %d after SIGTERM, want 0; end of its log:\n%s", m.ID, code, tail(m.Log, 10))
			}
			others := c.without(m)
			c.wantActive(t, "rolling-at", true, others...)
			c.mustRevoke(t, others[round], "revoked-while-"+m.ID+"-restarts")
			c.start(t, m)
			c.awaitReady(t, m)
			l.check(t)
		}
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// A node exits repeatedly soon after its start. The others continue, and it stays a voter.
func TestCrashLoop_OthersContinue(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	l.pin()
	m := c.without(c.leader(t))[0]
	for i := range 8 {
		m.proc.Kill()
		c.start(t, m)
		c.mustRevoke(t, c.without(m)[i%2], fmt.Sprintf("revoked-in-the-loop-%d", i))
		<-time.After(rand.N(time.Second))
		l.check(t)
	}
	c.awaitReady(t, c.Nodes...)
	c.awaitVoters(t, 3, c.Nodes...)
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// A node without file descriptors may stop answering or exit, but it never gives a wrong answer.
// The others continue, and it recovers when descriptors are available again.
func TestFewDescriptors_OthersContinue(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	l.pin()
	for _, leads := range []bool{false, true} {
		m := c.leader(t)
		if !leads {
			m = c.without(m)[0]
		}
		pid, before := m.proc.cmd.Process.Pid, len(logOf(t, m))
		var was unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
			t.Fatal(err)
		}
		few := was
		few.Cur = uint64(len(files(t, fmt.Sprintf("/proc/%d/fd", pid), "*"))) + 4
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
			t.Fatal(err)
		}
		idle := c.hold(m, 60)
		c.mustRevoke(t, c.without(m)[0], "revoked-while-files-are-few")
		awaitWrites(t, l, 40)
		for _, conn := range idle {
			_ = conn.Close()
		}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); err != nil && m.proc.Running() {
			t.Fatal(err)
		}
		if strings.Contains(logOf(t, m)[before:], "node must stop") { // it may still be exiting
			if code := m.proc.exit(t); code != 1 {
				t.Errorf("%s: got exit code %d without descriptors, want 1; end of its log:\n%s", m.ID, code, tail(m.Log, 10))
			}
			c.start(t, m)
		}
		c.awaitReady(t, c.Nodes...)
		l.probe(t, []*member{m}, 40)
	}
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// A node with little memory or a twentieth of a core is slower but never wrong.
func TestLittleMemoryAndCPU_AnswersStayCorrect(t *testing.T) {
	needRoot(t, "limits on processes")
	c := newCluster(t, 3)
	poor := c.Nodes[1]
	poor.within = []string{"env", "GOMEMLIMIT=40MiB"}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	l := startLoad(t, c, 6, 40)
	l.pin()
	lead(t, c, poor)
	for i := range 4 {
		if err := c.sendLines(c.Nodes[0], "/v1/grants", manyLines(i, 2000)).want(http.StatusOK); err != nil {
			t.Logf("concurrent bulk registration: %v", err)
		}
	}
	awaitWrites(t, l, 40)
	starved := c.without(c.leader(t))[0]
	free := starve(t, starved.proc, 5)
	awaitWrites(t, l, 40)
	free()
	free = starve(t, c.leader(t).proc, 5)
	awaitWrites(t, l, 20)
	free()
	c.awaitReady(t, c.Nodes...)
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// hold opens as many connections to a node's API as it accepts and keeps them.
func (c *cluster) hold(m *member, n int) []net.Conn {
	var held []net.Conn
	for range n {
		if conn, err := net.DialTimeout("tcp", strings.TrimPrefix(m.API, "https://"), time.Second); err == nil {
			held = append(held, conn)
		}
	}
	return held
}

// manyLines returns the body of a bulk registration.
func manyLines(batch, n int) []byte {
	var lines bytes.Buffer
	for i := range n {
		name := fmt.Sprintf("bulk-%d-%d", batch, i)
		_ = json.NewEncoder(&lines).Encode(registration(name, "bob", name+"-at", name+"-rt")) // a buffer never fails
	}
	return lines.Bytes()
}
