// Package command defines the commands of the replicated log: their encoding, their limits, and the
// operations of a batch.
//
// Encode returns the same bytes on every member. Decode never panics and refuses a command of a
// type, or with a field, unknown to this program. A command contains digests of tokens and hashes
// of secrets, never the tokens or secrets.
//
// Dangerous: the limits are part of the meaning of the log. Two members whose limits differ apply
// the same entry differently, and their states diverge. See Version.
package command

import "slices"

//go:generate sh -c "cd ../.. && protoc -I . --go_out=. --go_opt=module=revoked fsm/command/command.proto"

// Version is the highest version of operations that this program can apply. Raise it with every new
// operation or field, and return the new value from VersionOf for that operation. Members report
// their Version; a leader proposes an operation only if every member can apply it.
const Version = 8

// Audit is the version of audited commands. The leader audits an entry if every member has at least
// that Version. [VersionOf] ignores the origin of an operation: the leader drops the origin from
// entries that are not audited.
const Audit = 5

// OwnLease is the version of an Epoch that limits the leader's own lease.
const OwnLease = 5

// KeyTokens is the version of join tokens with a key.
const KeyTokens = 7

// Enrollment is the version of certificates that a node gets for a join token.
const Enrollment = 8

// Rules is the newest value of Batch.rules. The leader sets the newest value that every member
// supports, according to the Version of each. Apply uses the rules that an entry names, so an old
// entry keeps its rules. See fsm/DESIGN.md.
const Rules = JTIRules

const (
	// RegisterRules decide who may add to a grant, and which issued_at a token may have.
	RegisterRules = 2
	// JTIRules make the denial of a jti revoke the registered grants that have a token with this
	// jti.
	JTIRules = 6
)

// Version returns the lowest Version of a program that can apply m.
func (m *Batch) Version() uint32 {
	version := max(m.GetRules(), 1)
	if m.GetAudited() {
		version = max(version, Audit)
	}
	for _, op := range m.GetOps() {
		version = max(version, VersionOf(op))
	}
	return version
}

// VersionOf returns the lowest Version of a program that can apply op. Never remove an operation
// from VersionOf, because an old log may be replayed at any time.
func VersionOf(op *Op) uint32 {
	if op.GetActor().GetAssertion() != nil {
		return 5
	}
	switch op.GetKind().(type) {
	case *Op_AdmitNode, *Op_WithdrawNode, *Op_BarNode, *Op_JoinNode, *Op_SetVoting, *Op_CreateJoinToken,
		*Op_DeleteJoinToken:
		switch {
		case op.GetJoinNode().GetHasKey(), op.GetCreateJoinToken().GetHasKey():
			return KeyTokens
		case op.GetSetVoting().GetCall() != 0:
			return Audit
		}
		return 2
	case *Op_EnrollNode:
		return Enrollment
	case *Op_PutIssuer, *Op_DeleteIssuer, *Op_PutIssuerKeys, *Op_BanIssuerKey, *Op_RevokeJwt:
		return 3
	case *Op_Note, *Op_Acknowledge, *Op_Members:
		return Audit
	case *Op_PutSettings:
		return versionOfSettings(op.GetPutSettings().GetSettings())
	case *Op_PutClient:
		return versionOfClients(op.GetPutClient().GetClient())
	}
	return 1
}

// Version returns the lowest Version of a program that can apply m.
func (m *Epoch) Version() uint32 {
	if m.GetServer() != "" || m.GetOwnLease() != 0 {
		return OwnLease
	}
	return 1
}

// Version returns the lowest Version of a program that can apply m.
func (m *Bootstrap) Version() uint32 {
	if m.GetAudited() {
		return Audit
	}
	return max(versionOfClients(m.GetClients()...), versionOfSettings(m.GetSettings()))
}

// versionOfSettings returns the lowest Version of a program that supports the fields of the record.
func versionOfSettings(m *SettingsRecord) uint32 {
	if m.GetAuditRetention() != 0 || m.GetAuditMaxEntries() != 0 {
		return 5
	}
	return 1
}

// versionOfClients returns the lowest Version of a program that supports the roles and the methods
// of the records.
func versionOfClients(records ...*ClientRecord) uint32 {
	switch {
	case slices.ContainsFunc(records, (*ClientRecord).hasStrongMethods):
		return 5
	case slices.ContainsFunc(records, (*ClientRecord).GetOperatorRoles):
		return 4
	}
	return 1
}
