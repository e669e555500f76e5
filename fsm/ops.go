package fsm

import (
	"time"

	"revoked"
)

// RegisterOp returns the operation that registers r for actor by.
func RegisterOp(by revoked.Actor, r revoked.Registration) *Op {
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
	return &Op{Actor: actorMessage(by), Kind: &Op_Register{Register: m}}
}

// RevokeOp returns the operation that ends the grant of the token with digest d.
func RevokeOp(by revoked.Actor, d revoked.Digest, reason string) *Op {
	return &Op{Actor: actorMessage(by), Kind: &Op_Revoke{Revoke: &Revoke{Digest: d[:], Reason: reason}}}
}

// DeleteGrantOp returns the operation that ends the grant with that id.
func DeleteGrantOp(by revoked.Actor, id, reason string) *Op {
	return &Op{Actor: actorMessage(by), Kind: &Op_DeleteGrant{DeleteGrant: &DeleteGrant{GrantId: id, Reason: reason}}}
}

// CutoffOp returns the operation that makes a cut-off; issuedBefore 0 is the moment of the entry.
func CutoffOp(by revoked.Actor, s revoked.Selector, issuedBefore revoked.Time, reason string) *Op {
	return &Op{Actor: actorMessage(by), Kind: &Op_MakeCutoff{MakeCutoff: &MakeCutoff{
		Selector: &Selector{
			ClientId: s.ClientID, Subject: s.Subject, Session: s.Session, GrantId: s.GrantID, Issuer: s.Issuer,
		},
		IssuedBefore: int64(issuedBefore), Reason: reason,
	}}}
}

// PutClientOp returns the operation that creates c (ifVersion 0) or replaces the record whose version
// is ifVersion.
func PutClientOp(by revoked.Actor, c *revoked.Client, ifVersion uint64) *Op {
	return &Op{Actor: actorMessage(by), Kind: &Op_PutClient{PutClient: &PutClient{Client: ClientMessage(c), IfVersion: ifVersion}}}
}

// DeleteClientOp returns the operation that removes a client and ends its tokens.
func DeleteClientOp(by revoked.Actor, id string) *Op {
	return &Op{Actor: actorMessage(by), Kind: &Op_DeleteClient{DeleteClient: &DeleteClient{ClientId: id}}}
}

// PutSettingsOp returns the operation that replaces the settings whose version is ifVersion.
func PutSettingsOp(by revoked.Actor, s revoked.Settings, ifVersion uint64) *Op {
	return &Op{Actor: actorMessage(by), Kind: &Op_PutSettings{PutSettings: &PutSettings{Settings: SettingsMessage(s), IfVersion: ifVersion}}}
}

// ClientMessage returns the record of c as commands carry it.
func ClientMessage(c *revoked.Client) *ClientRecord {
	m := &ClientRecord{
		Id: c.ID, Type: string(c.Type), Audiences: c.Audiences, Issuers: c.Issuers, AuthMethods: c.AuthMethods,
		AllowPublicRevocation: c.AllowPublicRevocation, Disabled: c.Disabled,
		CreatedAt: int64(c.CreatedAt), Version: c.Version,
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

// clientOf is the inverse of ClientMessage. It shares nothing that a caller could change.
func clientOf(m *ClientRecord) *revoked.Client {
	c := &revoked.Client{
		ID: m.GetId(), Type: revoked.ClientType(m.GetType()), Audiences: m.GetAudiences(), Issuers: m.GetIssuers(),
		AuthMethods: m.GetAuthMethods(), AllowPublicRevocation: m.GetAllowPublicRevocation(), Disabled: m.GetDisabled(),
		CreatedAt: revoked.Time(m.GetCreatedAt()), Version: m.GetVersion(),
	}
	for _, r := range m.GetRoles() {
		c.Roles = append(c.Roles, revoked.Role(r))
	}
	for _, s := range m.GetSecrets() {
		c.Secrets = append(c.Secrets, revoked.SecretHash{
			Kind: revoked.HashKind(s.GetKind()), Salt: s.GetSalt(), Hash: s.GetHash(), ExpiresAt: revoked.Time(s.GetExpiresAt()),
		})
	}
	return c
}

// SettingsMessage returns s as commands carry it.
func SettingsMessage(s revoked.Settings) *SettingsRecord {
	return &SettingsRecord{
		LeaseDuration: int64(s.LeaseDuration), LateRegistrationWindow: int64(s.LateRegistrationWindow),
		CutoffRetention: int64(s.CutoffRetention), MaxClockSkew: int64(s.MaxClockSkew),
		SecretGrace: int64(s.SecretGrace), Version: s.Version, LeaseCeiling: int64(s.LeaseCeiling),
	}
}

func settingsOf(m *SettingsRecord) revoked.Settings {
	return revoked.Settings{
		LeaseDuration:          time.Duration(m.GetLeaseDuration()),
		LateRegistrationWindow: time.Duration(m.GetLateRegistrationWindow()),
		CutoffRetention:        time.Duration(m.GetCutoffRetention()),
		MaxClockSkew:           time.Duration(m.GetMaxClockSkew()),
		SecretGrace:            time.Duration(m.GetSecretGrace()),
		Version:                m.GetVersion(),
		LeaseCeiling:           time.Duration(m.GetLeaseCeiling()),
	}
}

func actorMessage(a revoked.Actor) *Actor {
	return &Actor{ClientId: a.ClientID, Version: a.Version, Admin: a.Admin}
}

func selectorOf(m *Selector) revoked.Selector {
	return revoked.Selector{
		ClientID: m.GetClientId(), Subject: m.GetSubject(), Session: m.GetSession(),
		GrantID: m.GetGrantId(), Issuer: m.GetIssuer(),
	}
}
