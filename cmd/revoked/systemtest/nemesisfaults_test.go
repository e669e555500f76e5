//go:build system

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A fault is a kind of thing that goes wrong with a node.
type fault struct {
	name string
	// begin makes it happen and returns what ends it; nil: it could not be had now.
	begin func(n *nemesis, t *testing.T, m *member, p plan) (end func())
}

func faults() []fault {
	return []fault{
		{"kill", (*nemesis).kill},
		{"kill all", (*nemesis).killAll},
		{"rolling restart", (*nemesis).rollingRestart},
		{"stop", (*nemesis).stop},
		{"stutter", (*nemesis).stutter},
		{"swizzle", (*nemesis).swizzle},
		{"starve", (*nemesis).starve},
		{"isolate", dropping("isolate", func(m *member, others []*member, _ float64) []drop {
			return both([]*member{m}, others)
		})},
		{"deaf", dropping("deaf", func(m *member, others []*member, _ float64) []drop {
			return from(others, []*member{m})
		})},
		{"mute", dropping("mute", func(m *member, others []*member, _ float64) []drop {
			return from([]*member{m}, others)
		})},
		{"bridge", dropping("bridge", func(m *member, others []*member, amount float64) []drop {
			return both([]*member{m}, others[int(amount*float64(len(others))):][:1])
		})},
		{"loss", dropping("loss", func(m *member, others []*member, amount float64) []drop {
			var drops []drop
			for _, at := range append([]*member{m}, others...) {
				drops = append(drops, drop{at, fmt.Sprintf("ip saddr != %s254 numgen random mod 100 < %d", networkAddress, 5+int(25*amount))})
			}
			return drops
		})},
		{"gossip cut", dropping("gossip cut", func(m *member, others []*member, _ float64) []drop {
			var drops []drop
			for _, at := range append([]*member{m}, others...) {
				drops = append(drops, drop{at, "udp dport " + portOf(m.Gossip)}, drop{at, "tcp dport " + portOf(m.Gossip)}, drop{at, "tcp sport " + portOf(m.Gossip)})
			}
			return drops
		})},
		{"Raft cut", holding(raftStreams)},
		{"calls cut", holding(nodeCalls)},
		{"delay", (*nemesis).delay},
		{"reset", (*nemesis).resets},
		{"transfer", (*nemesis).transfer},
		{"join or leave", (*nemesis).joinOrLeave},
	}
}

func kindOf(name string) int {
	return slices.IndexFunc(faults(), func(f fault) bool { return f.name == name })
}

// kill is kill -9 and, later, a new start.
func (n *nemesis) kill(t *testing.T, m *member, _ plan) func() {
	if !m.proc.runs() {
		return nil
	}
	m.proc.kill()
	return func() {
		if !m.proc.runs() && !(m == n.fourth && n.leaving) {
			n.start(t, m)
		}
	}
}

func (n *nemesis) killAll(t *testing.T, _ *member, _ plan) func() {
	up := n.running()
	for _, m := range up {
		m.proc.signal(syscall.SIGKILL) // all at once, not one after the other is gone
	}
	for _, m := range up {
		m.proc.kill()
	}
	return func() {
		for _, m := range up {
			if !m.proc.runs() && !(m == n.fourth && n.leaving) {
				n.start(t, m)
			}
		}
	}
}

// rollingRestart stops one node after the other in order, as an operator would: the next when the one
// before is ready again, or after a while.
func (n *nemesis) rollingRestart(t *testing.T, m *member, _ plan) func() {
	up := n.running()
	for i, next := range up {
		if next == m {
			up = append(up[i:], up[:i]...)
			break
		}
	}
	for _, m := range up {
		m.proc.signal(syscall.SIGCONT)
		m.proc.signal(syscall.SIGTERM)
		select {
		case <-m.proc.done:
		case <-time.After(longStop):
			t.Fatalf("%s does not end after SIGTERM; the end of its log:\n%s", m.ID, tail(m.Log, 15))
		}
		if m == n.fourth && n.leaving {
			continue
		}
		n.start(t, m)
		for patience := time.After(3 * time.Second); n.readiness(m) != nil; {
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-patience:
			case <-n.load.stop:
			}
			break
		}
	}
	return func() {}
}

// stop is SIGSTOP, with questions and revocations left waiting in its sockets.
func (n *nemesis) stop(t *testing.T, m *member, p plan) func() {
	if !m.proc.runs() {
		return nil
	}
	frozen := m.proc
	n.load.burst(m, 12, p.amount) // some are on their way when it stops
	frozen.signal(syscall.SIGSTOP)
	n.load.burst(m, 24, p.amount)
	return func() { frozen.signal(syscall.SIGCONT) }
}

// stutter stops and lets run, 50 ms each.
func (n *nemesis) stutter(_ *testing.T, m *member, _ plan) func() {
	if !m.proc.runs() {
		return nil
	}
	p := m.proc
	return repeat(50*time.Millisecond, func(i int) {
		p.signal([...]syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT}[i%2])
	}, func() { p.signal(syscall.SIGCONT) })
}

// swizzle stops all, one after the other, and lets them go in another order.
func (n *nemesis) swizzle(_ *testing.T, _ *member, p plan) func() {
	var frozen []*process
	for _, m := range n.running() {
		m.proc.signal(syscall.SIGSTOP)
		frozen = append(frozen, m.proc)
	}
	r := rand.New(rand.NewPCG(uint64(p.amount*(1<<32)), 2))
	order := r.Perm(len(frozen))
	wait := p.length / time.Duration(2*len(frozen)+1)
	return repeat(wait, func(i int) {
		if i >= len(frozen) { // all stand still for a while first
			frozen[order[i%len(frozen)]].signal(syscall.SIGCONT)
		}
	}, func() {
		for _, k := range order {
			frozen[k].signal(syscall.SIGCONT)
		}
	})
}

// repeat does something again and again until the function it returns is called, which ends with last.
func repeat(pause time.Duration, do func(i int), last func()) (end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := 0; ; i++ {
			do(i)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(stop)
		wg.Wait()
		last()
	}
}

// starve leaves a node a twentieth of a core.
func (n *nemesis) starve(t *testing.T, m *member, _ plan) func() {
	if !m.proc.runs() {
		return nil
	}
	return starve(t, m.proc, 5)
}

// starve leaves a process so many hundredths of a core, until free.
func starve(t testing.TB, p *process, percent int) (free func()) {
	t.Helper()
	group, err := cpuGroup(t, percent)
	if err != nil {
		t.Fatalf("a group with little CPU: %v", err)
	}
	pid := []byte(strconv.Itoa(p.cmd.Process.Pid))
	put := func(group string) {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), pid, 0); err != nil && p.runs() {
			t.Errorf("move a process to %s: %v", group, err)
		}
	}
	put(group)
	return func() { put(filepath.Dir(group)) }
}

// cpuGroup makes a control group whose processes get so many hundredths of a core together.
func cpuGroup(t testing.TB, percent int) (dir string, err error) {
	t.Helper()
	for root, files := range map[string]map[string]string{
		"/sys/fs/cgroup/cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": strconv.Itoa(1000 * percent)},
		"/sys/fs/cgroup":     {"cpu.max": fmt.Sprintf("%d 100000", 1000*percent)},
	} {
		dir, err = os.MkdirTemp(root, "revoked-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // processes in it have ended by then
		for name, value := range files {
			if err = os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
				break
			}
		}
		if err == nil {
			return dir, nil
		}
	}
	return "", err
}

// dropping is a fault made by packet filters.
func dropping(name string, drops func(m *member, others []*member, amount float64) []drop) func(*nemesis, *testing.T, *member, plan) func() {
	return func(n *nemesis, t *testing.T, m *member, p plan) func() {
		n.drops[name] = drops(m, n.without(m), p.amount)
		n.cutAll(t)
		return func() {
			delete(n.drops, name)
			n.cutAll(t)
		}
	}
}

// cutAll puts all drops of all faults in force.
func (n *nemesis) cutAll(t *testing.T) {
	var all []drop
	for _, drops := range n.drops {
		all = append(all, drops...)
	}
	n.cut(t, all)
}

// holding is a cut of one protocol of the cluster port of a node: both ways, or one.
func holding(protocol string) func(*nemesis, *testing.T, *member, plan) func() {
	return func(n *nemesis, _ *testing.T, m *member, p plan) func() {
		hears, speaks := p.amount < 0.75, p.amount > 0.25
		var undo []func()
		for _, o := range n.without(m) {
			undo = append(undo, n.link(m, o).cut(protocol, speaks, hears), n.link(o, m).cut(protocol, hears, speaks))
		}
		return func() {
			for _, u := range undo {
				u()
			}
		}
	}
}

// delay makes every wire of a node long and uneven.
func (n *nemesis) delay(_ *testing.T, m *member, p plan) func() {
	by := 10*time.Millisecond + time.Duration(p.amount*float64(200*time.Millisecond))
	for _, o := range n.without(m) {
		n.delayBetween(m, o, by, by)
	}
	return func() {
		for _, o := range n.without(m) {
			n.delayBetween(m, o, 0, 0)
		}
	}
}

// resets breaks all connections of a node again and again.
func (n *nemesis) resets(_ *testing.T, m *member, _ plan) func() {
	return repeat(100*time.Millisecond, func(int) {
		for _, o := range n.without(m) {
			n.link(m, o).reset("")
			n.link(o, m).reset("")
		}
	}, func() {})
}

func (n *nemesis) transfer(_ *testing.T, m *member, _ plan) func() {
	quick := *m
	client := *m.client
	client.Timeout = 5 * time.Second
	quick.client = &client
	if n.admin(&quick, "transfer-leader", map[string]any{}) != nil {
		return nil // nobody leads, or nobody can take over
	}
	return func() {}
}

// joinOrLeave has the fourth node join where it is not in, and leave where it is.
func (n *nemesis) joinOrLeave(t *testing.T, _ *member, _ plan) func() {
	if n.fourth.proc == nil || !n.fourth.proc.runs() {
		n.leaving = false
		n.start(t, n.fourth)
		n.load.use(n.Nodes...)
		return func() {}
	}
	if n.readiness(n.fourth) != nil {
		return nil // it is still on its way in
	}
	n.leaving = true
	go func() { _ = n.admin(n.fourth, "leave", map[string]any{}) }() // it ends the process when it could
	return func() {}
}
