package command

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
)

// Limits of the texts of an audit entry, in bytes. Longer texts are cut. Apply depends on these
// limits, as on those of an operation, so they never change.
const (
	maxAuditText   = 512
	maxAuditOrigin = 64
)

// NoteOp returns the operation that records e. It uses only Kind, Object, Reason, Detail and
// Refused. The zero actor is the cluster.
func NoteOp(by revoked.Actor, e revoked.AuditEntry) *Op {
	o := e.Object
	m := &Note{
		Kind: string(e.Kind), Reason: e.Reason, Detail: e.Detail, Refused: e.Refused,
		Object: &AuditObject{
			ClientId: o.ClientID, GrantId: o.GrantID, Name: o.Name, Issuer: o.Issuer, Node: o.Node, Thumbprint: o.Thumbprint,
			JoinToken: o.JoinToken,
		},
	}
	if !o.Digest.IsZero() {
		m.Object.Digest = o.Digest[:]
	}
	return newOp(by, &Op_Note{Note: m})
}

// OnBehalf makes caller the actor in the audit entry of op, an operation of the cluster itself.
func OnBehalf(op *Op, caller revoked.Actor) *Op {
	if caller.ClientID != "" {
		op.Origin = &Origin{RequestId: caller.RequestID, Node: caller.Via, Caller: ActorMessage(caller)}
	}
	return op
}

// Via sets the node that received the call of op, unless op names one.
func Via(op *Op, node string) *Op {
	if node == "" || op.GetOrigin().GetNode() != "" || !IsAudited(op) && op.GetSetVoting().GetCall() == 0 {
		return op
	}
	if op.Origin == nil {
		op.Origin = new(Origin)
	}
	op.Origin.Node = node
	return op
}

// InChunk marks op to share an audit entry with the neighboring operations of the same call.
func InChunk(op *Op) *Op {
	if op.Origin == nil {
		op.Origin = new(Origin)
	}
	op.Origin.Chunk = true
	return op
}

// WithoutOrigin returns op in the form that programs before version [Audit] support. It does not
// modify op.
func WithoutOrigin(op *Op) *Op {
	if op.Origin == nil {
		return op
	}
	return &Op{Actor: op.Actor, Kind: op.Kind}
}

// IsAudited reports whether an accepted op leaves an audit entry of its own. SetVoting and Members
// do not, but they may write entries about other operations.
func IsAudited(op *Op) bool {
	switch op.GetKind().(type) {
	case nil, *Op_Register, *Op_SetVoting, *Op_Acknowledge, *Op_Members:
		return false
	}
	return true
}

// IsAlwaysAudited reports whether an accepted op leaves an audit entry even if it changes nothing.
// It is false for two kinds of audited operations. The first is a periodic key fetch by the leader,
// which has no caller. The second is JoinNode and EnrollNode: a node retries them if the leader
// failed before it changed the configuration.
func IsAlwaysAudited(op *Op) bool {
	return IsAudited(op) && op.GetJoinNode() == nil && op.GetEnrollNode() == nil &&
		(op.GetPutIssuerKeys() == nil || op.GetOrigin().GetCaller() != nil)
}

// checkNote rejects a kind that rows cannot encode, a digest of the wrong length, and texts that
// are too long.
func checkNote(m *Note) error {
	if !revoked.IsAuditKind(revoked.AuditKind(m.GetKind())) {
		return invalid("kind", "unknown")
	}
	o := m.GetObject()
	if n := len(o.GetDigest()); n != 0 && n != len(revoked.Digest{}) {
		return invalid("digest", "got %d bytes, want %d", n, len(revoked.Digest{}))
	}
	if err := checkTexts(maxReason, "reason", m.GetReason(), "detail", m.GetDetail()); err != nil {
		return err
	}
	return checkTexts(maxID, "client_id", o.GetClientId(), "grant_id", o.GetGrantId(), "name", o.GetName(),
		"issuer", o.GetIssuer(), "node", o.GetNode(), "thumbprint", o.GetThumbprint(), "join_token", o.GetJoinToken())
}

// Describe returns the audit entry of op without Index, Time and the outcome. ok is false if
// [IsAudited] reports false. op must have passed Admit.
func Describe(op *Op) (e revoked.AuditEntry, ok bool) {
	if !IsAudited(op) {
		return e, false
	}
	e = CallOf(op)
	describe(op, &e)
	e.Reason, e.Detail = plain(e.Reason, maxAuditText), plain(e.Detail, maxAuditText)
	return e, true
}

// CallOf returns an audit entry with the actor of op, and the node and request id of its call.
func CallOf(op *Op) (e revoked.AuditEntry) {
	actor, origin := op.GetActor(), op.GetOrigin()
	if actor.GetClientId() == "" {
		actor = origin.GetCaller()
	}
	e.Actor, e.ActorVersion = plain(actor.GetClientId(), maxAuditText), actor.GetVersion()
	if e.Actor == "" {
		e.Actor, e.ActorVersion = revoked.ActorCluster, 0
	}
	e.Node, e.RequestID = plain(origin.GetNode(), maxAuditOrigin), plain(origin.GetRequestId(), maxAuditOrigin)
	return e
}

// describe sets Kind, Object, Reason and Detail by the kind of op. Describe cleans the two texts.
func describe(op *Op, e *revoked.AuditEntry) {
	o := &e.Object
	switch k := op.GetKind().(type) {
	case *Op_Revoke:
		e.Kind, e.Reason, o.Digest = revoked.AuditTokenRevoke, k.Revoke.Reason, revoked.Digest(k.Revoke.Digest)
	case *Op_RevokeJwt:
		describeJWT(k.RevokeJwt, e)
	case *Op_DeleteGrant:
		e.Kind, e.Reason, o.GrantID = revoked.AuditGrantDelete, k.DeleteGrant.Reason, k.DeleteGrant.GrantId
	case *Op_MakeCutoff:
		e.Kind, e.Reason, o.Selector = revoked.AuditCutoffCreate, k.MakeCutoff.Reason, k.MakeCutoff.Selector.Selector()
		o.IssuedBefore = revoked.Time(k.MakeCutoff.IssuedBefore)
	case *Op_PutClient:
		e.Kind, o.ClientID = revoked.AuditClientUpdate, k.PutClient.Client.GetId()
		if k.PutClient.IfVersion == 0 {
			e.Kind = revoked.AuditClientCreate
		}
	case *Op_DeleteClient:
		e.Kind, o.ClientID = revoked.AuditClientDelete, k.DeleteClient.ClientId
	case *Op_PutSettings:
		e.Kind = revoked.AuditSettingsUpdate
	case *Op_PutIssuer:
		e.Kind, o.Name, o.Issuer = revoked.AuditIssuerUpdate, k.PutIssuer.Issuer.GetName(), k.PutIssuer.Issuer.GetIssuer()
		if k.PutIssuer.IfVersion == 0 {
			e.Kind = revoked.AuditIssuerCreate
		}
	case *Op_DeleteIssuer:
		e.Kind, o.Name = revoked.AuditIssuerDelete, k.DeleteIssuer.Name
	case *Op_PutIssuerKeys:
		e.Kind, o.Name = revoked.AuditIssuerRefresh, k.PutIssuerKeys.Name
	case *Op_BanIssuerKey:
		e.Kind, o.Name, o.Thumbprint = revoked.AuditIssuerKeyBan, k.BanIssuerKey.Name, k.BanIssuerKey.Thumbprint
	case *Op_Note:
		describeNote(k.Note, e)
	default:
		describeMembership(op, e)
	}
}

// describeJWT describes the revocation of a verified JWT, or of all JWTs with a jti.
func describeJWT(m *RevokeJWT, e *revoked.AuditEntry) {
	e.Kind, e.Reason, e.Object.Issuer, e.Object.JTI = revoked.AuditJTIRevoke, m.Reason, m.Issuer, m.Jti
	if len(m.Digests) > 0 {
		e.Kind, e.Object.Digest = revoked.AuditTokenRevoke, revoked.Digest(m.Digests[0])
	}
}

// describeNote copies the entry of a Note, whose kind and texts checkNote has checked.
func describeNote(m *Note, e *revoked.AuditEntry) {
	e.Kind, e.Reason, e.Detail, e.Refused = revoked.AuditKind(m.Kind), m.Reason, m.Detail, m.Refused
	o := m.GetObject()
	e.Object = revoked.AuditObject{
		Selector: revoked.Selector{ClientID: o.GetClientId(), GrantID: o.GetGrantId(), Issuer: o.GetIssuer()},
		Name:     o.GetName(), Node: o.GetNode(), Thumbprint: o.GetThumbprint(), JoinToken: o.GetJoinToken(),
	}
	if len(o.GetDigest()) > 0 {
		e.Object.Digest = revoked.Digest(o.Digest)
	}
}

// describeMembership describes the operations on admissions and join tokens.
func describeMembership(op *Op, e *revoked.AuditEntry) {
	o := &e.Object
	switch k := op.GetKind().(type) {
	case *Op_AdmitNode:
		e.Kind, o.Node = revoked.AuditClusterAdmit, k.AdmitNode.Node
	case *Op_WithdrawNode:
		e.Kind, o.Node = revoked.AuditClusterBar, k.WithdrawNode.Node
		if op.GetActor().GetClientId() == "" {
			e.Kind = revoked.AuditClusterLeave
		}
	case *Op_BarNode:
		e.Kind, o.Node, e.Reason = revoked.AuditClusterRemove, k.BarNode.Node, k.BarNode.Reason
	case *Op_JoinNode:
		e.Kind, o.Node = revoked.AuditClusterJoin, k.JoinNode.Node
	case *Op_EnrollNode:
		e.Kind, o.Node = revoked.AuditClusterAdmit, k.EnrollNode.Node
		e.Detail = "certificate by " + k.EnrollNode.Signer
	case *Op_CreateJoinToken:
		e.Kind, o.JoinToken, o.Node = revoked.AuditClusterToken, k.CreateJoinToken.Id, k.CreateJoinToken.Node
		e.Detail = "created"
	case *Op_DeleteJoinToken:
		e.Kind, o.JoinToken, e.Detail = revoked.AuditClusterToken, k.DeleteJoinToken.Id, "deleted"
	}
}

// setByApply names the fields that Apply sets or derives from other fields.
var setByApply = map[protoreflect.Name]bool{
	"version": true, "created_at": true, "operator_roles": true, "lease_ceiling": true, "ceiling_until": true,
	"keys_version": true, "earlier_lifetime": true, "lifetime_since": true, "deleted_at": true, "due": true,
	"earlier_skew": true, "skew_since": true, "earlier": true, "mapping_version": true,
}

// A Record is the message of a client, of an issuer or of the settings.
type Record = proto.Message

// Changes names the fields that differ between two records of one type, in the order of their
// descriptor. It includes the values of short fields, never a secret. The texts are part of the
// state, so they must never change.
func Changes(was, now Record) (list []string) {
	a, b := was.ProtoReflect(), now.ProtoReflect()
	for fields, i := a.Descriptor().Fields(), 0; i < fields.Len(); i++ {
		if f := fields.Get(i); !setByApply[f.Name()] && !a.Get(f).Equal(b.Get(f)) {
			list = append(list, string(f.Name())+valueOf(b, f))
		}
	}
	return list
}

// valueOf returns "=" and the value of a boolean, of the roles or of a setting, and "" for any
// other field.
func valueOf(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	_, isSetting := m.Interface().(*SettingsRecord)
	switch v := m.Get(f); {
	case f.Kind() == protoreflect.BoolKind:
		return fmt.Sprintf("=%t", v.Bool())
	case f.Name() == "roles":
		var roles []string
		for i := range v.List().Len() {
			roles = append(roles, v.List().Get(i).String())
		}
		return "=" + strings.Join(roles, ",")
	case isSetting && !m.Has(f):
		return "=default"
	case isSetting && f.Kind() == protoreflect.Uint64Kind:
		return fmt.Sprintf("=%d", v.Uint())
	case isSetting:
		return "=" + revoked.FormatDuration(time.Duration(v.Int()))
	}
	return ""
}

// CleanReason returns a reason in the form that audit entries have.
func CleanReason(s string) string { return plain(s, maxAuditText) }

// plain returns at most limit bytes of s. It replaces control characters and invalid UTF-8 by "?".
// Apply depends on it, so it must never change.
func plain(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r <= 0x9f || r == '\u2028' || r == '\u2029' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
