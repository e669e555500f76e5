package rules

import (
	"fmt"
	"slices"
	"strings"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// runAudited runs op and, unless op is refused, writes its audit entry. An op that changes nothing
// gets one only if command.IsAlwaysAudited reports true. For a refused op, the node that refused
// the call proposes a Note instead.
func (a *Applier) runAudited(op *command.Op) Result {
	was := a.replaced(op)
	a.dirty, a.endedGrant, a.usedToken, a.withdrawn = false, "", "", ""
	r := a.run(op)
	if r.Err != nil || a.err != nil {
		return r
	}
	e, ok := command.Describe(op)
	if !ok {
		return r
	}
	changed := a.dirty
	if was != nil {
		changed = a.describeChange(&e, op, was)
	}
	switch {
	case op.GetMakeCutoff() != nil && e.Object.IssuedBefore == 0:
		e.Object.IssuedBefore = a.Stamp
	case e.Kind == revoked.AuditTokenRevoke:
		e.Object.GrantID = a.endedGrant
	case op.GetJoinNode() != nil, op.GetEnrollNode() != nil:
		e.Object.JoinToken = a.usedToken
	case op.GetDeleteJoinToken() != nil:
		e.Object.Node = a.withdrawn
	}
	switch {
	case r.Unknown:
		e.Detail = revoked.AuditUnknown
	case !changed && !command.IsAlwaysAudited(op):
		return r
	case !changed && !isMembership(op):
		e.Detail = revoked.AuditNoChange
	}
	if op.GetOrigin().GetChunk() {
		a.addToChunk(&e)
	} else {
		a.endChunk()
		a.audit(&e)
	}
	return r
}

// audit appends an entry to the audit log, with the index and the stamp of the current log entry.
func (a *access) audit(e *revoked.AuditEntry) {
	e.Index, e.Time = a.Index, a.Stamp
	a.keyBuf = rows.SeqKey(a.keyBuf[:0], rows.FamilyAudit, a.Index, a.auditSeq)
	a.rowBuf = rows.Append(a.rowBuf[:0], &rows.Audit{AuditEntry: *e})
	a.put(a.keyBuf, nil, a.keep(a.rowBuf))
	a.auditSeq++
	a.Audits++
	a.lastAudit = a.Index
}

// A chunk is the audit entry that neighboring operations of one call share. Its Count is 0 while it
// has no operation.
type chunk struct {
	revoked.AuditEntry
	changed bool
}

// addToChunk adds the entry of an operation to the current chunk. It first ends the chunk of
// another call.
func (a *Applier) addToChunk(e *revoked.AuditEntry) {
	c := &a.chunk
	if c.Count() > 0 && (c.Kind != e.Kind || c.Actor != e.Actor || c.RequestID != e.RequestID ||
		c.Object.Issuer != e.Object.Issuer || c.Reason != e.Reason) {
		a.endChunk()
	}
	n, changed := c.Count(), c.changed || e.Detail == ""
	*c = chunk{*e, changed}
	c.Object.JTI, c.Object.Count = "", n+1
}

// Count returns the number of operations in the chunk.
func (c *chunk) Count() uint64 { return c.Object.Count }

// endChunk writes the entry of the current chunk, if it has one.
func (a *Applier) endChunk() {
	c := a.chunk
	if a.chunk = (chunk{}); c.Count() == 0 || a.err != nil {
		return
	}
	if c.changed {
		c.Detail = ""
	}
	a.audit(&c.AuditEntry)
}

// replaced returns the record that op will replace: empty if op creates a record, nil if op
// replaces none.
func (a *Applier) replaced(op *command.Op) command.Record {
	switch k := op.Kind.(type) {
	case *command.Op_PutClient:
		if c := a.client(k.PutClient.GetClient().GetId()); c != nil {
			return command.ClientMessage(c)
		}
		return &command.ClientRecord{}
	case *command.Op_PutSettings:
		return command.SettingsMessage(a.currentSettings())
	case *command.Op_PutIssuer:
		if i := a.issuer(k.PutIssuer.GetIssuer().GetName()); i != nil {
			return command.IssuerMessage(&i.Issuer)
		}
		return &command.IssuerRecord{}
	}
	return nil
}

// describeChange adds to e the fields in which the new record differs from was, the record that op
// replaced. It reports whether they differ.
func (a *Applier) describeChange(e *revoked.AuditEntry, op *command.Op, was command.Record) (changed bool) {
	list := command.Changes(was, a.replaced(op))
	if e.Kind == revoked.AuditClientUpdate && slices.Contains(list, "secrets") {
		e.Kind = revoked.AuditClientSecret
	}
	switch e.Kind {
	case revoked.AuditClientCreate, revoked.AuditIssuerCreate:
		list = slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, "roles=") })
		changed = true
	}
	e.Detail = strings.Join(list, " ")
	return changed || len(list) > 0
}

// isMembership reports whether op may accompany a change outside the state, such as a change of
// Raft's configuration.
func isMembership(op *command.Op) bool {
	switch op.Kind.(type) {
	case *command.Op_Note, *command.Op_BarNode:
		return true
	case *command.Op_WithdrawNode:
		return op.GetActor().GetClientId() == ""
	}
	return false
}

// maxAsked is the maximum number of promotions and demotions that wait for their audit entry.
// Beyond that, the oldest call is dropped.
const maxAsked = 16

// askVote applies a step of a call that promotes or demotes a member. It stores the first step
// until a Members operation contains the change of the configuration. Another leader may propose
// that operation. If no such operation precedes the last step, the configuration did not change.
func (a *Applier) askVote(op *command.Op, changed bool) {
	m, call := op.GetSetVoting(), command.CallOf(op)
	v := rows.AskedVote{Node: m.Node, NonVoter: m.NonVoter, Changed: changed, Actor: call.Actor, Via: call.Node,
		Call: call.RequestID, Version: call.ActorVersion}
	next := *a.currentMembers()
	if m.Call == command.VoteAsked {
		if n := len(next.Asked) + 1 - maxAsked; n > 0 {
			next.Asked = next.Asked[n:]
		}
		next.Asked = append(slices.Clone(next.Asked), v)
		a.putMembers(&next)
		return
	}
	at := slices.IndexFunc(next.Asked, func(o rows.AskedVote) bool {
		return o.Node == v.Node && o.Actor == v.Actor && o.Via == v.Via && o.Call == v.Call
	})
	if at < 0 { // the audit entry of the call exists already
		return
	}
	asked := next.Asked[at]
	next.Asked = slices.Delete(slices.Clone(next.Asked), at, at+1)
	a.putMembers(&next)
	if m.Call == command.VoteUndone {
		return
	}
	detail := ""
	if !asked.Changed {
		detail = revoked.AuditNoChange
	}
	a.auditVote(&asked, detail)
}

// auditVote writes the entry of a promotion or a demotion.
func (a *Applier) auditVote(v *rows.AskedVote, detail string) {
	e := revoked.AuditEntry{Kind: revoked.AuditClusterPromote, Actor: v.Actor, ActorVersion: v.Version, Node: v.Via,
		RequestID: v.Call, Detail: detail}
	if v.NonVoter {
		e.Kind = revoked.AuditClusterDemote
	}
	e.Object.Node = v.Node
	a.audit(&e)
}

// noteMembers compares the configuration with the one recorded in the audit log. It writes an entry
// for each difference, unless another entry covers it. The first configuration leaves no entries.
func (a *Applier) noteMembers(m *command.Members) Result {
	was := a.currentMembers()
	if was.Index != m.Since {
		return Result{Err: fmt.Errorf("%w: the audit log records the members as of index %d, not %d", revoked.ErrConflict,
			was.Index, m.Since)}
	}
	next := rows.Members{Index: a.Index, List: m.List(), Asked: was.Asked}
	if was.Index != 0 {
		for i := range next.List {
			a.auditMember(was, &next, &next.List[i])
			a.restoreAdmission(was, &next.List[i])
		}
		a.auditRemovals(was, &next)
	}
	a.putMembers(&next)
	return Result{}
}

// auditMember writes the entries about a server that was added or changed. It writes none for a
// node with a new name, because JoinNode writes that entry.
func (a *Applier) auditMember(was, next *rows.Members, v *command.NotedMember) {
	node := nodeOf(v.Server)
	i := slices.IndexFunc(was.List, func(o command.NotedMember) bool { return o.Server == v.Server })
	if i < 0 {
		if old := instanceOf(was.List, node); old != "" {
			a.auditOwn(revoked.AuditClusterJoin, node,
				fmt.Sprintf("new instance %s, in addition to %s", instance(v.Server), old))
		}
		return
	}
	old := &was.List[i]
	if old.Address != v.Address {
		a.auditOwn(revoked.AuditClusterJoin, node, fmt.Sprintf("address %s, was %s", v.Address, old.Address))
	}
	if old.Voter == v.Voter {
		return
	}
	i = slices.IndexFunc(next.Asked, func(o rows.AskedVote) bool { return o.Node == node && o.NonVoter != v.Voter })
	if i >= 0 {
		a.auditVote(&next.Asked[i], "")
		next.Asked = slices.Delete(slices.Clone(next.Asked), i, i+1)
		return
	}
	own := rows.AskedVote{Node: node, NonVoter: !v.Voter, Actor: revoked.ActorCluster}
	switch x := a.admission(node); {
	case v.Voter:
		a.auditVote(&own, "it had caught up")
	case x != nil && x.NonVoter:
		a.auditVote(&own, "admitted as a non-voter")
	default:
		a.auditVote(&own, "configured as a non-voter")
	}
}

// auditRemovals writes the entries about instances that other instances have replaced. It writes
// none for a node that was removed or left, because BarNode or WithdrawNode writes that entry.
func (a *Applier) auditRemovals(was, next *rows.Members) {
	for _, v := range was.List {
		node := nodeOf(v.Server)
		stays := slices.ContainsFunc(next.List, func(o command.NotedMember) bool { return o.Server == v.Server })
		successor := instanceOf(next.List, node)
		x := a.admission(node)
		if stays || successor == "" || x != nil && (x.State == revoked.Barred || x.State == revoked.Withdrawn) {
			continue
		}
		a.auditOwn(revoked.AuditClusterRemove, node,
			fmt.Sprintf("instance %s, replaced by %s", instance(v.Server), successor))
	}
}

// auditOwn writes an entry about a change of a node that the cluster made on its own.
func (a *Applier) auditOwn(kind revoked.AuditKind, node, detail string) {
	e := revoked.AuditEntry{Kind: kind, Actor: revoked.ActorCluster, Detail: command.CleanReason(detail)}
	e.Object.Node = node
	a.audit(&e)
}

// nodeOf returns the node id of a server id. instance returns the rest.
func nodeOf(server string) string {
	node, _, _ := strings.Cut(server, "/")
	return node
}

func instance(server string) string {
	_, rest, _ := strings.Cut(server, "/")
	return rest
}

// instanceOf returns the instance of a node in a list, or "". If there are two, it returns the last
// one.
func instanceOf(list []command.NotedMember, node string) (found string) {
	for _, v := range list {
		if nodeOf(v.Server) == node {
			found = instance(v.Server)
		}
	}
	return found
}

// currentMembers returns the configuration recorded in the audit log. It must not be changed.
func (a *access) currentMembers() *rows.Members {
	if a.members != nil {
		return a.members
	}
	return &a.mem.Members
}

// putMembers writes m. The caller must not change m afterwards.
func (a *access) putMembers(m *rows.Members) {
	key := rows.MembersKey()
	a.put(key, a.get(key), rows.Append(nil, m))
	if !a.dry {
		a.members = m
	}
}

// dropMembers deletes the configuration that is stored for the audit log, because a new cluster
// begins with one member.
func (a *access) dropMembers() {
	key := rows.MembersKey()
	a.del(key, a.get(key))
	a.members = &rows.Members{}
}
