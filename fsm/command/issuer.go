package command

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"revoked"
)

// PutIssuerOp returns the operation that creates i (ifVersion 0) or replaces the record whose
// version is ifVersion. The keys of i are used only if i has no JWKSURI.
func PutIssuerOp(by revoked.Actor, i *revoked.Issuer, ifVersion uint64) *Op {
	return newOp(by, &Op_PutIssuer{PutIssuer: &PutIssuer{Issuer: IssuerMessage(i), IfVersion: ifVersion}})
}

// DeleteIssuerOp returns the operation that deletes an issuer and revokes its tokens.
func DeleteIssuerOp(by revoked.Actor, name string) *Op {
	return newOp(by, &Op_DeleteIssuer{DeleteIssuer: &DeleteIssuer{Name: name}})
}

// PutIssuerKeysOp returns the operation with which the leader stores the keys of a fetched set, in
// the order of their thumbprints. It replaces the keys whose KeysVersion is version. The result
// wraps ErrConflict if they have changed. A set that changes nothing is a no-op.
func PutIssuerKeysOp(name string, version uint64, keys []revoked.IssuerKey) *Op {
	m := &PutIssuerKeys{Name: name, KeysVersion: version, Keys: keyMessages(keys)}
	return newOp(revoked.Actor{}, &Op_PutIssuerKeys{PutIssuerKeys: m})
}

// BanIssuerKeyOp returns the operation that bans a key permanently.
func BanIssuerKeyOp(by revoked.Actor, name, thumbprint string) *Op {
	return newOp(by, &Op_BanIssuerKey{BanIssuerKey: &BanIssuerKey{Name: name, Thumbprint: thumbprint}})
}

// RevokeJWTOp returns the operation that revokes j. If j has digests, the caller must have verified
// the JWT. Otherwise only the issuer, the jti and the expiry of j may be set.
func RevokeJWTOp(by revoked.Actor, j *revoked.JWT, reason string) *Op {
	m := &RevokeJWT{
		Issuer: j.Issuer, Jti: j.JTI, ClientId: j.ClientID, Subject: j.Subject, Session: j.Session,
		GrantId: j.GrantID, IssuedAt: int64(j.IssuedAt), ExpiresAt: int64(j.ExpiresAt), Audience: j.Audience,
		Thumbprint: j.Thumbprint, Reason: reason, MappingVersion: j.MappingVersion,
	}
	for i := range j.Digests {
		m.Digests = append(m.Digests, j.Digests[i][:])
	}
	for i := range j.Earlier {
		was := &j.Earlier[i]
		m.Earlier = append(m.Earlier, &Membership{
			ClientId: was.ClientID, Session: was.Session, GrantId: was.GrantID, OwnClients: was.OwnClients,
			HasGrants: was.HasGrants,
		})
	}
	return newOp(by, &Op_RevokeJwt{RevokeJwt: m})
}

// JWT returns the token that m revokes. m must have passed Admit.
func (m *RevokeJWT) JWT() *revoked.JWT {
	j := &revoked.JWT{
		Issuer: m.Issuer, JTI: m.Jti, ClientID: m.ClientId, Subject: m.Subject, Session: m.Session,
		GrantID: m.GrantId, IssuedAt: revoked.Time(m.IssuedAt), ExpiresAt: revoked.Time(m.ExpiresAt),
		Audience: m.Audience, Thumbprint: m.Thumbprint, MappingVersion: m.MappingVersion,
	}
	for _, d := range m.Digests {
		j.Digests = append(j.Digests, revoked.Digest(d))
	}
	for _, was := range m.Earlier {
		j.Earlier = append(j.Earlier, revoked.Membership{
			ClientID: was.GetClientId(), Session: was.GetSession(), GrantID: was.GetGrantId(),
			OwnClients: was.GetOwnClients(), HasGrants: was.GetHasGrants(),
		})
	}
	return j
}

// checkIssuerOp checks the operations on trusted issuers and their tokens.
func checkIssuerOp(op *Op) error {
	switch k := op.GetKind().(type) {
	case *Op_PutIssuer:
		if k.PutIssuer.GetIssuer() == nil {
			return invalid("issuer", "missing")
		}
		return revoked.ValidateIssuer(k.PutIssuer.Issuer.Record())
	case *Op_DeleteIssuer:
		return revoked.CheckIssuerName(k.DeleteIssuer.GetName())
	case *Op_PutIssuerKeys:
		return checkFetchedKeys(k.PutIssuerKeys)
	case *Op_BanIssuerKey:
		return cmp.Or(revoked.CheckIssuerName(k.BanIssuerKey.GetName()),
			checkID("thumbprint", k.BanIssuerKey.GetThumbprint()))
	case *Op_RevokeJwt:
		return checkRevokeJWT(k.RevokeJwt)
	case *Op_Note:
		return checkNote(k.Note)
	}
	return errNoKind
}

// checkFetchedKeys refuses a set without keys. An issuer that publishes no keys has failed, and its
// stored keys stay.
func checkFetchedKeys(m *PutIssuerKeys) error {
	if n := len(m.GetKeys()); n == 0 || n > revoked.MaxKeySet {
		return invalid("keys", "got %d, want 1 to %d", n, revoked.MaxKeySet)
	}
	return cmp.Or(revoked.CheckIssuerName(m.GetName()), revoked.ValidateIssuerKeys(keysOf(m.Keys)))
}

// checkRevokeJWT separates the two forms of the operation. With a digest the claims come from a
// verified token and must be complete; without one they must be absent.
func checkRevokeJWT(m *RevokeJWT) error {
	for _, err := range [...]error{
		checkID("issuer", m.GetIssuer()), checkTexts(maxJTI, "jti", m.GetJti()), CheckReason(m.GetReason()),
		checkTexts(maxID, "client_id", m.GetClientId(), "subject", m.GetSubject()),
		checkTexts(maxID, "session", m.GetSession(), "grant_id", m.GetGrantId()),
		checkTexts(maxID, "thumbprint", m.GetThumbprint()), checkList("audience", m.GetAudience()),
		checkTime("issued_at", m.GetIssuedAt()), checkTime("expires_at", m.GetExpiresAt()),
	} {
		if err != nil {
			return err
		}
	}
	var zero revoked.Digest
	for i, d := range m.Digests {
		if i > 1 || len(d) != len(zero) || string(d) == string(zero[:]) {
			return invalid("digests", "want at most two, each of %d bytes that are not all zero", len(zero))
		}
	}
	if n := len(m.Earlier); n > revoked.MaxEarlierMappings {
		return invalid("earlier", "too many memberships (got %d, want at most %d)", n, revoked.MaxEarlierMappings)
	}
	for _, was := range m.Earlier {
		if err := checkTexts(maxID, "client_id", was.GetClientId(), "session", was.GetSession(),
			"grant_id", was.GetGrantId()); err != nil {
			return err
		}
	}
	fromToken := m.ClientId != "" || m.Subject != "" || m.Session != "" || m.GrantId != "" || m.IssuedAt != 0 ||
		len(m.Audience) > 0 || m.Thumbprint != "" || len(m.Earlier) > 0 || m.MappingVersion != 0
	switch {
	case len(m.Digests) == 0 && fromToken:
		return invalid("digests", "missing, but the operation has claims of a token")
	case len(m.Digests) == 0 && m.Jti == "":
		return invalid("jti", "missing, and the operation has no digest")
	case len(m.Digests) > 0 && (m.IssuedAt == 0 || m.ExpiresAt == 0 || m.Thumbprint == ""):
		return invalid("digests", "want issued_at, expires_at and thumbprint of the token")
	}
	return nil
}

// IssuerMessage returns the record of i. It shares the slices of i. The required claims are sorted
// by name, so that equal records have equal bytes.
func IssuerMessage(i *revoked.Issuer) *IssuerRecord {
	m := &IssuerRecord{
		Name: i.Name, Issuer: i.Issuer, JwksUri: i.JWKSURI, Algorithms: i.Algorithms, TokenTypes: i.TokenTypes,
		ForbiddenClaims: i.ForbiddenClaims, ClientClaim: i.ClientClaim, SessionClaim: i.SessionClaim,
		GrantClaim: i.GrantClaim, RevokeSession: i.RevokeSession, OwnClients: i.OwnClients,
		RefuseUnknownClients: i.RefuseUnknownClients, RequireAudience: i.RequireAudience, Jti: i.JTI,
		MaxLifetime: int64(i.MaxLifetime), ClockSkew: int64(i.ClockSkew), Disabled: i.Disabled,
		Keys: keyMessages(i.Keys), CreatedAt: int64(i.CreatedAt), Version: i.Version, KeysVersion: i.KeysVersion,
		EarlierLifetime: int64(i.EarlierLifetime), LifetimeSince: int64(i.LifetimeSince), DeletedAt: int64(i.DeletedAt),
		EarlierSkew: int64(i.EarlierSkew), SkewSince: int64(i.SkewSince), MappingVersion: i.MappingVersion,
	}
	for _, was := range i.Earlier {
		m.Earlier = append(m.Earlier, &EarlierMapping{
			ClientClaim: was.ClientClaim, SessionClaim: was.SessionClaim, GrantClaim: was.GrantClaim,
			OwnClients: was.OwnClients, Until: int64(was.Until),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(i.RequiredClaims)) {
		m.RequiredClaims = append(m.RequiredClaims, &IssuerClaim{Name: name, Value: i.RequiredClaims[name]})
	}
	return m
}

// Record is the inverse of IssuerMessage. If a claim is repeated, its last value is used.
func (m *IssuerRecord) Record() *revoked.Issuer {
	i := &revoked.Issuer{
		Name: m.Name, Issuer: m.Issuer, JWKSURI: m.JwksUri, Algorithms: m.Algorithms, TokenTypes: m.TokenTypes,
		ForbiddenClaims: m.ForbiddenClaims, ClientClaim: m.ClientClaim, SessionClaim: m.SessionClaim,
		GrantClaim: m.GrantClaim, RevokeSession: m.RevokeSession, OwnClients: m.OwnClients,
		RefuseUnknownClients: m.RefuseUnknownClients, RequireAudience: m.RequireAudience, JTI: m.Jti,
		MaxLifetime: time.Duration(m.MaxLifetime), ClockSkew: time.Duration(m.ClockSkew), Disabled: m.Disabled,
		Keys: keysOf(m.Keys), CreatedAt: revoked.Time(m.CreatedAt), Version: m.Version, KeysVersion: m.KeysVersion,
		EarlierLifetime: time.Duration(m.EarlierLifetime), LifetimeSince: revoked.Time(m.LifetimeSince),
		EarlierSkew: time.Duration(m.EarlierSkew), SkewSince: revoked.Time(m.SkewSince),
		DeletedAt: revoked.Time(m.DeletedAt), MappingVersion: m.MappingVersion,
	}
	for _, was := range m.Earlier {
		i.Earlier = append(i.Earlier, revoked.EarlierMapping{Until: revoked.Time(was.GetUntil()),
			ClaimMapping: revoked.ClaimMapping{ClientClaim: was.GetClientClaim(), SessionClaim: was.GetSessionClaim(),
				GrantClaim: was.GetGrantClaim(), OwnClients: was.GetOwnClients()}})
	}
	if len(m.RequiredClaims) > 0 {
		i.RequiredClaims = map[string]string{}
	}
	for _, c := range m.RequiredClaims {
		i.RequiredClaims[c.GetName()] = c.GetValue()
	}
	return i
}

// keyMessages returns the messages of keys, in the same order.
func keyMessages(keys []revoked.IssuerKey) []*IssuerKeyRecord {
	var list []*IssuerKeyRecord
	for i := range keys {
		k := &keys[i]
		list = append(list, &IssuerKeyRecord{
			KeyId: k.KeyID, Thumbprint: k.Thumbprint, Algorithm: k.Algorithm, Public: k.Public, State: uint32(k.State),
			MissingSince: int64(k.MissingSince), EndedAt: int64(k.EndedAt),
		})
	}
	return list
}

// keysOf is the inverse of keyMessages. A state that no version supports becomes 255, which no key
// may have.
func keysOf(list []*IssuerKeyRecord) []revoked.IssuerKey {
	var keys []revoked.IssuerKey
	for _, m := range list {
		keys = append(keys, revoked.IssuerKey{
			KeyID: m.GetKeyId(), Thumbprint: m.GetThumbprint(), Algorithm: m.GetAlgorithm(), Public: m.GetPublic(),
			State: revoked.KeyState(min(m.GetState(), 255)), MissingSince: revoked.Time(m.GetMissingSince()),
			EndedAt: revoked.Time(m.GetEndedAt()),
		})
	}
	return keys
}
