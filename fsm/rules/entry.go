package rules

import (
	"fmt"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// Scans reports whether a command scans the store. A scan reads committed rows only, so commit the
// entries before such a command first.
func Scans(c command.Command) bool {
	switch c.(type) {
	case *command.Expire, *command.Compact:
		return true
	}
	return false
}

// Command applies a command of the log. data is the entry as it is in the log. Only a Batch has
// results, one for each operation. Invariant: the results and the rows depend only on the command,
// the state and the index, so every member computes the same ones.
//
// The results are undefined if Err is not nil afterwards.
func (a *Applier) Command(index, term uint64, data []byte, c command.Command) []Result {
	a.begin(index, term)
	a.LogHash = rows.NextLogHash(a.LogHash, index, term, data)
	a.advance(revoked.Time(c.GetStamp()))
	results := a.command(c)
	a.recordHashes()
	return results
}

// Configuration applies an entry with a Raft configuration. It changes no row of the state.
func (a *Applier) Configuration(index, term uint64) {
	a.begin(index, term)
	a.ConfigIndex = index
	a.recordHashes()
}

// Noop applies an entry without content.
func (a *Applier) Noop(index, term uint64) {
	a.begin(index, term)
	a.recordHashes()
}

// command applies one command. Only a Batch has results. Invariant: the results depend only on the
// command, the state and the index, so every member computes the same ones.
func (a *Applier) command(c command.Command) (results []Result) {
	switch c := c.(type) {
	case *command.Batch:
		a.prefetch(c.Ops)
		a.recordVersion(c)
		a.rules, a.audited = c.Rules, c.Audited
		results = make([]Result, len(c.Ops))
		for i, op := range c.Ops {
			results[i] = a.op(op)
		}
		a.endChunk()
	case *command.Epoch:
		a.recordVersion(c)
		a.openTerm(c)
	case *command.Tick:
	case *command.Bootstrap:
		a.recordVersion(c)
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

// recordVersion records the version of a command if it is the highest one yet. Snapshots contain
// the row, so a member that installs a snapshot gets the version without the log.
func (a *Applier) recordVersion(c interface{ Version() uint32 }) {
	known := max(a.mem.Version.Commands, a.version.Commands, 1)
	if known >= command.Version {
		return
	}
	version := rows.Version{Commands: uint64(c.Version())}
	if version.Commands <= known {
		return
	}
	a.putVersion(version)
}

// putVersion records the version, which is higher than the recorded one. From command.JTIRules on,
// an older program can no longer open the store. The index of the jtis is complete at this moment,
// because each start completes it. So the mark spares later starts a scan of all tokens.
func (a *access) putVersion(version rows.Version) {
	key := []byte{rows.FamilyVersion}
	a.put(key, a.get(key), rows.Append(nil, &version))
	a.version = version
	if version.Commands >= command.JTIRules {
		a.set(rows.JTIsIndexedKey(), []byte{1})
	}
}

// op applies one operation of a batch. A result without an index gets that of the current entry.
func (a *Applier) op(op *command.Op) Result {
	var r Result
	if a.audited {
		r = a.runAudited(op)
	} else {
		r = a.run(op)
	}
	if r.Index == 0 {
		r.Index = a.Index
	}
	if r.Err != nil {
		r.Register.Err = r.Err
	}
	return r
}

// run checks the operation and its actor, then applies the rule of its kind. The version of the
// actor must be the one that was authenticated: a client that has changed since must not act with
// its previous rights.
func (a *Applier) run(op *command.Op) Result {
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
	if err := a.useAssertion(op.Actor); err != nil {
		return Result{Err: err}
	}
	if err := mayPropose(actor, op); err != nil {
		return Result{Err: err}
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
		return a.updateSettings(k.PutSettings)
	case *command.Op_PutIssuer:
		return a.updateIssuer(actor, k.PutIssuer)
	case *command.Op_DeleteIssuer:
		return a.deleteIssuer(actor, k.DeleteIssuer.Name)
	case *command.Op_PutIssuerKeys, *command.Op_Acknowledge, *command.Op_Members:
		return Result{Err: fmt.Errorf("%w: only the leader may propose this operation", revoked.ErrForbidden)}
	case *command.Op_BanIssuerKey:
		return a.banKey(actor, k.BanIssuerKey)
	case *command.Op_RevokeJwt:
		return a.revokeJWT(actor, k.RevokeJwt)
	case *command.Op_Note:
		return Result{} // changes only the audit log
	}
	return a.membershipOp(op)
}

// mayPropose returns ErrForbidden unless actor has a role for op. For a revocation, the rule of the
// operation checks whose tokens the actor may revoke. An operator must not be able to gain further
// rights: only administrators may change clients, issuers and cut-offs.
func mayPropose(actor *revoked.Client, op *command.Op) error {
	switch op.Kind.(type) {
	case *command.Op_Revoke, *command.Op_RevokeJwt:
		return nil
	case *command.Op_Register, *command.Op_DeleteGrant:
		return actor.Require(revoked.RoleAdmin, revoked.RoleIssuer)
	case *command.Op_PutSettings, *command.Op_AdmitNode, *command.Op_WithdrawNode, *command.Op_BarNode,
		*command.Op_JoinNode, *command.Op_SetVoting, *command.Op_CreateJoinToken, *command.Op_DeleteJoinToken,
		*command.Op_Note:
		return actor.Require(revoked.RoleAdmin, revoked.RoleOperator)
	}
	return actor.Require(revoked.RoleAdmin)
}

// ownOp applies an operation of the cluster itself. Such an operation has no actor whose rights
// could be checked. Only the leader proposes it, after its own checks.
func (a *Applier) ownOp(op *command.Op) Result {
	switch k := op.Kind.(type) {
	case *command.Op_PutIssuerKeys:
		return a.updateKeys(k.PutIssuerKeys)
	case *command.Op_Note:
		return Result{}
	case *command.Op_Acknowledge:
		return a.acknowledge(k.Acknowledge)
	case *command.Op_Members:
		return a.noteMembers(k.Members)
	}
	return a.membershipOp(op)
}

// DryRun runs op as the next entry would, with the newest rules, and drops the changes. The result
// dirty reports whether op changed anything apart from the audit log. The caller must hold the lock
// of mem for reading.
func DryRun(s *store.Store, mem *memory.State, opts Options, op *command.Op) (r Result, dirty bool, err error) {
	a := New(s, mem, opts)
	a.dry, a.rules = true, command.Rules
	r = a.op(op)
	a.Close()
	return r, a.dirty, a.err
}
