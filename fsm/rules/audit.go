package rules

import (
	"slices"
	"strings"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// runAudited runs op and, unless op is refused, writes its audit entry, even if op changed nothing.
// For a refused op, the node that refused the call proposes a Note instead.
func (a *Applier) runAudited(op *command.Op) Result {
	was := a.replaced(op)
	a.dirty, a.endedGrant = false, ""
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

// audit appends an entry to the audit, with the index and the stamp of the current log entry.
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

// Count returns the number of operations.
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

// describeChange adds to e the fields in which the new record differs from was, the one that op
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

// isMembership reports whether op may go with a change of the configuration or another change that
// the state does not show.
func isMembership(op *command.Op) bool {
	switch op.Kind.(type) {
	case *command.Op_Note, *command.Op_BarNode, *command.Op_JoinNode:
		return true
	case *command.Op_WithdrawNode:
		return op.GetActor().GetClientId() == ""
	}
	return false
}
