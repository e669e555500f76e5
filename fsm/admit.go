package fsm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"revoked"
)

// Bounds of what a command may hold. They keep rows, entries and feeds small whoever asks. Apply holds
// operations to them too, so they are part of the log's meaning: members of two versions that differ
// here would part. A bound changes only together with a new command type.
const (
	maxID           = 512
	maxReason       = 1024
	maxScope        = 8192
	maxAudiences    = 64
	maxJTI          = 512
	maxCNF          = 4096
	maxRegistration = 64 // tokens in one operation
	maxSecrets      = 8
	maxTime         = revoked.Time(253402300799 * 1e6) // the last second of the year 9999
)

// Admit is the leader's check before it proposes op: shapes, sizes and times that are wrong in every
// state. It returns errors that wrap ErrInvalid, ErrUnprocessable or ErrForbidden. What depends on the
// state is decided by Apply.
func (f *FSM) Admit(op *Op) error {
	if err := checkOp(op); err != nil {
		return err
	}
	if op.Actor.GetClientId() == "" {
		return fmt.Errorf("%w: an operation needs an actor", revoked.ErrForbidden)
	}
	return nil
}

// checkOp is Admit without the state machine: Apply repeats it, for it may not trust a leader of
// another version.
func checkOp(op *Op) error {
	switch k := op.GetKind().(type) {
	case *Op_Register:
		return checkRegister(k.Register)
	case *Op_Revoke:
		if len(k.Revoke.GetDigest()) != len(revoked.Digest{}) {
			return fmt.Errorf("%w: a digest has %d bytes", revoked.ErrInvalid, len(revoked.Digest{}))
		}
		return checkText("reason", k.Revoke.GetReason(), maxReason)
	case *Op_DeleteGrant:
		if err := checkID("grant_id", k.DeleteGrant.GetGrantId()); err != nil {
			return err
		}
		return checkText("reason", k.DeleteGrant.GetReason(), maxReason)
	case *Op_MakeCutoff:
		return checkCutoff(k.MakeCutoff)
	case *Op_PutClient:
		return checkClient(k.PutClient.GetClient())
	case *Op_DeleteClient:
		return checkID("client_id", k.DeleteClient.GetClientId())
	case *Op_PutSettings:
		if k.PutSettings.GetSettings() == nil {
			return fmt.Errorf("%w: no settings", revoked.ErrInvalid)
		}
		return checkSettings(settingsOf(k.PutSettings.GetSettings()))
	}
	return fmt.Errorf("%w: an operation of no kind", revoked.ErrInvalid)
}

func checkRegister(m *Register) error {
	if err := checkID("grant_id", m.GetGrantId()); err != nil {
		return err
	}
	if err := checkID("client_id", m.GetClientId()); err != nil {
		return err
	}
	for _, v := range [...]struct {
		name, s string
		max     int
	}{
		{"subject", m.Subject, maxID}, {"session", m.Session, maxID}, {"username", m.Username, maxID},
		{"issuer", m.Issuer, maxID}, {"scope", m.Scope, maxScope},
	} {
		if err := checkText(v.name, v.s, v.max); err != nil {
			return err
		}
	}
	if err := checkList("audience", m.Audience); err != nil {
		return err
	}
	if len(m.Tokens) == 0 || len(m.Tokens) > maxRegistration {
		return fmt.Errorf("%w: a registration holds 1 to %d tokens, not %d", revoked.ErrInvalid, maxRegistration, len(m.Tokens))
	}
	for i, s := range m.Tokens {
		if err := checkToken(s); err != nil {
			return err
		}
		for _, other := range m.Tokens[:i] {
			if string(other.Digest) == string(s.Digest) {
				return fmt.Errorf("%w: a token is given twice", revoked.ErrInvalid)
			}
		}
	}
	return nil
}

func checkToken(s *TokenSpec) error {
	var zero revoked.Digest
	if len(s.GetDigest()) != len(zero) || string(s.Digest) == string(zero[:]) {
		return fmt.Errorf("%w: a digest has %d bytes, not all of them zero", revoked.ErrInvalid, len(zero))
	}
	if k := revoked.TokenKind(min(s.Kind, 255)); k != revoked.AccessToken && k != revoked.RefreshToken {
		return fmt.Errorf("%w: token kind %d", revoked.ErrInvalid, s.Kind)
	}
	for _, v := range [...]struct {
		name string
		t    int64
	}{{"issued_at", s.IssuedAt}, {"expires_at", s.ExpiresAt}, {"not_before", s.NotBefore}} {
		if v.t < 0 || revoked.Time(v.t) > maxTime {
			return fmt.Errorf("%w: %s is not a time between 1970 and 9999", revoked.ErrInvalid, v.name)
		}
	}
	if s.ExpiresAt != 0 && s.ExpiresAt <= max(s.IssuedAt, s.NotBefore) {
		return fmt.Errorf("%w: a token expires before it is valid", revoked.ErrInvalid)
	}
	if err := checkText("jti", s.Jti, maxJTI); err != nil {
		return err
	}
	if len(s.Cnf) > maxCNF {
		return fmt.Errorf("%w: cnf is longer than %d bytes", revoked.ErrInvalid, maxCNF)
	}
	if len(s.Cnf) > 0 && (s.Cnf[0] != '{' || !json.Valid(s.Cnf)) {
		return fmt.Errorf("%w: cnf is not a JSON object", revoked.ErrInvalid)
	}
	return nil
}

func checkCutoff(m *MakeCutoff) error {
	s := selectorOf(m.GetSelector())
	if s.IsZero() {
		return fmt.Errorf("%w: a cut-off names at least one of client, subject, session, grant and issuer", revoked.ErrInvalid)
	}
	for _, v := range [...]struct{ name, s string }{
		{"client_id", s.ClientID}, {"subject", s.Subject}, {"session", s.Session},
		{"grant_id", s.GrantID}, {"issuer", s.Issuer},
	} {
		if err := checkText(v.name, v.s, maxID); err != nil {
			return err
		}
	}
	if t := revoked.Time(m.IssuedBefore); t < 0 || t > maxTime {
		return fmt.Errorf("%w: issued_before is not a time between 1970 and 9999", revoked.ErrInvalid)
	}
	return checkText("reason", m.Reason, maxReason)
}

func checkClient(c *ClientRecord) error {
	if err := checkID("client_id", c.GetId()); err != nil {
		return err
	}
	if t := revoked.ClientType(c.Type); t != revoked.Confidential && t != revoked.Public {
		return fmt.Errorf("%w: client type %q", revoked.ErrInvalid, c.Type)
	}
	for _, r := range c.Roles {
		switch revoked.Role(r) {
		case revoked.RoleAdmin, revoked.RoleIssuer, revoked.RoleResourceServer:
		default:
			return fmt.Errorf("%w: role %q", revoked.ErrInvalid, r)
		}
	}
	for _, m := range c.AuthMethods {
		if m != revoked.AuthBasic && m != revoked.AuthPost {
			return fmt.Errorf("%w: authentication method %q", revoked.ErrInvalid, m)
		}
	}
	if repeats(c.Roles) || repeats(c.AuthMethods) {
		return fmt.Errorf("%w: roles or auth_methods name something twice", revoked.ErrInvalid)
	}
	if err := checkList("audiences", c.Audiences); err != nil {
		return err
	}
	if err := checkList("issuers", c.Issuers); err != nil {
		return err
	}
	return checkSecrets(c)
}

func repeats(l []string) bool {
	return len(l) > len(slices.Compact(slices.Sorted(slices.Values(l))))
}

func checkSecrets(c *ClientRecord) error {
	if c.Type == string(revoked.Public) {
		if len(c.Secrets) > 0 || len(c.Roles) > 0 {
			return fmt.Errorf("%w: a public client has no secret and no role", revoked.ErrUnprocessable)
		}
		return nil
	}
	if len(c.Secrets) > maxSecrets {
		return fmt.Errorf("%w: more than %d secrets", revoked.ErrInvalid, maxSecrets)
	}
	for _, s := range c.Secrets {
		k := revoked.HashKind(min(s.Kind, 255))
		if (k != revoked.HashSHA256 && k != revoked.HashArgon2id) || len(s.Hash) == 0 || len(s.Hash) > 128 ||
			len(s.Salt) > 128 || s.ExpiresAt < 0 {
			return fmt.Errorf("%w: a secret's hash is malformed", revoked.ErrInvalid)
		}
	}
	return nil
}

func checkID(name, s string) error {
	if s == "" {
		return fmt.Errorf("%w: %s is empty", revoked.ErrInvalid, name)
	}
	return checkText(name, s, maxID)
}

func checkText(name, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %s is longer than %d bytes", revoked.ErrInvalid, name, limit)
	}
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%w: %s is not plain UTF-8", revoked.ErrInvalid, name)
	}
	return nil
}

func checkList(name string, l []string) error {
	if len(l) > maxAudiences {
		return fmt.Errorf("%w: more than %d values of %s", revoked.ErrInvalid, maxAudiences, name)
	}
	for _, s := range l {
		if err := checkID(name, s); err != nil {
			return err
		}
	}
	return nil
}
