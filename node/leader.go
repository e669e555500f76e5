package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/retry"
	"revoked/node/lease"
	"revoked/node/liveness"
	"revoked/node/propose"
	"revoked/node/raftstore"
	"revoked/node/roster"
)

// A leader does the work of the terms in which this node leads. The leadership type calls its run
// method for one term at a time. The method returns only when everything that it started has ended,
// so the work of two terms never overlaps.
type leader struct {
	nodeID     string
	log        *slog.Logger
	raft       raftstore.Log
	fsm        *fsm.FSM
	leases     *leases
	leadership *leadership
	roster     *roster.Roster
	propose    *propose.Router
	timeout    time.Duration // longest wait for one command
	defaults   revoked.Settings
	clients    []revoked.Client // clients of a new cluster
	canAudit   func() error

	refused func(lease.Refusal)         // counts a refusal of the node's own lease
	fatal   func(error)                 // stops the node
	hung    func(stalled time.Duration) // ends the process, because Raft is waiting for a disk that hangs
}

// run leads one term until ctx ends. change is the number of the leadership change that began it.
//
// A leadership change is only a hint. The term opens once its first command is applied on this
// node, and only if no other leadership change was received by then. A no-op entry does not
// suffice, because it never reaches the state machine.
func (l *leader) run(ctx context.Context, change uint64) {
	term := l.raft.CurrentTerm()
	conf, err := l.roster.Configuration()
	if err != nil {
		return
	}
	l.roster.StartTerm(conf)
	inner, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	w := liveness.NewWatchdog(liveness.Watchdog{
		Log: l.log, RenewEvery: l.leases.renewEvery, Transfer: l.roster.TransferAway, Hung: l.hung,
		Lease: func() time.Duration { return l.leases.settings().LeaseDuration },
	})
	wg.Go(func() { w.Run(inner) })
	first, own, ok := l.openTerm(ctx, term)
	if !ok || l.raft.CurrentTerm() != term { // a newer change begins another term
		return
	}
	if conf, err = l.roster.Configuration(); err != nil {
		return
	}
	p := l.propose.NewProposer(term)
	previous := l.fsm.LeaderBefore(term)
	opened := lease.Term{Number: term, First: first, Members: serverIDs(conf), Leader: own,
		Previous: lease.Leader{Server: previous.Server, Own: previous.OwnLease}}
	if !l.leadership.open(change, func() { l.leases.begin(opened, p.Barrier) }) {
		return
	}
	defer l.leases.end()
	l.leadership.setProposer(p)
	l.log.Info("leading", "term", term)
	defer l.log.Info("no longer leading", "term", term)
	defer l.leadership.setProposer(nil)

	wg.Go(func() { l.leases.expire(inner) })
	wg.Go(func() { l.leadership.keys.Run(inner) })
	wg.Go(func() { l.leadership.finals.run(inner, p, l.fsm, l.log) })
	wg.Go(func() {
		l.leases.renewOwn(inner, term, renewal{l.fsm.Applied, w.Feed, l.roster.ClockOutlier, l.refused})
	})
	wg.Go(func() {
		defer cancel()
		defer l.roster.StartVoters(inner).Stop()
		l.initCluster(inner)
		l.maintain(inner, term)
	})
	p.Run(ctx)
	cancel()
	wg.Wait()
}

// openTerm commits the first command of the term and returns its index once this node has applied
// it. It retries until the command commits or Raft is no longer the leader. Without this command, a
// term grants no lease and acknowledges nothing.
//
// The command contains the maximum length of this node's own lease, which limits how long the next
// leader must wait. Before openTerm proposes the command, it adopts the term. That drops the lease
// that this node held as a member, because the maximum does not apply to that lease.
func (l *leader) openTerm(ctx context.Context, term uint64) (first uint64, own lease.Leader, ok bool) {
	l.leases.adopt(term)
	if l.roster.IsKnown(command.OwnLease) {
		length := lease.OwnLength(l.leases.settings().LeaseDuration).Truncate(time.Microsecond)
		own = lease.Leader{Server: l.leases.server, Own: length}
	}
	for ctx.Err() == nil {
		cmd := &command.Epoch{Stamp: int64(l.roster.Clock.Stamp()), Term: term, Node: l.nodeID,
			Server: own.Server, OwnLease: own.Own.Microseconds()}
		out, err := l.commit(cmd)
		switch {
		case err == nil:
			return out.Index, own, true
		case l.raft.State() != raft.Leader:
			return 0, own, false
		}
		l.log.Warn("cannot commit the first command of a term", "term", term, "error", err)
		_ = retry.Sleep(ctx, propose.RetryPause) // Raft rejects the command immediately while leadership is transferred
	}
	return 0, own, false
}

// commit proposes a command that no client requested, and returns the outcome once this node has
// applied it. l.timeout bounds the wait for Raft to accept the command. After an error the command
// may still commit. A leader's commands are harmless if they are applied late.
func (l *leader) commit(c command.Command) (fsm.Outcome, error) {
	data, err := command.Encode(c)
	if err != nil {
		return fsm.Outcome{}, err
	}
	f := l.raft.Apply(data, l.timeout)
	if err := f.Error(); err != nil {
		return fsm.Outcome{}, propose.ApplyError(err)
	}
	out, _ := f.Response().(*fsm.Outcome)
	if out == nil { // the state machine has failed and will stop this node
		return fsm.Outcome{}, fmt.Errorf("%w: apply: %v", revoked.ErrOutcomeUnknown, f.Response())
	}
	return *out, nil
}

// initCluster gives a new cluster its id, settings and first clients. It waits until a majority of
// the members has reported their clocks. Otherwise the command's stamp would depend on a single
// clock, and stamps never go back. A member that does not support a record of the command would
// stop when it applies the command. So initCluster waits until such a member has been upgraded.
func (l *leader) initCluster(ctx context.Context) {
	for refused := ""; l.fsm.ClusterID() == "" && ctx.Err() == nil; {
		if !l.roster.Clock.HasMajority() {
			_ = retry.Sleep(ctx, 20*time.Millisecond)
			continue
		}
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			l.fatal(err)
			return
		}
		audit := l.canAudit()
		if errors.Is(audit, revoked.ErrNoLeader) { // a member has not reported yet, and may support the audit log
			_ = retry.Sleep(ctx, propose.RetryPause)
			continue
		}
		cmd := command.NewBootstrap(l.defaults, l.clients)
		cmd.Audited = audit == nil
		cmd.Stamp, cmd.ClusterId = int64(l.roster.Clock.Stamp()), hex.EncodeToString(b)
		if err := l.roster.CanApply(cmd.Version()); err != nil {
			if err.Error() != refused && !errors.Is(err, revoked.ErrNoLeader) { // a member's version is too old
				l.log.Warn("cannot initialize cluster: a member does not support a bootstrap client", "error", err)
				refused = err.Error()
			}
			_ = retry.Sleep(ctx, propose.RetryPause)
			continue
		}
		if _, err := l.commit(cmd); err != nil {
			l.log.Warn("cannot initialize cluster", "error", err)
			_ = retry.Sleep(ctx, propose.RetryPause)
		}
	}
}

// Until ctx ends, maintain follows the configuration, commits overdue marks and runs background
// commands. Once a second it also reconciles the members with the state. All of this runs in one
// goroutine, so background commands never overlap.
func (l *leader) maintain(ctx context.Context, term uint64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	work := background{commit: l.commit, keepUp: func(index uint64) {
		l.leases.keepUp(ctx, term, index, l.roster.WriteLoad)
	}}
	var resume time.Time
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if l.roster.FollowConfiguration() != nil {
			return
		}
		l.recordMarks()
		if now := time.Now(); !now.Before(resume) {
			resume = now.Add(work.run(ctx, l.fsm, l.roster.Clock.Stamp))
		}
		if i%10 == 0 {
			l.roster.Reconcile()
		}
	}
}

// recordMarks commits the members' progress marks if they are overdue. In an idle cluster the
// regular ticks already contain the marks, so recordMarks adds entries only under load. A failure
// is harmless: the next marks are due soon.
func (l *leader) recordMarks() {
	if marks := l.roster.OverdueMarks(); marks != nil {
		_, _ = l.commit(&command.Tick{Stamp: int64(l.roster.Clock.Stamp()), Marks: marks})
	}
}

// serverIDs returns the ids of all servers, voters or not: each of them may hold a lease.
func serverIDs(conf raft.Configuration) []string {
	ids := make([]string, len(conf.Servers))
	for i, s := range conf.Servers {
		ids[i] = string(s.ID)
	}
	return ids
}
