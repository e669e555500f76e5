package fsm

import (
	"log/slog"

	"revoked"
	"revoked/fsm/store"
)

// A Result is the outcome of one operation.
type Result struct {
	Err error // wraps a sentinel of the root package
	// Index is a log index at which the outcome holds: the index of the entry or, for a no-op, an
	// applied index at which it was a no-op.
	Index    uint64
	Register revoked.RegisterResult
	// Ended reports that a registration made an older token inactive, by rotation or by a
	// tombstone. Like a revocation, this is final only when every member has applied it.
	Ended bool
	// Unknown reports a revocation of a token that the state does not hold.
	Unknown bool
}

// An applier implements the rules by which log entries change the state. It is not safe for
// concurrent use.
type applier struct {
	access
	rules       uint32 // command.Rules of the batch in hand; 0: those of Version 1
	denialQuota uint64
	log         *slog.Logger
}

// newApplier returns an applier with a new unit. The caller must hold FSM.mu or be Apply.
func (f *FSM) newApplier(s *store.Store) *applier {
	return &applier{log: f.log, denialQuota: f.denialQuota, access: access{
		unit: unit{Applied: f.mem.applied, store: s, seeker: s.NewSeeker()},
		mem:  &f.mem, staged: staged{queueFloor: f.mem.queueFloor},
	}}
}

// begin returns the applier of the next commit. Apply uses one at a time, because they share a
// scratch.
func (f *FSM) begin(s *store.Store) *applier {
	a := f.newApplier(s)
	a.scratch = f.scratch.reuse()
	return a
}

// commit writes the rows of a, updates memory, notifies Changes and, last, publishes the applied
// index. It reports an error to Config.Fatal.
func (f *FSM) commit(a *applier) {
	err := a.commit()
	f.scratch = a.scratch
	if err != nil {
		f.failed.report(err)
		return
	}
	f.mu.Lock()
	a.publish()
	for _, p := range a.points {
		f.ring.push(p)
	}
	f.mu.Unlock()
	if a.clients != nil {
		// A node authenticates clients before it has replayed its log, so every change of a client,
		// such as disabling it, must be durable now. Clients change rarely.
		if err := f.flush(a.store); err != nil {
			return
		}
	}
	if c := f.cfg.Changes; c != nil {
		for i := range a.tokensChanged {
			c.TokenChanged(a.tokensChanged[i])
		}
		for _, id := range a.grantsChanged {
			c.GrantChanged(id)
		}
	}
	f.progress.advance(a.Index)
	if a.lastEvent > 0 {
		f.events.advance(a.lastEvent)
	}
}

// advance raises the stamp, which never decreases.
func (a *applier) advance(stamp revoked.Time) { a.Stamp = max(a.Stamp, stamp) }

// recordHashes keeps the hashes at this index for HashesAt. Every entry records them, even one that
// changes nothing, because members may compare them at any index.
func (a *applier) recordHashes() {
	a.points = append(a.points, hashPoint{index: a.Index, log: a.LogHash, state: a.State.Bytes()})
}
