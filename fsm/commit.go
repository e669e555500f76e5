package fsm

import (
	"revoked/fsm/rules"
	"revoked/fsm/store"
)

// A Result is the outcome of one operation.
type Result = rules.Result

// begin returns the Applier of the next commit. Apply uses one Applier at a time, because all of
// them share f.scratch.
func (f *FSM) begin(s *store.Store) *rules.Applier {
	a := rules.New(s, &f.mem, f.rules)
	a.Scratch = f.scratch.Reuse()
	return a
}

// commit writes the rows of a, updates memory, notifies Changes and, last, publishes the applied
// index. It reports an error to Config.Fatal.
//
// The order matters. A reader that has waited for the index finds the new rows and the new memory.
// By then the cache has dropped every record that the commit changed.
func (f *FSM) commit(a *rules.Applier, s *store.Store) {
	err := a.Commit()
	f.scratch = a.Scratch
	if err != nil {
		f.failed.report(err)
		return
	}
	f.mu.Lock()
	a.Publish()
	for _, p := range a.Hashes() {
		f.ring.push(p)
	}
	f.mu.Unlock()
	if a.ClientsChanged() {
		// A node authenticates clients before it has replayed its log, so every change of a client,
		// such as disabling it, must be durable now. Clients change rarely.
		if err := f.flush(s); err != nil {
			return
		}
	}
	if c := f.cfg.Changes; c != nil {
		tokens, grants := a.Changed()
		for i := range tokens {
			c.TokenChanged(tokens[i])
		}
		for _, id := range grants {
			c.GrantChanged(id)
		}
	}
	f.progress.Advance(a.Index)
	if last := a.LastEvent(); last > 0 {
		f.events.Advance(last)
	}
	if last := a.LastAudit(); last > 0 {
		f.audits.Advance(last)
	}
}
