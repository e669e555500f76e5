package fsm

import (
	"errors"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/lookup"
	"revoked/fsm/rows"
	"revoked/fsm/rules"
	"revoked/fsm/store"
)

// DryRun reports whether op is a no-op in the current state, and if so its result. The leader does
// not propose a no-op: it responds once a later entry has committed. Result.Index is an applied
// index at which op was a no-op.
//
// DryRun runs the code of Apply on a unit that drops its writes, so both use the same rules.
func (f *FSM) DryRun(op *command.Op) (r Result, isNoop bool) {
	s, err := f.acquire()
	if err != nil {
		return Result{Err: err}, true
	}
	defer s.Release()
	if f.hasNewToken(s, op.GetRegister()) {
		return Result{}, false
	}
	r, dirty, err := f.dryRun(s, op)
	if err != nil || dirty {
		return Result{}, false // Apply will encounter the same error and report it
	}
	// The rows may be ahead of the published index. An index that is read after the rows covers all of
	// them. With an earlier index, the leader would send the response before the result is final.
	key := []byte{rows.FamilyApplied}
	row, err := s.Get(key)
	if err == nil && row != nil {
		var applied rows.Applied
		err = rows.Parse(key, row, &applied)
		r.Index = applied.Index
	}
	if r.Register.Index != 0 {
		r.Register.Index = r.Index
	}
	return r, err == nil
}

// Review returns the error with which the newest rules refuse a registration in the current state.
// The leader calls it while a member is too old for an entry with these rules.
func (f *FSM) Review(op *command.Op) error {
	s, err := f.acquire()
	if err != nil {
		return err
	}
	defer s.Release()
	r, _, err := f.dryRun(s, op)
	return errors.Join(err, r.Err)
}

// hasNewToken reports whether m registers a new token for a known client. This is the common case,
// and it needs no dry run.
func (f *FSM) hasNewToken(s *store.Store, m *command.Register) bool {
	if _, known := f.Client(m.GetClientId()); m == nil || !known {
		return false
	}
	for _, spec := range m.Tokens {
		if len(spec.GetDigest()) != len(revoked.Digest{}) {
			return false
		}
		if _, ok, err := lookup.Token(s, revoked.Digest(spec.Digest)); err != nil || !ok {
			return true
		}
	}
	return false
}

// dryRun runs op on a dry unit. It holds FSM.mu for reading, so that no commit publishes memory
// during the run. Rows may still be ahead of memory.
func (f *FSM) dryRun(s *store.Store, op *command.Op) (r Result, dirty bool, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return rules.DryRun(s, &f.mem, f.rules, op)
}
