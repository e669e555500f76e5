package command

import (
	"cmp"
	"math"
	"time"

	"revoked"
)

// RegisterOp returns the operation that registers r for the actor by. It shares the slices of r,
// and allocates all tokens together, because bulk registrations create many.
func RegisterOp(by revoked.Actor, r revoked.Registration) *Op {
	by.RequestID, by.Via = "", "" // no audit entry names them
	m := &Register{
		GrantId: r.GrantID, ClientId: r.ClientID, Subject: r.Subject, Session: r.Session,
		Username: r.Username, Issuer: r.Issuer, Scope: r.Scope, Audience: r.Audience,
		Tokens: make([]*TokenSpec, len(r.Tokens)),
	}
	specs := make([]TokenSpec, len(r.Tokens))
	for i := range r.Tokens {
		t, s := &r.Tokens[i], &specs[i]
		s.Digest, s.Kind = t.Digest[:], uint32(t.Kind)
		s.IssuedAt, s.ExpiresAt, s.NotBefore = int64(t.IssuedAt), int64(t.ExpiresAt), int64(t.NotBefore)
		s.Jti, s.Cnf = t.JTI, t.CNF
		m.Tokens[i] = s
	}
	return newOp(by, &Op_Register{Register: m})
}

// RevokeOp returns the operation that revokes the grant of the token with digest d.
func RevokeOp(by revoked.Actor, d revoked.Digest, reason string) *Op {
	return newOp(by, &Op_Revoke{Revoke: &Revoke{Digest: d[:], Reason: reason}})
}

// DeleteGrantOp returns the operation that revokes the grant with that id.
func DeleteGrantOp(by revoked.Actor, id, reason string) *Op {
	return newOp(by, &Op_DeleteGrant{DeleteGrant: &DeleteGrant{GrantId: id, Reason: reason}})
}

// CutoffOp returns the operation that creates a cut-off. issuedBefore 0 means the stamp of the
// entry.
func CutoffOp(by revoked.Actor, s revoked.Selector, issuedBefore revoked.Time, reason string) *Op {
	return newOp(by, &Op_MakeCutoff{MakeCutoff: &MakeCutoff{
		Selector: &Selector{
			ClientId: s.ClientID, Subject: s.Subject, Session: s.Session, GrantId: s.GrantID, Issuer: s.Issuer,
		},
		IssuedBefore: int64(issuedBefore), Reason: reason,
	}})
}

// PutClientOp returns the operation that creates c (ifVersion 0) or replaces the record whose
// version is ifVersion.
func PutClientOp(by revoked.Actor, c *revoked.Client, ifVersion uint64) *Op {
	return newOp(by, &Op_PutClient{PutClient: &PutClient{Client: ClientMessage(c), IfVersion: ifVersion}})
}

// DeleteClientOp returns the operation that removes a client and revokes its tokens.
func DeleteClientOp(by revoked.Actor, id string) *Op {
	return newOp(by, &Op_DeleteClient{DeleteClient: &DeleteClient{ClientId: id}})
}

// PutSettingsOp returns the operation that replaces the settings whose version is ifVersion.
func PutSettingsOp(by revoked.Actor, s revoked.Settings, ifVersion uint64) *Op {
	m := &PutSettings{Settings: SettingsMessage(s), IfVersion: ifVersion}
	return newOp(by, &Op_PutSettings{PutSettings: m})
}

// AdmitNodeOp returns the operation that allows a node to join for ttl. The node never votes if
// nonVoter is set.
func AdmitNodeOp(by revoked.Actor, node string, nonVoter bool, ttl time.Duration) *Op {
	return newOp(by, &Op_AdmitNode{AdmitNode: &AdmitNode{Node: node, NonVoter: nonVoter, Ttl: int64(ttl)}})
}

// WithdrawNodeOp returns the operation that withdraws the admission of a node. The zero actor is
// the cluster itself, after the node has left.
func WithdrawNodeOp(by revoked.Actor, node string) *Op {
	return newOp(by, &Op_WithdrawNode{WithdrawNode: &WithdrawNode{Node: node}})
}

// BarNodeOp returns the operation that bars a node until it is admitted again. The zero actor is
// the cluster.
func BarNodeOp(by revoked.Actor, node, reason string) *Op {
	return newOp(by, &Op_BarNode{BarNode: &BarNode{Node: node, Reason: reason}})
}

// JoinNodeOp returns the operation with which the leader uses up the admission of a node that
// joins. token is the digest of the join token that the node sent, zero if it sent none. The result
// wraps ErrForbidden if neither an admission nor the token admits the node. A second JoinNode of
// the same node changes nothing.
func JoinNodeOp(node string, token revoked.Digest) *Op {
	m := &JoinNode{Node: node}
	if !token.IsZero() {
		m.TokenHash = token[:]
	}
	return newOp(revoked.Actor{}, &Op_JoinNode{JoinNode: m})
}

// JoinWithKeyOp is JoinNodeOp for a node that has proved possession of a join token. key is the
// digest of the token's public key.
func JoinWithKeyOp(node string, key revoked.Digest) *Op {
	return newOp(revoked.Actor{}, &Op_JoinNode{JoinNode: &JoinNode{Node: node, TokenHash: key[:], HasKey: true}})
}

// EnrollNodeOp returns the operation that uses a join token for node and the key of its
// certificate. token is the digest of the token's public key. The result wraps ErrForbidden if the
// token does not admit the node with that key, and ErrConflict for a node that has joined.
func EnrollNodeOp(node string, token, key revoked.Digest, signer string) *Op {
	return newOp(revoked.Actor{}, &Op_EnrollNode{EnrollNode: &EnrollNode{
		Node: node, TokenHash: token[:], Key: key[:], Signer: signer,
	}})
}

// The steps of a call that promotes or demotes a member, in SetVoting.call. Exactly one operation
// writes the audit entry of the call: the Members operation that has the change, or the last step.
const (
	VoteAsked   = iota + 1 // the change of the configuration follows
	VoteSettled            // the call succeeded
	VoteUndone             // the change was refused: the call leaves no entry
)

// SetVotingOp returns the operation that records whether an administrator allows a member to vote.
// The argument call is a step, such as VoteAsked. It is 0 in operations of older programs, which do
// not record steps.
func SetVotingOp(by revoked.Actor, node string, nonVoter bool, call uint32) *Op {
	return newOp(by, &Op_SetVoting{SetVoting: &SetVoting{Node: node, NonVoter: nonVoter, Call: call}})
}

// A NotedMember is a server of the configuration as recorded in the audit log.
type NotedMember struct {
	Server, Address string // Raft's server id; host:port
	Voter           bool
}

// MembersOp returns the operation that records for the audit log which servers are in the
// configuration. list is in the order of the servers. since is the index of the previous such
// operation, or 0 for the first one. The operation has no actor, because only the leader proposes
// it.
func MembersOp(list []NotedMember, since uint64) *Op {
	m := &Members{Since: since}
	for _, v := range list {
		m.Members = append(m.Members, &Member{Server: v.Server, Address: v.Address, Voter: v.Voter})
	}
	return newOp(revoked.Actor{}, &Op_Members{Members: m})
}

// List returns the servers of m.
func (m *Members) List() (list []NotedMember) {
	for _, v := range m.GetMembers() {
		list = append(list, NotedMember{Server: v.GetServer(), Address: v.GetAddress(), Voter: v.GetVoter()})
	}
	return list
}

// CreateJoinTokenOp returns the operation that creates t for ttl. It uses ID, Hash, HasKey, Node
// and NonVoter of t. The token itself never reaches the log.
func CreateJoinTokenOp(by revoked.Actor, t *revoked.JoinToken, ttl time.Duration) *Op {
	return newOp(by, &Op_CreateJoinToken{CreateJoinToken: &CreateJoinToken{
		Id: t.ID, Hash: t.Hash[:], Node: t.Node, NonVoter: t.NonVoter, Ttl: int64(ttl),
		HasKey: t.HasKey,
	}})
}

// DeleteJoinTokenOp returns the operation that deletes a join token.
func DeleteJoinTokenOp(by revoked.Actor, id string) *Op {
	return newOp(by, &Op_DeleteJoinToken{DeleteJoinToken: &DeleteJoinToken{Id: id}})
}

// IsAdministrative reports whether op changes clients, issuers, settings, cut-offs or the
// membership.
func IsAdministrative(op *Op) bool {
	switch op.GetKind().(type) {
	case nil, *Op_Register, *Op_Revoke, *Op_DeleteGrant, *Op_RevokeJwt:
		return false
	}
	return true
}

// KindOf names the kind of op, as the field of the message does: "put_client". It is "" for an
// operation without a kind.
func KindOf(op *Op) string {
	m := op.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); field != nil {
		return string(field.Name())
	}
	return ""
}

// newOp returns an operation whose actor is by. The zero actor is the cluster itself. Only audited
// calls have an origin, because an origin takes bytes in every entry.
func newOp(by revoked.Actor, kind isOp_Kind) *Op {
	op := &Op{Actor: ActorMessage(by), Kind: kind}
	if by.RequestID != "" || by.Via != "" {
		op.Origin = &Origin{RequestId: by.RequestID, Node: by.Via}
	}
	return op
}

// ActorMessage returns the message of by.
func ActorMessage(by revoked.Actor) *Actor {
	m := &Actor{ClientId: by.ClientID, Version: by.Version, Admin: by.Admin}
	if use := by.Assertion; use != nil {
		m.Assertion = &Assertion{Key: use.Key[:], ExpiresAt: int64(use.ExpiresAt), Request: use.Request[:]}
	}
	return m
}

// Actor is the inverse of ActorMessage. A nil m gives the zero actor.
func (m *Actor) Actor() revoked.Actor {
	by := revoked.Actor{ClientID: m.GetClientId(), Version: m.GetVersion(), Admin: m.GetAdmin()}
	if use := m.GetAssertion(); use != nil && checkAssertion(use) == nil {
		by.Assertion = &revoked.AssertionUse{Key: revoked.Digest(use.Key), ExpiresAt: revoked.Time(use.ExpiresAt),
			Request: [16]byte(use.Request)}
	}
	return by
}

// Selector returns the selector of m. A nil m gives the zero selector.
func (m *Selector) Selector() revoked.Selector {
	return revoked.Selector{
		ClientID: m.GetClientId(), Subject: m.GetSubject(), Session: m.GetSession(),
		GrantID: m.GetGrantId(), Issuer: m.GetIssuer(),
	}
}

// ClientMessage returns the record of c. It shares the slices of c, so the caller must not modify
// them while the record is in use.
func ClientMessage(c *revoked.Client) *ClientRecord {
	m := &ClientRecord{
		Id: c.ID, Type: string(c.Type), Audiences: c.Audiences, Issuers: c.Issuers, AuthMethods: c.AuthMethods,
		AllowPublicRevocation: c.AllowPublicRevocation, Disabled: c.Disabled,
		CreatedAt: int64(c.CreatedAt), Version: c.Version, OperatorRoles: c.HasAny(newerRoles...),
		Keys: keyMessages(c.Keys), SubjectKind: uint32(c.Subject.Kind), Subject: c.Subject.Value,
	}
	for _, r := range c.Roles {
		m.Roles = append(m.Roles, string(r))
	}
	for _, s := range c.Secrets {
		m.Secrets = append(m.Secrets, &SecretHash{
			Kind: uint32(s.Kind), Salt: s.Salt, Hash: s.Hash, ExpiresAt: int64(s.ExpiresAt),
		})
	}
	return m
}

// Client is the inverse of ClientMessage. A nil record gives the zero client.
func (m *ClientRecord) Client() *revoked.Client {
	c := &revoked.Client{
		ID: m.GetId(), Type: revoked.ClientType(m.GetType()), Audiences: m.GetAudiences(), Issuers: m.GetIssuers(),
		AuthMethods: m.GetAuthMethods(), AllowPublicRevocation: m.GetAllowPublicRevocation(), Disabled: m.GetDisabled(),
		CreatedAt: revoked.Time(m.GetCreatedAt()), Version: m.GetVersion(), Keys: keysOf(m.GetKeys()),
		Subject: revoked.CertificateSubject{
			Kind: revoked.SubjectKind(min(m.GetSubjectKind(), 255)), Value: m.GetSubject(),
		},
	}
	for _, r := range m.GetRoles() {
		c.Roles = append(c.Roles, revoked.Role(r))
	}
	for _, s := range m.GetSecrets() {
		c.Secrets = append(c.Secrets, revoked.SecretHash{
			Kind: revoked.HashKind(s.GetKind()), Salt: s.GetSalt(), Hash: s.GetHash(),
			ExpiresAt: revoked.Time(s.GetExpiresAt()),
		})
	}
	return c
}

// NewBootstrap returns a bootstrap with settings and first clients. The caller sets the stamp and
// the cluster id.
func NewBootstrap(s revoked.Settings, clients []revoked.Client) *Bootstrap {
	m := &Bootstrap{Settings: SettingsMessage(s)}
	for i := range clients {
		m.Clients = append(m.Clients, ClientMessage(&clients[i]))
	}
	return m
}

// SettingsMessage returns the record of s. The defaults of the audit log become 0, so that programs
// before version 5, which stop at those fields, can apply the record.
func SettingsMessage(s revoked.Settings) *SettingsRecord {
	m := &SettingsRecord{
		LeaseDuration: int64(s.LeaseDuration), LateRegistrationWindow: int64(s.LateRegistrationWindow),
		CutoffRetention: int64(s.CutoffRetention), MaxClockSkew: int64(s.MaxClockSkew),
		SecretGrace: int64(s.SecretGrace), Version: s.Version, LeaseCeiling: int64(s.LeaseCeiling),
	}
	if s.AuditRetention != auditRetention {
		m.AuditRetention = int64(s.AuditRetention)
	}
	if s.AuditMaxEntries != auditMaxEntries {
		m.AuditMaxEntries = uint64(s.AuditMaxEntries)
	}
	return m
}

// The defaults, which a record represents by 0. They are part of the format of the log.
const (
	auditRetention  = 9600 * time.Hour
	auditMaxEntries = 1_000_000
)

// Settings is the inverse of SettingsMessage. A nil record gives zero settings, except those of the
// audit log.
func (m *SettingsRecord) Settings() revoked.Settings {
	return revoked.Settings{
		LeaseDuration:          time.Duration(m.GetLeaseDuration()),
		LateRegistrationWindow: time.Duration(m.GetLateRegistrationWindow()),
		CutoffRetention:        time.Duration(m.GetCutoffRetention()),
		MaxClockSkew:           time.Duration(m.GetMaxClockSkew()),
		SecretGrace:            time.Duration(m.GetSecretGrace()),
		Version:                m.GetVersion(),
		LeaseCeiling:           time.Duration(m.GetLeaseCeiling()),
		AuditRetention:         cmp.Or(time.Duration(m.GetAuditRetention()), auditRetention),
		AuditMaxEntries:        int(cmp.Or(min(m.GetAuditMaxEntries(), math.MaxInt32), auditMaxEntries)),
	}
}
