package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"revoked"
)

// Admit returns an error if op is invalid whatever the state is. The error is ErrInvalid or
// ErrUnprocessable for a field that is malformed or over its limit. It is ErrForbidden for an
// operation that lacks a required actor, or that must not have one. The leader calls Admit before
// it proposes op. Apply calls it again, because a leader of another version may have proposed op.
func Admit(op *Op) error {
	if err := check(op); err != nil {
		return err
	}
	if use := op.GetActor().GetAssertion(); use != nil {
		if err := checkAssertion(use); err != nil {
			return err
		}
	}
	if op.GetActor().GetClientId() == "" && !mayBeOwn(op) {
		return fmt.Errorf("%w: operation without an actor", revoked.ErrForbidden)
	}
	// Only the leader verifies the proof that a node has the key, so no client may propose these.
	if op.GetActor().GetClientId() != "" && (op.GetJoinNode().GetHasKey() || op.GetEnrollNode() != nil) {
		return fmt.Errorf("%w: operation must not have an actor", revoked.ErrForbidden)
	}
	return nil
}

// checkAssertion checks the use of an assertion: the lengths of its byte strings. Actor and rows
// convert them without another check.
func checkAssertion(m *Assertion) error {
	if len(m.GetKey()) != len(revoked.Digest{}) || len(m.GetRequest()) != len(revoked.AssertionUse{}.Request) {
		return invalid("assertion", "got a key of %d bytes and a request of %d", len(m.GetKey()), len(m.GetRequest()))
	}
	return checkTime("assertion", m.GetExpiresAt())
}

// mayBeOwn reports whether the cluster itself may propose op, without an actor.
func mayBeOwn(op *Op) bool {
	switch op.GetKind().(type) {
	case *Op_JoinNode, *Op_EnrollNode, *Op_WithdrawNode, *Op_BarNode, *Op_PutIssuerKeys, *Op_Note, *Op_Acknowledge,
		*Op_Members:
		return true
	}
	return false
}

// check checks the fields of op by its kind, without the state. Its errors are those of Admit.
func check(op *Op) error {
	switch k := op.GetKind().(type) {
	case *Op_Register:
		return checkRegister(k.Register)
	case *Op_Revoke:
		if n := len(k.Revoke.GetDigest()); n != len(revoked.Digest{}) {
			return invalid("digest", "got %d bytes, want %d", n, len(revoked.Digest{}))
		}
		return CheckReason(k.Revoke.GetReason())
	case *Op_DeleteGrant:
		if err := checkID("grant_id", k.DeleteGrant.GetGrantId()); err != nil {
			return err
		}
		return CheckReason(k.DeleteGrant.GetReason())
	case *Op_MakeCutoff:
		return checkCutoff(k.MakeCutoff)
	case *Op_PutClient:
		return CheckClient(k.PutClient.GetClient())
	case *Op_DeleteClient:
		return checkID("client_id", k.DeleteClient.GetClientId())
	case *Op_PutSettings:
		if k.PutSettings.GetSettings() == nil {
			return invalid("settings", "missing")
		}
		s := k.PutSettings.Settings.Settings()
		return revoked.ValidateSettings(&s)
	}
	return checkMembership(op)
}

// checkMembership checks the operations on admissions and join tokens.
func checkMembership(op *Op) error {
	switch k := op.GetKind().(type) {
	case *Op_AdmitNode:
		return cmp.Or(revoked.CheckNodeID(k.AdmitNode.GetNode()), checkTTL(k.AdmitNode.GetTtl()))
	case *Op_WithdrawNode:
		return revoked.CheckNodeID(k.WithdrawNode.GetNode())
	case *Op_BarNode:
		return cmp.Or(revoked.CheckNodeID(k.BarNode.GetNode()), CheckReason(k.BarNode.GetReason()))
	case *Op_JoinNode:
		if n := len(k.JoinNode.GetTokenHash()); n != 0 && n != len(revoked.Digest{}) {
			return invalid("token_hash", "got %d bytes, want %d", n, len(revoked.Digest{}))
		} else if n == 0 && k.JoinNode.GetHasKey() {
			return invalid("token_hash", "missing")
		}
		return revoked.CheckNodeID(k.JoinNode.GetNode())
	case *Op_EnrollNode:
		return checkEnrollNode(k.EnrollNode)
	case *Op_SetVoting:
		if call := k.SetVoting.GetCall(); call > VoteUndone {
			return invalid("call", "got %d, want at most %d", call, VoteUndone)
		}
		return revoked.CheckNodeID(k.SetVoting.GetNode())
	case *Op_Members:
		return checkMembers(k.Members)
	case *Op_CreateJoinToken:
		return checkJoinToken(k.CreateJoinToken)
	case *Op_DeleteJoinToken:
		return checkID("id", k.DeleteJoinToken.GetId())
	}
	if k, ok := op.GetKind().(*Op_Acknowledge); ok {
		return checkAcknowledge(k.Acknowledge)
	}
	return checkIssuerOp(op)
}

// checkMembers checks a configuration. The servers must be in order, so that each configuration has
// only one encoding.
func checkMembers(m *Members) error {
	list := m.List()
	if n := len(list); n == 0 || n > maxMembers {
		return invalid("members", "got %d, want 1 to %d", n, maxMembers)
	}
	for i, v := range list {
		if i > 0 && v.Server <= list[i-1].Server {
			return invalid("members", "not in the order of the servers")
		}
		if err := cmp.Or(checkID("server", v.Server), checkTexts(maxID, "address", v.Address)); err != nil {
			return err
		}
	}
	return nil
}

// checkJoinToken checks the creation of a join token. It sees only the digest: the token itself
// never reaches the log.
func checkJoinToken(m *CreateJoinToken) error {
	if n := len(m.GetHash()); n != len(revoked.Digest{}) {
		return invalid("hash", "got %d bytes, want %d", n, len(revoked.Digest{}))
	}
	if m.GetNode() != "" {
		if err := revoked.CheckNodeID(m.Node); err != nil {
			return err
		}
	}
	return cmp.Or(checkID("id", m.GetId()), checkTTL(m.GetTtl()))
}

// checkEnrollNode checks the names, and the lengths of the digests.
func checkEnrollNode(m *EnrollNode) error {
	if t, k := len(m.GetTokenHash()), len(m.GetKey()); t != len(revoked.Digest{}) || k != len(revoked.Digest{}) {
		return invalid("token_hash and key", "got %d and %d bytes, want %d", t, k, len(revoked.Digest{}))
	}
	return cmp.Or(revoked.CheckNodeID(m.GetNode()), revoked.CheckNodeID(m.GetSigner()))
}

// checkTTL checks a time to live in nanoseconds. Apply adds it to the stamp of the entry.
func checkTTL(ns int64) error { return revoked.CheckAdmissionTTL(time.Duration(ns)) }

// checkRegister checks a registration without the state. A repeated digest within it is an error,
// because the rules write each token once.
func checkRegister(m *Register) error {
	for _, err := range [...]error{
		checkID("grant_id", m.GetGrantId()), checkID("client_id", m.GetClientId()),
		checkTexts(maxID, "subject", m.GetSubject(), "session", m.GetSession()),
		checkTexts(maxID, "username", m.GetUsername(), "issuer", m.GetIssuer()),
		checkTexts(maxScope, "scope", m.GetScope()), checkList("audience", m.GetAudience()),
	} {
		if err != nil {
			return err
		}
	}
	if n := len(m.Tokens); n == 0 || n > maxTokens {
		return invalid("tokens", "got %d, want 1 to %d", n, maxTokens)
	}
	for i, s := range m.Tokens {
		if err := checkToken(s); err != nil {
			return err
		}
		for _, other := range m.Tokens[:i] {
			if string(other.Digest) == string(s.Digest) {
				return invalid("tokens", "duplicate token")
			}
		}
	}
	return nil
}

// checkToken refuses the zero digest, because rows use it for an absent token.
func checkToken(s *TokenSpec) error {
	var zero revoked.Digest
	if len(s.GetDigest()) != len(zero) || string(s.Digest) == string(zero[:]) {
		return invalid("digest", "want %d bytes that are not all zero", len(zero))
	}
	if k := revoked.TokenKind(min(s.Kind, 255)); k != revoked.AccessToken && k != revoked.RefreshToken {
		return invalid("token kind", "got %d, want %d or %d", s.Kind, revoked.AccessToken, revoked.RefreshToken)
	}
	for _, err := range [...]error{
		checkTime("issued_at", s.IssuedAt), checkTime("expires_at", s.ExpiresAt), checkTime("not_before", s.NotBefore),
	} {
		if err != nil {
			return err
		}
	}
	if s.ExpiresAt != 0 && s.ExpiresAt <= max(s.IssuedAt, s.NotBefore) {
		return invalid("expires_at", "not after issued_at and not_before")
	}
	if err := checkTexts(maxJTI, "jti", s.Jti); err != nil {
		return err
	}
	if n := len(s.Cnf); n > maxCNF {
		return invalid("cnf", "got %d bytes, want at most %d", n, maxCNF)
	}
	if len(s.Cnf) > 0 && (s.Cnf[0] != '{' || !json.Valid(s.Cnf)) {
		return invalid("cnf", "not a JSON object")
	}
	return nil
}

// checkCutoff refuses the selector without properties: it would revoke every token. Only Seed and a
// recovery may do that.
func checkCutoff(m *MakeCutoff) error {
	s := m.GetSelector().Selector()
	if s.IsZero() {
		return invalid("selector", "want at least one of client_id, subject, session, grant_id and issuer")
	}
	err := checkTexts(maxID, "client_id", s.ClientID, "subject", s.Subject, "session", s.Session,
		"grant_id", s.GrantID, "issuer", s.Issuer)
	if err != nil {
		return err
	}
	if err := checkTime("issued_before", m.IssuedBefore); err != nil {
		return err
	}
	return CheckReason(m.Reason)
}

// Roles that a record may name. OperatorRoles adds the newer ones. A program that does not support
// them does not support that field either, so it stops instead of refusing the record.
var (
	oldestRoles = []revoked.Role{revoked.RoleAdmin, revoked.RoleIssuer, revoked.RoleResourceServer}
	newerRoles  = []revoked.Role{revoked.RoleOperator, revoked.RoleViewer, revoked.RoleAuditor}
)

// Methods that a record may name. A record with keys or a certificate subject may also name the
// newer ones. An older program stops at these fields, as with OperatorRoles.
var (
	oldestMethods = []string{revoked.AuthBasic, revoked.AuthPost}
	newerMethods  = []string{revoked.AuthPrivateKey, revoked.AuthTLS, revoked.AuthSelfSigned}
)

// hasStrongMethods reports whether the record has a field that version 5 added.
func (m *ClientRecord) hasStrongMethods() bool {
	return len(m.GetKeys()) > 0 || m.GetSubjectKind() != 0 || m.GetSubject() != ""
}

// CheckClient returns an error that wraps ErrInvalid or ErrUnprocessable for a record that must not
// be stored. It checks less than revoked.ValidateClient. It must never change, because it decides
// which records of a Bootstrap every version applies.
func CheckClient(c *ClientRecord) error {
	roles := oldestRoles
	if c.GetOperatorRoles() {
		roles = slices.Concat(oldestRoles, newerRoles)
	}
	methods := oldestMethods
	if c.hasStrongMethods() {
		methods = slices.Concat(oldestMethods, newerMethods)
	}
	for _, err := range [...]error{
		checkID("client_id", c.GetId()),
		checkEnum("type", []string{c.GetType()}, revoked.Confidential, revoked.Public),
		checkEnum("roles", c.GetRoles(), roles...),
		checkEnum("auth_methods", c.GetAuthMethods(), methods...),
		checkList("audiences", c.GetAudiences()), checkList("issuers", c.GetIssuers()), checkSecrets(c),
		checkStrongMethods(c),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkEnum refuses repeated values and values that are not allowed. An empty list is valid.
func checkEnum[T ~string](name string, list []string, allowed ...T) error {
	for i, s := range list {
		if !slices.Contains(allowed, T(s)) {
			return invalid(name, "got %q, want one of %q", s, allowed)
		}
		if slices.Contains(list[:i], s) {
			return invalid(name, "%q is repeated", s)
		}
	}
	return nil
}

// checkSecrets checks stored hashes. A public client cannot authenticate, so it must not have
// secrets or roles.
func checkSecrets(c *ClientRecord) error {
	if c.GetType() == string(revoked.Public) {
		if len(c.Secrets) > 0 || len(c.Roles) > 0 {
			return fmt.Errorf("%w: public client with a secret or a role", revoked.ErrUnprocessable)
		}
		return nil
	}
	if n := len(c.GetSecrets()); n > maxSecrets {
		return invalid("secrets", "got %d, want at most %d", n, maxSecrets)
	}
	for _, s := range c.GetSecrets() {
		k := revoked.HashKind(min(s.Kind, 255))
		if (k != revoked.HashSHA256 && k != revoked.HashArgon2id) || len(s.Hash) == 0 || len(s.Hash) > maxHash ||
			len(s.Salt) > maxHash || s.ExpiresAt < 0 {
			return invalid("secrets", "malformed hash")
		}
	}
	return nil
}

// checkStrongMethods checks the fields of version 5. It does not require that the methods of c
// match them: revoked.ValidateClient does that, before the leader proposes c.
func checkStrongMethods(c *ClientRecord) error {
	if n := len(c.GetKeys()); n > maxClientKeys {
		return invalid("jwks", "got %d keys, want at most %d", n, maxClientKeys)
	}
	if k := c.GetSubjectKind(); k > uint32(revoked.SubjectEmail) || (k == 0) != (c.GetSubject() == "") {
		return invalid("certificate subject", "got kind %d with a value of %d bytes", k, len(c.GetSubject()))
	}
	if err := checkTexts(maxReason, "certificate subject", c.GetSubject()); err != nil {
		return err
	}
	return revoked.ValidateIssuerKeys(keysOf(c.GetKeys()))
}

// AdmitBootstrap checks a whole bootstrap before it is proposed. It returns an error that names the
// first invalid record: a client that revoked.ValidateClient refuses, a duplicate client id, or
// settings out of bounds. Apply cannot refuse a bootstrap: see fsm/DESIGN.md.
func AdmitBootstrap(m *Bootstrap) error {
	if m.Settings != nil {
		if s := m.Settings.Settings(); revoked.ValidateSettings(&s) != nil {
			return fmt.Errorf("bootstrap settings: %w", revoked.ValidateSettings(&s))
		}
	}
	seen := map[string]bool{}
	for i, rec := range m.Clients {
		err := revoked.ValidateClient(rec.Client())
		if err == nil && seen[rec.Id] {
			err = fmt.Errorf("%w: client_id: repeated", revoked.ErrInvalid)
		}
		if err == nil {
			err = CheckClient(rec)
		}
		if err != nil {
			return fmt.Errorf("bootstrap client %d (%q): %w", i+1, rec.GetId(), err)
		}
		seen[rec.Id] = true
	}
	return nil
}
