package fsm

import "revoked"

// Settled reports whether op would change nothing in the present state, and what the answer is then:
// the leader leaves it out of the log and answers once a later entry has committed. The check of the
// actor is part of it. Result.Index is the applied index at which that was seen.
//
// It runs the very code of Apply, over a copy that is thrown away. A registration with a token that
// is not known, for a client that is, is told apart early: it is the common one.
func (f *FSM) Settled(op *Op) (Result, bool) {
	s, err := f.acquire()
	if err != nil {
		return Result{Err: err}, true
	}
	defer s.release()
	if r := op.GetRegister(); r != nil && f.knows(r.ClientId) {
		for _, spec := range r.Tokens {
			if len(spec.GetDigest()) != len(revoked.Digest{}) {
				break
			}
			if _, ok, err := s.token(revoked.Digest(spec.Digest)); err != nil || !ok {
				return Result{}, false
			}
		}
	}
	r, dirty, err := f.dryRun(s, op)
	if err != nil || dirty {
		return Result{}, false // an error Apply will meet too, and says so
	}
	// The rows may be ahead of what is published. An index read after them is not below what they
	// showed; an older one would let the answer out before it is final.
	row, err := s.get([]byte{famApplied})
	if err != nil {
		return Result{}, false
	}
	if row != nil {
		a, err := parseApplied(row)
		if err != nil {
			return Result{}, false
		}
		r.Index = a.Index
		if r.Register.Index != 0 {
			r.Register.Index = a.Index
		}
	}
	return r, true
}

func (f *FSM) knows(client string) bool {
	_, ok := f.Client(client)
	return ok
}

func (f *FSM) dryRun(s *store, op *Op) (r Result, dirty bool, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	t := f.newTx(s, &f.mem, true)
	r = t.op(op)
	return r, t.dirty, t.err
}
