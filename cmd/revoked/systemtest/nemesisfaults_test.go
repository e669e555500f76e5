//go:build system

package systemtest

import (
	"errors"
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

// A fault is a kind of failure of a node.
type fault struct {
	name string
	// begin starts the fault and returns the function that ends it, nil if it is impossible now.
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
				drops = append(drops, drop{at, fmt.Sprintf("ip saddr != %s254 numgen random mod 100 < %d", networkAddress,
					5+int(25*amount))})
			}
			return drops
		})},
		{"gossip cut", dropping("gossip cut", func(m *member, others []*member, _ float64) []drop {
			var drops []drop
			for _, at := range append([]*member{m}, others...) {
				drops = append(drops, drop{at, "udp dport " + portOf(m.Gossip)}, drop{at, "tcp dport " + portOf(m.Gossip)},
					drop{at, "tcp sport " + portOf(m.Gossip)})
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

// kill sends SIGKILL to a node and restarts it later.
func (n *nemesis) kill(t *testing.T, m *member, _ plan) func() {
	if !m.proc.Running() {
		return nil
	}
	m.proc.Kill()
	return func() {
		if !m.proc.Running() && !(m == n.fourth && n.leaving) {
			n.start(t, m)
		}
	}
}

func (n *nemesis) killAll(t *testing.T, _ *member, _ plan) func() {
	up := n.running()
	for _, m := range up {
		m.proc.Signal(syscall.SIGKILL) // signal all before waiting for any
	}
	for _, m := range up {
		m.proc.Kill()
	}
	return func() {
		for _, m := range up {
			if !m.proc.Running() && !(m == n.fourth && n.leaving) {
				n.start(t, m)
			}
		}
	}
}

// rollingRestart restarts one node after the other, as an operator would. It continues when the
// previous node is ready, or after a while.
func (n *nemesis) rollingRestart(t *testing.T, m *member, _ plan) func() {
	up := n.running()
	for i, next := range up {
		if next == m {
			up = append(up[i:], up[:i]...)
			break
		}
	}
	for _, m := range up {
		m.proc.Signal(syscall.SIGCONT)
		m.proc.Signal(syscall.SIGTERM)
		select {
		case <-m.proc.Done():
		case <-time.After(longStop):
			t.Fatalf("%s: did not exit after SIGTERM; end of its log:\n%s", m.ID, tail(m.Log, 15))
		}
		if m == n.fourth && n.leaving {
			continue
		}
		n.start(t, m)
		for timeout := time.After(3 * time.Second); n.readiness(m) != nil; {
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-timeout:
			case <-n.load.stop:
			}
			break
		}
	}
	return func() {}
}

// stop sends SIGSTOP to a node while requests wait in its sockets.
func (n *nemesis) stop(t *testing.T, m *member, p plan) func() {
	if !m.proc.Running() {
		return nil
	}
	frozen := m.proc
	n.load.burst(m, 12, p.amount) // some are in progress when the node stops
	frozen.Signal(syscall.SIGSTOP)
	n.load.burst(m, 24, p.amount)
	return func() { frozen.Signal(syscall.SIGCONT) }
}

// stutter stops and resumes a node alternately, 50 ms each.
func (n *nemesis) stutter(_ *testing.T, m *member, _ plan) func() {
	if !m.proc.Running() {
		return nil
	}
	p := m.proc
	return repeat(50*time.Millisecond, func(i int) {
		p.Signal([...]syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT}[i%2])
	}, func() { p.Signal(syscall.SIGCONT) })
}

// swizzle stops all nodes one after the other and resumes them in another order.
func (n *nemesis) swizzle(_ *testing.T, _ *member, p plan) func() {
	var frozen []*process
	for _, m := range n.running() {
		m.proc.Signal(syscall.SIGSTOP)
		frozen = append(frozen, m.proc)
	}
	if len(frozen) == 0 { // every node is being restarted
		return nil
	}
	r := rand.New(rand.NewPCG(uint64(p.amount*(1<<32)), 2))
	order := r.Perm(len(frozen))
	wait := p.length / time.Duration(2*len(frozen)+1)
	return repeat(wait, func(i int) {
		if i >= len(frozen) { // keep all stopped for a while first
			frozen[order[i%len(frozen)]].Signal(syscall.SIGCONT)
		}
	}, func() {
		for _, k := range order {
			frozen[k].Signal(syscall.SIGCONT)
		}
	})
}

// repeat calls f repeatedly until the returned function is called, which also calls last.
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

// starve limits a node to a twentieth of a core.
func (n *nemesis) starve(t *testing.T, m *member, _ plan) func() {
	if !m.proc.Running() {
		return nil
	}
	return starve(t, m.proc, 5)
}

// starve limits a process to percent of a core until free is called.
func starve(t testing.TB, p *process, percent int) (free func()) {
	t.Helper()
	group, err := controlGroup(t,
		groupFiles{"/sys/fs/cgroup/cpu",
			map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": strconv.Itoa(1000 * percent)}},
		groupFiles{"/sys/fs/cgroup", map[string]string{"cpu.max": fmt.Sprintf("%d 100000", 1000*percent)}})
	if err != nil {
		t.Logf("no control group, %v: the process is stopped for most of each tenth of a second", err)
		return stopOften(p, percent)
	}
	pid := []byte(strconv.Itoa(p.cmd.Process.Pid))
	put := func(group string) {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), pid, 0); err != nil && p.Running() {
			t.Errorf("move a process to %s: %v", group, err)
		}
	}
	put(group)
	return func() { put(filepath.Dir(group)) }
}

// stopOften lets a process run for percent of each tenth of a second until free is called.
func stopOften(p *process, percent int) (free func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		const turn = 100 * time.Millisecond
		run := turn * time.Duration(percent) / 100
		for running := true; ; running = !running {
			signal, d := syscall.SIGSTOP, turn-run
			if !running {
				signal, d = syscall.SIGCONT, run
			}
			p.Signal(signal)
			select {
			case <-done:
				p.Signal(syscall.SIGCONT)
				return
			case <-time.After(d):
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// groupFiles are the settings of a control group below a root.
type groupFiles struct {
	root   string
	values map[string]string // by file
}

// controlGroup creates a control group below the first root that has these settings.
func controlGroup(t testing.TB, versions ...groupFiles) (dir string, err error) {
	t.Helper()
	for _, v := range versions {
		if dir, err = os.MkdirTemp(v.root, "revoked-"); err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // its processes have exited by then
		for name, value := range v.values {
			if err = setGroup(filepath.Join(dir, name), value); err != nil {
				break
			}
		}
		if err == nil {
			return dir, nil
		}
	}
	return "", err
}

// setGroup writes a setting of a control group. It never creates the file, so it fails in a
// directory that is not a control group.
func setGroup(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// dropping returns a fault that drops packets with filters.
func dropping(name string, drops func(m *member, others []*member, amount float64) []drop) func(*nemesis, *testing.T,
	*member, plan) func() {
	return func(n *nemesis, t *testing.T, m *member, p plan) func() {
		n.drops[name] = drops(m, n.without(m), p.amount)
		n.cutAll(t)
		return func() {
			delete(n.drops, name)
			n.cutAll(t)
		}
	}
}

// cutAll applies the drops of all faults.
func (n *nemesis) cutAll(t *testing.T) {
	var all []drop
	for _, drops := range n.drops {
		all = append(all, drops...)
	}
	n.cut(t, all)
}

// holding cuts one protocol of a node's cluster port, in one or both directions.
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

// delay adds delay and jitter to every link of a node.
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

// resets repeatedly resets all connections of a node.
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
		return nil // no leader, or no successor
	}
	return func() {}
}

// joinOrLeave makes the fourth node join, or leave if it is a member.
func (n *nemesis) joinOrLeave(t *testing.T, _ *member, _ plan) func() {
	if n.fourth.proc == nil || !n.fourth.proc.Running() {
		if n.admin(n.without(n.fourth)[0], "admit", map[string]any{"node": n.fourth.ID}) != nil {
			return nil // no leader, or it is still a member
		}
		n.leaving = false
		n.start(t, n.fourth)
		n.load.use(n.Nodes...)
		return func() {}
	}
	if n.readiness(n.fourth) != nil {
		return nil // still joining
	}
	n.leaving = true
	go func() { _ = n.admin(n.fourth, "leave", map[string]any{}) }() // success ends the process
	return func() {}
}
