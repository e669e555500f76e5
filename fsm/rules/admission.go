package rules

import (
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// membershipOp applies an operation on admissions and join tokens. Without an actor, the cluster
// itself proposed it.
func (a *Applier) membershipOp(op *command.Op) Result {
	by := op.GetActor().GetClientId()
	switch k := op.Kind.(type) {
	case *command.Op_AdmitNode:
		return a.admitNode(by, k.AdmitNode)
	case *command.Op_WithdrawNode:
		return a.withdrawNode(by, k.WithdrawNode.Node)
	case *command.Op_BarNode:
		return a.barNode(by, k.BarNode)
	case *command.Op_JoinNode:
		return a.joinNode(k.JoinNode)
	case *command.Op_EnrollNode:
		return a.enrollNode(k.EnrollNode)
	case *command.Op_SetVoting:
		return a.setVoting(by, op)
	case *command.Op_CreateJoinToken:
		return a.createJoinToken(by, k.CreateJoinToken)
	case *command.Op_DeleteJoinToken:
		return a.deleteJoinToken(by, k.DeleteJoinToken.Id)
	}
	a.fail(fmt.Errorf("operation %T: Apply has no case for it", op.Kind))
	return Result{}
}

// admitNode admits a node, even one that is barred. Joined and barred nodes do not count toward
// MaxAdmissions, because the configuration and MaxBars limit them.
func (a *Applier) admitNode(by string, m *command.AdmitNode) Result {
	counts := func(v *revoked.Admission) bool {
		return v.Node != m.Node && (v.State == revoked.Admitted || v.State == revoked.Withdrawn)
	}
	if n := countStaged(a.mem.Admissions, a.admissions, counts); n >= revoked.MaxAdmissions {
		return Result{Err: fmt.Errorf("%w: too many admissions: %d nodes are admitted or were withdrawn in the last day",
			revoked.ErrUnprocessable, n)}
	}
	if err := a.checkKey(a.admission(m.Node), revoked.Digest{}); err != nil {
		return Result{Err: err}
	}
	a.decide(revoked.Admission{
		Node: m.Node, State: revoked.Admitted, NonVoter: m.NonVoter, By: by,
		ExpiresAt: a.Stamp.Add(time.Duration(m.Ttl)),
	})
	return Result{}
}

// withdrawNode withdraws an admission. For a node that is no longer admitted, it changes nothing.
// The argument by is empty if the leader withdraws a node that has left.
func (a *Applier) withdrawNode(by, node string) Result {
	switch old := a.admission(node); {
	case old == nil && by == "": // an initial member left
		a.decide(revoked.Admission{Node: node, State: revoked.Withdrawn})
	case old == nil:
		return Result{Err: fmt.Errorf("%w: node %q is not admitted", revoked.ErrNotFound, node)}
	case old.State == revoked.Admitted || old.State == revoked.Joined:
		a.decide(a.withdrawnFrom(old, by))
	}
	return Result{}
}

// withdrawnFrom returns the withdrawn admission that replaces v. If the node got a certificate for
// a join token, withdrawnFrom keeps its key while that certificate may be valid.
func (a *Applier) withdrawnFrom(v *revoked.Admission, by string) revoked.Admission {
	w := revoked.Admission{Node: v.Node, State: revoked.Withdrawn, NonVoter: v.NonVoter, By: by}
	if !v.Key.IsZero() && a.Stamp < v.KeyUntil {
		w.JoinToken, w.Key, w.KeyUntil = v.JoinToken, v.Key, v.KeyUntil
	}
	return w
}

// checkKey returns ErrConflict while a certificate with another key, issued for a join token, may
// be valid for the node name of v (may be nil). Members identify a node by the name in its
// certificate. So the holder of that certificate could act as the node that later joins with this
// name.
func (a *Applier) checkKey(v *revoked.Admission, key revoked.Digest) error {
	if v == nil || v.Key.IsZero() || v.Key == key || a.Stamp >= v.KeyUntil ||
		v.State != revoked.Admitted && v.State != revoked.Withdrawn {
		return nil
	}
	return fmt.Errorf("%w: %s has a certificate with another key from a join token, valid until %s: "+
		"use another name until then", revoked.ErrConflict, v.Node, v.KeyUntil.Std().UTC().Format(time.RFC3339))
}

// barNode bars a node. If the node is already barred, the first reason stays.
func (a *Applier) barNode(by string, m *command.BarNode) Result {
	old := a.admission(m.Node)
	if old != nil && old.State == revoked.Barred {
		return Result{}
	}
	isBarred := func(v *revoked.Admission) bool { return v.State == revoked.Barred }
	if n := countStaged(a.mem.Admissions, a.admissions, isBarred); n >= revoked.MaxBars {
		return Result{Err: fmt.Errorf("%w: too many barred nodes (%d): admit some of them and then withdraw these admissions",
			revoked.ErrUnprocessable, n)}
	}
	a.decide(revoked.Admission{
		Node: m.Node, State: revoked.Barred, NonVoter: old != nil && old.NonVoter, By: by, Reason: m.Reason,
	})
	return Result{}
}

// joinNode uses up the token and the admission of a node. A node may present a token that it used
// before, because its configuration still names the token file. Then only its admission counts. A
// node that has joined does not use up another token.
func (a *Applier) joinNode(m *command.JoinNode) Result {
	old := a.admission(m.Node)
	barred := old != nil && old.State == revoked.Barred
	joined := revoked.Admission{Node: m.Node, State: revoked.Joined}
	admitted := old != nil && old.Open(a.Stamp)
	// For an admitted node, the leader has compared the key.
	if err := a.checkKey(old, revoked.Digest{}); err != nil && !admitted {
		return Result{Err: err}
	}
	if admitted {
		joined.NonVoter, joined.By = old.NonVoter, old.By
		joined.JoinToken, joined.Key, joined.KeyUntil = old.JoinToken, old.Key, old.KeyUntil
	}
	if t := a.tokenFor(m, old); t != nil && (!admitted || old.State == revoked.Admitted) {
		used := *t
		used.UsedBy, used.UsedAt = m.Node, a.Stamp
		a.putJoinToken(&used)
		joined.NonVoter, joined.By = joined.NonVoter || t.NonVoter, t.By
		if t.HasKey {
			a.usedToken = t.ID
			if !admitted { // an earlier admission does not end with the token
				joined.JoinToken = t.ID
			}
		}
		admitted = true
	}
	switch {
	case !admitted:
		return Result{Err: revoked.NotAdmittedError(m.Node, barred)}
	case old == nil || old.State != revoked.Joined:
		a.decide(joined)
	}
	return Result{}
}

// setVoting records whether a member may vote. It changes nothing else in the admission of the
// member.
func (a *Applier) setVoting(by string, op *command.Op) Result {
	m, changed := op.GetSetVoting(), true
	switch old := a.admission(m.Node); {
	case m.Call == command.VoteSettled:
	case old == nil && m.NonVoter: // an initial member
		a.decide(revoked.Admission{Node: m.Node, State: revoked.Joined, NonVoter: true, By: by})
	case old != nil && old.NonVoter != m.NonVoter:
		next := *old
		next.NonVoter = m.NonVoter
		a.putAdmission(&next)
	default:
		changed = false
	}
	if m.Call != 0 {
		a.askVote(op, changed)
	}
	return Result{}
}

// hasNotJoined reports whether the node of v is admitted, or has used its admission, but is not a
// member. The leader uses up an admission just before it adds the node, so the state Joined does
// not prove membership. The members in the state come from Members operations, which follow the
// changes of Raft's configuration. If Raft adds the node in between, noteMembers restores the
// admission.
func (a *Applier) hasNotJoined(v *revoked.Admission) bool {
	members := a.currentMembers()
	return v.State == revoked.Admitted ||
		v.State == revoked.Joined && members.Index != 0 && instanceOf(members.List, v.Node) == ""
}

// restoreAdmission restores the admission of a new member if an administrator withdrew it while
// Raft added the node. Otherwise the record that the node must not vote would be lost.
func (a *Applier) restoreAdmission(was *rows.Members, v *command.NotedMember) {
	node := nodeOf(v.Server)
	if max(a.mem.Version.Commands, a.version.Commands) < command.KeyTokens || instanceOf(was.List, node) != "" {
		return
	}
	if x := a.admission(node); x != nil && x.State == revoked.Withdrawn {
		a.decide(revoked.Admission{Node: node, State: revoked.Joined, NonVoter: x.NonVoter, By: x.By,
			JoinToken: x.JoinToken, Key: x.Key, KeyUntil: x.KeyUntil})
	}
}

// expireAdmission drops an admission that has expired, or that was withdrawn long ago.
func (a *Applier) expireAdmission(node string, due revoked.Time) {
	v := a.admission(node)
	if v == nil || (&rows.Admission{Admission: *v}).Due() != due {
		a.fail(errStray("admission", node))
		return
	}
	a.dropAdmission(v)
}

// forgetAdmissions drops every admission, bar and join token. Only the members of the configuration
// remain admitted.
func (a *Applier) forgetAdmissions() {
	for _, v := range stagedValues(a.mem.Admissions, a.admissions) {
		a.dropAdmission(v)
	}
	for _, v := range stagedValues(a.mem.JoinTokens, a.joinTokens) {
		a.dropJoinToken(v)
	}
	a.dropMembers()
}

// decide writes v with the stamp and index of the current entry.
func (a *Applier) decide(v revoked.Admission) {
	v.At, v.Index = a.Stamp, a.Index
	a.putAdmission(&v)
}

// admission returns the admission of a node, or nil if it has none. The caller must not change it.
func (a *access) admission(node string) *revoked.Admission {
	if v, ok := a.admissions[node]; ok {
		return v
	}
	return a.mem.Admissions[node]
}

// putAdmission writes v, which must not change afterwards, and moves its queue entry.
func (a *access) putAdmission(v *revoked.Admission) {
	key := rows.Key(nil, rows.FamilyAdmission, v.Node)
	row := rows.Admission{Admission: *v}
	a.requeue(key, a.admissionDue(v.Node), row.Due())
	a.put(key, a.get(key), rows.Append(nil, &row))
	put(&a.admissions, v.Node, v)
}

func (a *access) dropAdmission(v *revoked.Admission) {
	key := rows.Key(nil, rows.FamilyAdmission, v.Node)
	a.requeue(key, a.admissionDue(v.Node), 0)
	a.del(key, a.get(key))
	put(&a.admissions, v.Node, nil)
}

// admissionDue returns the time of the queue entry of a node's admission, or 0 without one.
func (a *access) admissionDue(node string) revoked.Time {
	old := a.admission(node)
	if old == nil {
		return 0
	}
	return (&rows.Admission{Admission: *old}).Due()
}

// stagedValues returns the values of mem with the changes in staged. Their order is random, so a
// caller may only count them or treat them all in the same way.
func stagedValues[V any](mem, staged map[string]*V) (list []*V) {
	for key, v := range mem {
		if _, changed := staged[key]; !changed {
			list = append(list, v)
		}
	}
	for _, v := range staged {
		if v != nil {
			list = append(list, v)
		}
	}
	return list
}

// countStaged returns the number of stagedValues for which the function counts returns true.
func countStaged[V any](mem, staged map[string]*V, counts func(*V) bool) (n int) {
	for _, v := range stagedValues(mem, staged) {
		if counts(v) {
			n++
		}
	}
	return n
}
