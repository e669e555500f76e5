package fsm

import (
	"fmt"
	"slices"

	"revoked"
)

// A newToken is one token of a registration that the state does not hold yet.
type newToken struct {
	spec *TokenSpec
	tok  revoked.Token
}

// register adds tokens to a grant, or makes it. Nothing is written before everything is checked.
func (t *tx) register(who *revoked.Client, m *Register) Result {
	if err := mayRegister(who, m.Issuer); err != nil {
		return Result{Err: err}
	}
	if t.client(m.ClientId) == nil {
		return Result{Err: fmt.Errorf("%w: %q", revoked.ErrUnknownClient, m.ClientId)}
	}
	g, row := t.grant(m.GrantId)
	if row != nil {
		if err := sameGrant(&g, m); err != nil {
			return Result{Err: err}
		}
	}
	fresh, known, err := t.sort(m)
	if err != nil {
		return Result{Err: err}
	}
	if len(fresh) == 0 {
		return t.registered(who, m, known)
	}
	if g.TokenCount+len(fresh) > revoked.MaxGrantTokens {
		return Result{Err: fmt.Errorf("%w: %q would hold more than %d tokens", revoked.ErrGrantFull, m.GrantId, revoked.MaxGrantTokens)}
	}
	if row == nil {
		g.Grant = revoked.Grant{
			ID: m.GrantId, ClientID: m.ClientId, Subject: m.Subject, Session: m.Session, Issuer: m.Issuer,
			RegisteredBy: who.ID, CreatedAt: t.Stamp, CreatedIndex: t.Index,
		}
	}
	live, over := g.LiveRefresh, g.Revoked != nil
	dead := t.join(&g, row, fresh, m.Audience)
	for _, tok := range known {
		dead = dead || t.isDead(&g.Grant, &tok)
	}
	rotated := !live.IsZero() && g.LiveRefresh != live
	return Result{
		Ended: row != nil && (rotated || !over && g.Revoked != nil),
		Register: revoked.RegisterResult{
			GrantID: g.ID, Index: t.Index, Created: true, Revoked: dead || g.Revoked != nil,
		},
	}
}

// mayRegister reports whether who may register tokens of an issuer.
func mayRegister(who *revoked.Client, issuer string) error {
	if who.Has(revoked.RoleAdmin) {
		return nil
	}
	if !who.Has(revoked.RoleIssuer) {
		return fmt.Errorf("%w: client %q is neither an issuer nor an administrator", revoked.ErrForbidden, who.ID)
	}
	if len(who.Issuers) > 0 && !slices.Contains(who.Issuers, issuer) {
		return fmt.Errorf("%w: client %q does not register for issuer %q", revoked.ErrForbidden, who.ID, issuer)
	}
	return nil
}

// sameGrant returns ErrConflict unless a registration may join g. What it does not say of the grant it does not
// say otherwise.
func sameGrant(g *grantRow, m *Register) error {
	same := func(said, is string) bool { return said == "" || said == is }
	if g.ClientID == m.ClientId && same(m.Subject, g.Subject) && same(m.Session, g.Session) && same(m.Issuer, g.Issuer) {
		return nil
	}
	return fmt.Errorf("%w: grant %q belongs to another client, subject, session or issuer", revoked.ErrConflict, g.ID)
}

// sort tells the tokens of a registration that are new from those that are known. What is known beside something
// new belongs to this grant.
func (t *tx) sort(m *Register) (fresh []newToken, known []revoked.Token, err error) {
	for _, spec := range m.Tokens {
		d := revoked.Digest(spec.Digest)
		tok, row := t.token(d)
		if row != nil {
			known = append(known, tok)
			continue
		}
		exp := revoked.Time(spec.ExpiresAt)
		if exp != 0 && exp <= t.Stamp {
			return nil, nil, fmt.Errorf("%w: token %s has expired", revoked.ErrInvalid, d.Prefix())
		}
		if fresh == nil {
			fresh = make([]newToken, 0, len(m.Tokens))
		}
		fresh = append(fresh, newToken{spec: spec, tok: revoked.Token{
			Digest: d, Kind: revoked.TokenKind(spec.Kind), State: revoked.Live, GrantID: m.GrantId,
			IssuedAt: revoked.Time(spec.IssuedAt), ExpiresAt: exp, NotBefore: revoked.Time(spec.NotBefore),
			Scope: m.Scope, Username: m.Username, Audience: m.Audience, JTI: spec.Jti, CNF: spec.Cnf,
		}})
		switch tok := &fresh[len(fresh)-1].tok; {
		case spec.IssuedAt == 0:
			tok.IssuedAt = t.Stamp
		case tok.IssuedAt > t.Stamp:
			tok.RegisteredAt = t.Stamp
		}
	}
	for i := range known {
		if len(fresh) > 0 && known[i].GrantID != m.GrantId {
			return nil, nil, fmt.Errorf("%w: token %s belongs to another grant: register the others with that grant_id", revoked.ErrConflict, known[i].Digest.Prefix())
		}
	}
	return fresh, known, nil
}

// registered answers for a registration of which everything is known, to the same client: nothing changes,
// whatever else it says. The answer names the grant of the first token.
func (t *tx) registered(who *revoked.Client, m *Register, known []revoked.Token) Result {
	dead, rotated := false, false
	for i := range known {
		g, row := t.grant(known[i].GrantID)
		if row == nil {
			t.fail(fmt.Errorf("token %s has no grant %q", known[i].Digest.Prefix(), known[i].GrantID))
			return Result{}
		}
		if g.ClientID != m.ClientId || mayRegister(who, g.Issuer) != nil {
			return Result{Err: fmt.Errorf("%w: token %s belongs to another client or issuer", revoked.ErrConflict, known[i].Digest.Prefix())}
		}
		dead = dead || g.Revoked != nil || t.isDead(&g.Grant, &known[i])
		rotated = rotated || known[i].Kind == revoked.RefreshToken && g.TokenCount > len(known)
	}
	// The first time may have ended something without being answered: a repeat is as final.
	return Result{Ended: dead || rotated, Register: revoked.RegisterResult{GrantID: known[0].GrantID, Index: t.Index, Revoked: dead}}
}

// isDead reports whether a token of g was revoked or cut off.
func (t *tx) isDead(g *revoked.Grant, tok *revoked.Token) bool {
	return tok.State == revoked.Revoked || (tok.State == revoked.Live && t.cutoff(g, tok) != nil)
}

// join writes fresh tokens into g, and reports whether any of them is dead from the start.
func (t *tx) join(g *grantRow, row []byte, fresh []newToken, audience []string) (dead bool) {
	due, isNew := g.Due, row == nil
	var stone *binding
	var gone []revoked.Digest
	for i := range fresh {
		tok := &fresh[i].tok
		if g.LatestExpiry = max(g.LatestExpiry, tok.ExpiresAt); tok.ExpiresAt == 0 {
			g.LatestExpiry = revoked.MaxTime
		}
		if b := t.takeTombstone(tok.Digest, g.ClientID); b != nil && stone == nil {
			stone = b
		}
		if g.Revoked != nil || t.cutoff(&g.Grant, tok) != nil {
			tok.State, dead = revoked.Revoked, true
			gone = append(gone, tok.Digest)
		} else if tok.Kind == revoked.RefreshToken {
			t.rotate(g, tok, fresh[:i])
		}
	}
	for i := range fresh {
		tok := &fresh[i].tok
		t.putToken(nil, tok)
		if tok.State == revoked.Live {
			t.Tokens++
		}
		t.addMember(g, tok, &due)
	}
	g.TokenCount += len(fresh)
	if isNew {
		t.indexGrant(&g.Grant)
		t.Grants++
	}
	if len(gone) > 0 {
		t.goneEvent(&g.Grant, gone, audience)
	}
	if stone != nil && g.Revoked == nil {
		t.endGrant(g, row, revoked.Revocation{At: stone.At, By: stone.By, Reason: stone.Reason, Index: stone.Index})
		return true
	}
	if g.Revoked != nil {
		due = t.revokedDue(&g.Grant)
	} else if due == 0 {
		due = t.overDue(&g.Grant)
	}
	t.putGrant(row, g, due)
	return dead
}

// rotate decides which refresh token of g is the live one: that with the latest issued_at, of equals
// the one that came last. RefreshIat outlives the token that set it.
func (t *tx) rotate(g *grantRow, tok *revoked.Token, sameOp []newToken) {
	if tok.IssuedAt < g.RefreshIat {
		tok.State = revoked.Rotated
		return
	}
	if !g.LiveRefresh.IsZero() {
		t.retire(g.LiveRefresh, sameOp)
	}
	g.LiveRefresh, g.RefreshIat = tok.Digest, tok.IssuedAt
}

// retire makes a refresh token that another one replaced a stub. It may be of the same registration,
// and not written yet.
func (t *tx) retire(d revoked.Digest, sameOp []newToken) {
	for i := range sameOp {
		if sameOp[i].tok.Digest == d {
			sameOp[i].tok.State = revoked.Rotated
			return
		}
	}
	if tok, row := t.token(d); row != nil && tok.State == revoked.Live {
		t.bury(&tok, row, revoked.Rotated)
	}
}

// bury turns a live token into a stub.
func (t *tx) bury(tok *revoked.Token, row []byte, state revoked.TokenState) {
	tok.State = state
	t.putToken(row, tok)
	t.Tokens--
}

// addMember files a new token under its grant: the first inlineTokens in the row itself.
func (t *tx) addMember(g *grantRow, tok *revoked.Token, due *revoked.Time) {
	exp := tok.ExpiresAt
	if tok.State != revoked.Live {
		exp = 0
	}
	if len(g.Tokens) < inlineTokens {
		g.Tokens = append(g.Tokens, tok.Digest)
		if exp != 0 && (*due == 0 || exp < *due) {
			*due = exp
		}
		return
	}
	t.put(memberKey(nil, g.ID, tok.Digest), nil, appendTime(nil, exp))
	t.requeue(tokenKey(nil, tok.Digest), 0, exp)
}

// indexGrant writes the keys by which a selector finds g.
func (t *tx) indexGrant(g *revoked.Grant) {
	t.eachIndex(g, func(key []byte) { t.set(key, nil) })
}

// eachIndex calls fn with every index key of g.
func (t *tx) eachIndex(g *revoked.Grant, fn func(key []byte)) {
	for _, p := range grantIndexes(g) {
		if p.value != "" {
			t.keyBuf = indexKey(t.keyBuf[:0], p.property, p.value, g.ID)
			fn(t.keyBuf)
		}
	}
}

type indexed struct {
	property byte
	value    string
}

func grantIndexes(g *revoked.Grant) [3]indexed {
	return [3]indexed{{byClient, g.ClientID}, {bySubject, g.Subject}, {bySession, g.Session}}
}
