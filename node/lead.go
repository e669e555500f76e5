package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked/fsm"
)

// watchLeadership follows Raft's word about this node's leadership and runs one term of it at a time.
// Raft's word is a hint: what a term may do begins with an entry of its own.
func (n *Node) watchLeadership(ctx context.Context) {
	var running *termRun
	defer func() { running.stop() }()
	for {
		select {
		case w := <-n.herald.news:
			running.stop()
			running = nil
			if w.leads {
				running = n.beginTerm(ctx, w.number)
			}
			n.leaderChange.announce()
		case <-ctx.Done():
			return
		}
	}
}

// A termRun is one term of leadership under way; nil is none.
type termRun struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (n *Node) beginTerm(ctx context.Context, word uint64) *termRun {
	ctx, cancel := context.WithCancel(ctx)
	r := &termRun{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		n.lead(ctx, word)
	}()
	return r
}

func (r *termRun) stop() {
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// lead runs one term. Until its first command, a real one, has been applied here, nothing is
// proposed, acknowledged or answered on the strength of it: a no-op never reaches the state machine.
// Its books open only while Raft's word that this node leads is still its last.
func (n *Node) lead(ctx context.Context, word uint64) {
	term := n.raft.CurrentTerm()
	conf, err := n.configuration()
	if err != nil {
		return
	}
	n.cfg.seams.trace(traceEvent{kind: traceElected, node: n.self, term: term})
	n.stamps.reset(n.fsm.Stamp())
	n.stamps.setVoters(voterIDs(conf))
	n.peers.lead(time.Now(), conf)
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	w := newWatchdog(n)
	wg.Go(func() { w.run(inner) })
	epoch, ok := n.openTerm(ctx, term)
	if !ok || n.raft.CurrentTerm() != term { // the word was late: the next one begins another term
		return
	}
	if conf, err = n.configuration(); err != nil {
		return
	}
	current := false
	n.herald.hold(func() {
		if current = n.herald.number == word; current {
			n.leases.begin(term, epoch, serverIDs(conf))
		}
	})
	if !current {
		return
	}
	defer n.leases.end()
	p := newProposer(n, term)
	n.proposer.Store(p)
	n.leaderChange.announce()
	n.log.Info("leading", "term", term)
	defer n.log.Info("no longer leading", "term", term)
	defer n.leaderChange.announce()
	defer n.proposer.Store(nil)

	wg.Go(func() { n.leases.expire(inner) })
	wg.Go(func() { n.leaseSelf(inner, p, w) })
	voters := n.startAutopilot(inner)
	go func() { // the bootstrap and the chores need the proposer's reports and clocks, not its queue
		n.found(inner)
		n.chores(inner)
		voters.stop()
		cancel()
	}()
	p.run(ctx)
	cancel()
	<-voters.stopped
	wg.Wait()
}

// openTerm commits and applies the first command of the term.
func (n *Node) openTerm(ctx context.Context, term uint64) (epoch uint64, ok bool) {
	for ctx.Err() == nil {
		cmd := &fsm.Epoch{Stamp: int64(n.stamps.stamp()), Term: term, Node: n.cfg.NodeID}
		epoch, err := n.proposeCommand(fsm.TypeEpoch, cmd)
		switch {
		case err == nil:
			return epoch, true
		case n.raft.State() != raft.Leader:
			return 0, false
		}
		n.log.Warn("first command of the term failed", "term", term, "error", err)
		n.pause(ctx, retryPause) // during a transfer of leadership it fails at once
	}
	return 0, false
}

// proposeCommand commits one command of the cluster's own and returns its index once applied here.
func (n *Node) proposeCommand(t fsm.Type, m proto.Message) (uint64, error) {
	data, err := fsm.Encode(t, m)
	if err != nil {
		return 0, err
	}
	f := n.raft.Apply(data, n.cfg.RequestTimeout)
	if err := f.Error(); err != nil {
		return 0, applyError(err)
	}
	return f.Index(), nil
}

// found gives a new cluster its id, its settings and its first clients: once, by the first leader,
// when a majority's clocks have been heard.
func (n *Node) found(ctx context.Context) {
	for n.fsm.ClusterID() == "" && ctx.Err() == nil {
		if !n.stamps.settled() {
			n.pause(ctx, 20*time.Millisecond)
			continue
		}
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			n.fatal(err)
			return
		}
		cmd := &fsm.Bootstrap{Stamp: int64(n.stamps.stamp()), ClusterId: hex.EncodeToString(b)}
		cmd.Settings = fsm.SettingsMessage(n.cfg.Defaults)
		for i := range n.cfg.BootstrapClients {
			cmd.Clients = append(cmd.Clients, fsm.ClientMessage(&n.cfg.BootstrapClients[i]))
		}
		if _, err := n.proposeCommand(fsm.TypeBootstrap, cmd); err != nil {
			n.log.Warn("founding the cluster failed, trying again", "error", err)
			n.pause(ctx, retryPause)
		}
	}
}

// chores does what the leader owes the state: expiry, reaping, members that fell silent, replaced
// instances.
func (n *Node) chores(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		conf, err := n.configuration()
		if err != nil {
			return
		}
		n.peers.configure(conf)
		n.leases.members(conf)
		n.stamps.setVoters(voterIDs(conf))
		if round%10 == 0 {
			n.sweep(ctx)
			n.retireReplaced()
		}
	}
}

// sweep proposes background commands while there is something to do, leaving room for callers.
func (n *Node) sweep(ctx context.Context) {
	for range 64 {
		t, m, ok := n.fsm.Backlog(n.stamps.stamp())
		if !ok || ctx.Err() != nil {
			return
		}
		switch m := m.(type) {
		case *fsm.Expire:
			m.Stamp = int64(n.stamps.stamp())
		case *fsm.Reap:
			m.Stamp = int64(n.stamps.stamp())
		}
		if _, err := n.proposeCommand(t, m); err != nil {
			return
		}
	}
}

func serverIDs(conf raft.Configuration) []raft.ServerID {
	ids := make([]raft.ServerID, len(conf.Servers))
	for i, s := range conf.Servers {
		ids[i] = s.ID
	}
	return ids
}

func voterIDs(conf raft.Configuration) []string {
	var ids []string
	for _, s := range conf.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// pause waits d or until ctx ends.
func (n *Node) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
