package fsm

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// An Outcome is the response of Apply to a command.
type Outcome struct {
	Index   uint64
	Results []Result // one for each operation of a Batch
	// Took is how long this node needed to apply the entries of the same call.
	Took time.Duration
}

// maxCommitBytes is the approximate size of the largest commit. A batch larger than half a memtable
// would make Pebble flush at once.
const maxCommitBytes = 4 << 20

// Apply implements raft.FSM.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The response to a command is an *Outcome. It has no
// results if the state already includes the command. The response to a configuration is nil. After
// a failure every response is an error.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	s, err := f.acquire()
	if err != nil {
		for i := range out {
			out[i] = err
		}
		return out
	}
	defer s.Release()
	started := time.Now()
	a := f.begin(s)
	pending := false
	for i, l := range logs {
		if f.failed.bad.Load() {
			break
		}
		if l.Index <= a.Index {
			out[i] = f.skip(a, l)
			continue
		}
		var c command.Command
		if l.Type == raft.LogCommand {
			if c, err = command.Decode(l.Data); err != nil {
				f.failed.report(fmt.Errorf("log entry %d: %w", l.Index, err))
				break
			}
		}
		if pending && (a.size > maxCommitBytes || scans(c)) {
			f.commit(a)
			a = f.begin(s)
		}
		out[i] = a.entry(l, c)
		if a.err != nil {
			f.failed.report(fmt.Errorf("log entry %d: %w", l.Index, a.err))
		}
		pending = true
	}
	if pending && !f.failed.bad.Load() {
		f.commit(a)
	}
	a.close()
	took := time.Since(started)
	for i := range out {
		if o, ok := out[i].(*Outcome); ok {
			o.Took = took
		}
	}
	if f.failed.bad.Load() {
		for i := range out {
			out[i] = fmt.Errorf("%w: the state machine has failed", revoked.ErrOutcomeUnknown)
		}
	}
	return out
}

// skip returns the response to an entry at or below the applied index. An entry with a later term
// than the state is not from the log of this state, which is fatal.
func (f *FSM) skip(a *applier, l *raft.Log) any {
	if l.Term > a.Term {
		f.failed.report(fmt.Errorf("log entry %d: got term %d, but the state at index %d has term %d",
			l.Index, l.Term, a.Index, a.Term))
	}
	if l.Type != raft.LogCommand {
		return nil
	}
	return &Outcome{Index: l.Index}
}

// scans reports whether a command scans the store. A scan reads committed rows only.
func scans(c command.Command) bool {
	switch c.(type) {
	case *command.Expire, *command.Compact:
		return true
	}
	return false
}

// entry applies a log entry; c is nil unless the entry is a command.
func (a *applier) entry(l *raft.Log, c command.Command) (answer any) {
	a.Index, a.Term, a.seq = l.Index, l.Term, 0
	if c != nil {
		a.LogHash = rows.NextLogHash(a.LogHash, l.Index, l.Term, l.Data)
		a.advance(revoked.Time(c.GetStamp()))
		answer = &Outcome{Index: l.Index, Results: a.command(c)}
	} else if l.Type == raft.LogConfiguration {
		a.ConfigIndex = l.Index
	}
	a.recordHashes()
	return answer
}

// command applies one command. Only a Batch has results. Invariant: the results depend only on the
// command, the state and the index, so every member computes the same ones.
func (a *applier) command(c command.Command) (results []Result) {
	switch c := c.(type) {
	case *command.Batch:
		a.prefetch(c.Ops)
		a.recordVersion(c)
		a.rules = c.Rules
		results = make([]Result, len(c.Ops))
		for i, op := range c.Ops {
			results[i] = a.op(op)
		}
	case *command.Epoch:
		a.openTerm(c)
	case *command.Tick:
	case *command.Bootstrap:
		a.bootstrap(c)
	case *command.Expire:
		a.expire(revoked.Time(c.Before), clampLimit(c.Limit))
	case *command.Compact:
		a.compact(clampLimit(c.Limit))
	default:
		a.fail(fmt.Errorf("command %T: unknown", c))
	}
	return results
}

// recordVersion records the version of a batch if it is the highest one yet.
func (a *applier) recordVersion(c *command.Batch) {
	known := max(a.mem.version.Commands, a.version.Commands, 1)
	if known >= command.Version {
		return
	}
	version := rows.Version{Commands: uint64(c.Version())}
	if version.Commands <= known {
		return
	}
	key := []byte{rows.FamilyVersion}
	a.put(key, a.get(key), rows.Append(nil, &version))
	a.version = version
}

// Version returns the highest version of a command that the state includes. A program of a lower
// version (command.Version) cannot be a member: it would have stopped at that command.
func (f *FSM) Version() uint32 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return uint32(max(f.mem.version.Commands, 1))
}

// op applies one operation of a batch.
func (a *applier) op(op *command.Op) Result {
	r := a.run(op)
	if r.Index == 0 {
		r.Index = a.Index
	}
	if r.Err != nil {
		r.Register.Err = r.Err
	}
	return r
}

// run checks the operation and its actor, then applies the rule of its kind. The version of the
// actor must be the one that authenticated: a client that has changed must not act with its old
// rights.
func (a *applier) run(op *command.Op) Result {
	if err := command.Admit(op); err != nil {
		return Result{Err: err}
	}
	if op.GetActor().GetClientId() == "" { // Admit has checked that op may be the cluster's own
		return a.ownOp(op)
	}
	actor := a.client(op.Actor.ClientId)
	if actor == nil || actor.Disabled || actor.Version != op.Actor.Version {
		return Result{Err: fmt.Errorf("%w: client %q", revoked.ErrActorChanged, op.Actor.ClientId)}
	}
	switch k := op.Kind.(type) {
	case *command.Op_Register:
		return a.register(actor, k.Register)
	case *command.Op_Revoke:
		return a.revoke(actor, k.Revoke)
	case *command.Op_DeleteGrant:
		return a.deleteGrant(actor, k.DeleteGrant)
	case *command.Op_MakeCutoff:
		return a.makeCutoff(actor, k.MakeCutoff)
	case *command.Op_PutClient:
		return a.updateClient(actor, k.PutClient)
	case *command.Op_DeleteClient:
		return a.deleteClient(actor, k.DeleteClient)
	case *command.Op_PutSettings:
		return a.updateSettings(actor, k.PutSettings)
	case *command.Op_PutIssuer:
		return a.updateIssuer(actor, k.PutIssuer)
	case *command.Op_DeleteIssuer:
		return a.deleteIssuer(actor, k.DeleteIssuer.Name)
	case *command.Op_PutIssuerKeys:
		return Result{Err: fmt.Errorf("%w: only the leader brings fetched keys", revoked.ErrForbidden)}
	case *command.Op_BanIssuerKey:
		return a.banKey(actor, k.BanIssuerKey)
	case *command.Op_RevokeJwt:
		return a.revokeJWT(actor, k.RevokeJwt)
	}
	return a.membershipOp(actor, op)
}

// ownOp applies an operation of the cluster itself.
func (a *applier) ownOp(op *command.Op) Result {
	if k, ok := op.Kind.(*command.Op_PutIssuerKeys); ok {
		return a.updateKeys(k.PutIssuerKeys)
	}
	return a.membershipOp(nil, op)
}

// DryRun reports whether op is a no-op in the current state, and if so its result. The leader does
// not propose a no-op: it responds once a later entry has committed. Result.Index is an applied
// index at which op was a no-op.
//
// DryRun runs the code of Apply on a unit that drops its writes, so no second set of rules can
// disagree.
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
	// The rows may be ahead of the published index. An index that is read after the rows covers
	// everything they showed. An earlier index would release the response before it is final.
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
		if _, ok, err := readToken(s, revoked.Digest(spec.Digest)); err != nil || !ok {
			return true
		}
	}
	return false
}

// dryRun runs op on a dry unit. It holds FSM.mu for reading, so that no commit publishes memory
// meanwhile. Rows may still be ahead of memory.
func (f *FSM) dryRun(s *store.Store, op *command.Op) (r Result, dirty bool, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := f.newApplier(s)
	a.dry, a.rules = true, command.Rules
	r = a.op(op)
	a.close()
	return r, a.dirty, a.err
}
