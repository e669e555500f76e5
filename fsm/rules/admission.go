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

// admitNode admits a node, even one that is barred. Joined and barred nodes do not count: the
// configuration and MaxBars bound them.
func (a *Applier) admitNode(by string, m *command.AdmitNode) Result {
	counts := func(v *revoked.Admission) bool {
		return v.Node != m.Node && (v.State == revoked.Admitted || v.State == revoked.Withdrawn)
	}
	if n := countStaged(a.mem.Admissions, a.admissions, counts); n >= revoked.MaxAdmissions {
		return Result{Err: fmt.Errorf("%w: %d nodes are admitted or were withdrawn in the last day, the maximum",
			revoked.ErrUnprocessable, n)}
	}
	a.decide(revoked.Admission{
		Node: m.Node, State: revoked.Admitted, NonVoter: m.NonVoter, By: by,
		ExpiresAt: a.Stamp.Add(time.Duration(m.Ttl)),
	})
	return Result{}
}

// withdrawNode ends an admission. For a node that is no longer admitted, it changes nothing. by is
// empty if the leader withdraws a node that has left.
func (a *Applier) withdrawNode(by, node string) Result {
	switch old := a.admission(node); {
	case old == nil && by == "": // a founder left
		a.decide(revoked.Admission{Node: node, State: revoked.Withdrawn})
	case old == nil:
		return Result{Err: fmt.Errorf("%w: node %q is not admitted", revoked.ErrNotFound, node)}
	case old.State == revoked.Admitted || old.State == revoked.Joined:
		a.decide(revoked.Admission{Node: node, State: revoked.Withdrawn, NonVoter: old.NonVoter, By: by})
	}
	return Result{}
}

// barNode bars a node. The first reason stays.
func (a *Applier) barNode(by string, m *command.BarNode) Result {
	old := a.admission(m.Node)
	if old != nil && old.State == revoked.Barred {
		return Result{}
	}
	isBarred := func(v *revoked.Admission) bool { return v.State == revoked.Barred }
	if n := countStaged(a.mem.Admissions, a.admissions, isBarred); n >= revoked.MaxBars {
		return Result{Err: fmt.Errorf("%w: %d nodes are barred, the maximum: admit and withdraw old ones",
			revoked.ErrUnprocessable, n)}
	}
	a.decide(revoked.Admission{
		Node: m.Node, State: revoked.Barred, NonVoter: old != nil && old.NonVoter, By: by, Reason: m.Reason,
	})
	return Result{}
}

// joinNode uses up the token and the admission of a node. A node may present a token that it used
// before, because its configuration still names the file: then its admission decides. A node that
// has joined spends no further token.
func (a *Applier) joinNode(m *command.JoinNode) Result {
	old := a.admission(m.Node)
	barred := old != nil && old.State == revoked.Barred
	joined := revoked.Admission{Node: m.Node, State: revoked.Joined}
	admitted := old != nil && old.Open(a.Stamp)
	if admitted {
		joined.NonVoter, joined.By, joined.JoinToken, joined.Key = old.NonVoter, old.By, old.JoinToken, old.Key
	}
	if t := a.tokenFor(m, old); t != nil && (!admitted || old.State == revoked.Admitted) {
		used := *t
		used.UsedBy, used.UsedAt = m.Node, a.Stamp
		a.putJoinToken(&used)
		joined.NonVoter, joined.By = joined.NonVoter || t.NonVoter, t.By
		if t.HasKey {
			a.usedToken = t.ID
			if !admitted { // else the end of the token leaves the other admission
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

// tokenFor returns the join token of m if it admits the node, else nil. old is the admission of the
// node. A barred node needs a token that names it and is newer than the bar.
func (a *Applier) tokenFor(m *command.JoinNode, old *revoked.Admission) *revoked.JoinToken {
	if len(m.TokenHash) == 0 {
		return nil
	}
	t := a.joinTokenByHash(revoked.Digest(m.TokenHash))
	// The public key of a token is not secret, so it must not pass for a token of the older form.
	if t == nil || t.HasKey != m.HasKey || !t.Admits(m.Node, a.Stamp) {
		return nil
	}
	if !passesBar(t, old) {
		return nil
	}
	return t
}

// passesBar reports whether t admits a node with that admission, if it is barred: only a token that
// names it and is newer does.
func passesBar(t *revoked.JoinToken, old *revoked.Admission) bool {
	return old == nil || old.State != revoked.Barred || t.Node != "" && t.Index > old.Index
}

// enrollNode uses a join token for a node and the key of its certificate. The node is then admitted
// until the end of the token, with that key only. Another key, or another node, cannot use the
// token. A name that has joined gets no certificate: it would be that of a member.
func (a *Applier) enrollNode(m *command.EnrollNode) Result {
	t, old := a.joinTokenByHash(revoked.Digest(m.TokenHash)), a.admission(m.Node)
	key := revoked.Digest(m.Key)
	switch {
	case t == nil || !t.HasKey || t.DeletedAt != 0 || a.Stamp >= t.ExpiresAt:
		return Result{Err: revoked.ErrTokenEnded}
	case old != nil && old.State == revoked.Joined || instanceOf(a.currentMembers().List, m.Node) != "":
		return Result{Err: fmt.Errorf("%w: %s has joined already: its certificate does not come from a join token",
			revoked.ErrConflict, m.Node)}
	case t.UsedBy == m.Node && old != nil && old.JoinToken == t.ID && old.Key == key && old.Open(a.Stamp):
		return Result{} // a repeat
	case t.UsedBy != "":
		return Result{Err: fmt.Errorf("%w: join token: another node or another key has used it", revoked.ErrForbidden)}
	case t.Node != "" && t.Node != m.Node:
		return Result{Err: fmt.Errorf("%w: join token: it is for another node", revoked.ErrForbidden)}
	case !passesBar(t, old):
		return Result{Err: revoked.NotAdmittedError(m.Node, true)}
	}
	used := *t
	used.UsedBy, used.UsedAt = m.Node, a.Stamp
	a.putJoinToken(&used)
	a.usedToken = t.ID
	a.decide(revoked.Admission{
		Node: m.Node, State: revoked.Admitted, By: t.By, ExpiresAt: t.ExpiresAt, JoinToken: t.ID, Key: key,
		NonVoter: t.NonVoter || old != nil && old.Open(a.Stamp) && old.NonVoter,
	})
	return Result{}
}

// setVoting records whether a member may vote. It changes nothing else of its admission.
func (a *Applier) setVoting(by string, op *command.Op) Result {
	m, changed := op.GetSetVoting(), true
	switch old := a.admission(m.Node); {
	case m.Call == command.VoteSettled:
	case old == nil && m.NonVoter: // a founder
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

// createJoinToken creates a token. A repeat changes nothing. The state holds the digest of the
// token only, so a reader of the state cannot join.
func (a *Applier) createJoinToken(by string, m *command.CreateJoinToken) Result {
	hash := revoked.Digest(m.Hash)
	old, same := a.joinToken(m.Id), a.joinTokenByHash(hash)
	switch {
	case old != nil && old == same:
		return Result{}
	case old != nil || same != nil:
		return Result{Err: fmt.Errorf("%w: the join token exists", revoked.ErrConflict)}
	}
	if n := len(stagedValues(a.mem.JoinTokens, a.joinTokens)); n >= revoked.MaxJoinTokens {
		return Result{Err: fmt.Errorf("%w: %d join tokens exist or ended in the last day, the maximum",
			revoked.ErrUnprocessable, n)}
	}
	a.putJoinToken(&revoked.JoinToken{
		ID: m.Id, Hash: hash, HasKey: m.HasKey, Node: m.Node, NonVoter: m.NonVoter, By: by, Index: a.Index,
		CreatedAt: a.Stamp, ExpiresAt: a.Stamp.Add(time.Duration(m.Ttl)),
	})
	return Result{}
}

// deleteJoinToken deletes a token, and withdraws the admission that it gave, unless the node has
// joined. A repeat changes nothing. The row stays for a day, so that the repeat finds it.
func (a *Applier) deleteJoinToken(by, id string) Result {
	old := a.joinToken(id)
	if old == nil {
		return Result{Err: fmt.Errorf("%w: join token %q", revoked.ErrNotFound, id)}
	}
	if old.DeletedAt == 0 {
		next := *old
		next.DeletedAt = a.Stamp
		a.putJoinToken(&next)
	}
	if v := a.admission(old.UsedBy); v != nil && v.JoinToken == old.ID && a.hasNotJoined(v) {
		a.decide(revoked.Admission{Node: v.Node, State: revoked.Withdrawn, NonVoter: v.NonVoter, By: by})
		a.withdrawn = v.Node
	}
	return Result{}
}

// hasNotJoined reports whether the node of v has or used its admission, but is not a member. The
// leader uses an admission up just before it adds the node, so Joined alone does not tell. The
// state knows the members from the audit, which is later than Raft. If Raft adds the node
// meanwhile, noteMembers restores the admission.
func (a *Applier) hasNotJoined(v *revoked.Admission) bool {
	members := a.currentMembers()
	return v.State == revoked.Admitted ||
		v.State == revoked.Joined && members.Index != 0 && instanceOf(members.List, v.Node) == ""
}

// restoreAdmission gives a new member the admission back that an administrator withdrew while Raft
// added the node. Without it, the cluster would forget that the node must not vote.
func (a *Applier) restoreAdmission(was *rows.Members, v *command.NotedMember) {
	node := nodeOf(v.Server)
	if max(a.mem.Version.Commands, a.version.Commands) < command.KeyTokens || instanceOf(was.List, node) != "" {
		return
	}
	if x := a.admission(node); x != nil && x.State == revoked.Withdrawn {
		a.decide(revoked.Admission{Node: node, State: revoked.Joined, NonVoter: x.NonVoter, By: x.By})
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

// expireJoinToken drops a join token that ended long ago.
func (a *Applier) expireJoinToken(id string, due revoked.Time) {
	v := a.joinToken(id)
	if v == nil || (&rows.JoinToken{JoinToken: *v}).Due() != due {
		a.fail(errStray("join token", id))
		return
	}
	a.dropJoinToken(v)
}

// forgetAdmissions drops every admission, bar and join token: only the members of the configuration
// remain.
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

// admissionDue returns the time of the queue entry of a node's admission, 0 if it has none.
func (a *access) admissionDue(node string) revoked.Time {
	old := a.admission(node)
	if old == nil {
		return 0
	}
	return (&rows.Admission{Admission: *old}).Due()
}

// joinToken returns a join token, nil if it does not exist. The caller must not change it.
func (a *access) joinToken(id string) *revoked.JoinToken {
	if v, ok := a.joinTokens[id]; ok {
		return v
	}
	return a.mem.JoinTokens[id]
}

// joinTokenByHash returns the join token with that digest, or nil.
func (a *access) joinTokenByHash(hash revoked.Digest) *revoked.JoinToken {
	for _, v := range a.joinTokens {
		if v != nil && v.Hash == hash {
			return v
		}
	}
	if v := a.mem.JoinTokenByHash(hash); v != nil && a.joinToken(v.ID) == v {
		return v
	}
	return nil
}

// putJoinToken writes v, which must not change afterwards, and moves its queue entry.
func (a *access) putJoinToken(v *revoked.JoinToken) {
	key := rows.Key(nil, rows.FamilyJoinToken, v.ID)
	row := rows.JoinToken{JoinToken: *v}
	a.requeue(key, a.joinTokenDue(v.ID), row.Due())
	a.put(key, a.get(key), rows.Append(nil, &row))
	put(&a.joinTokens, v.ID, v)
}

func (a *access) dropJoinToken(v *revoked.JoinToken) {
	key := rows.Key(nil, rows.FamilyJoinToken, v.ID)
	a.requeue(key, a.joinTokenDue(v.ID), 0)
	a.del(key, a.get(key))
	put(&a.joinTokens, v.ID, nil)
}

// joinTokenDue returns the time of the queue entry of a join token, 0 if it does not exist.
func (a *access) joinTokenDue(id string) revoked.Time {
	old := a.joinToken(id)
	if old == nil {
		return 0
	}
	return (&rows.JoinToken{JoinToken: *old}).Due()
}

// stagedValues returns the values as a unit sees them. Their order is random, so a caller may only
// count them or treat them all in the same way.
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

// countStaged counts values as a unit sees them.
func countStaged[V any](mem, staged map[string]*V, counts func(*V) bool) (n int) {
	for _, v := range stagedValues(mem, staged) {
		if counts(v) {
			n++
		}
	}
	return n
}
