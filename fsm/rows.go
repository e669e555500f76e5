package fsm

import (
	"encoding/binary"
	"fmt"

	"revoked"
)

// inlineTokens is how many digests the row of a grant holds itself, and how many rows a revocation
// turns into stubs in the same apply; the rest are members of their own.
const inlineTokens = 64

// Flags of a live token's row.
const (
	hasExpiry = 1 << iota
	hasNotBefore
	notBeforeIsIssued
	hasScope
	hasUsername
	hasAudience
	hasJTI
	hasCNF
)

// isAhead, in the first byte of a live token's row: its issued_at was ahead of its registration, whose
// moment follows.
const isAhead = 0x08

// appendToken writes a token's row:
//
//	byte 0      state, 8 for a live token that was registered before it was issued, kind << 4
//	            grant id (length, bytes)
//	stub:       expiry
//	live:       flags, issued at, registered at (with the 8), then what the flags name
func appendToken(b []byte, t *revoked.Token) []byte {
	head := byte(t.State) | byte(t.Kind)<<4
	if t.State == revoked.Live && t.RegisteredAt != 0 {
		head |= isAhead
	}
	b = append(b, head)
	b = appendString(b, t.GrantID)
	if t.State != revoked.Live {
		return appendTime(b, t.ExpiresAt)
	}
	var f byte
	set := func(on bool, bit byte) {
		if on {
			f |= bit
		}
	}
	set(t.ExpiresAt != 0, hasExpiry)
	set(t.NotBefore != 0 && t.NotBefore != t.IssuedAt, hasNotBefore)
	set(t.NotBefore != 0 && t.NotBefore == t.IssuedAt, notBeforeIsIssued)
	set(t.Scope != "", hasScope)
	set(t.Username != "", hasUsername)
	set(len(t.Audience) > 0, hasAudience)
	set(t.JTI != "", hasJTI)
	set(len(t.CNF) > 0, hasCNF)
	b = appendTime(append(b, f), t.IssuedAt)
	if head&isAhead != 0 {
		b = appendTime(b, t.RegisteredAt)
	}
	if f&hasExpiry != 0 {
		b = appendTime(b, t.ExpiresAt)
	}
	if f&hasNotBefore != 0 {
		b = appendTime(b, t.NotBefore)
	}
	if f&hasScope != 0 {
		b = appendString(b, t.Scope)
	}
	if f&hasUsername != 0 {
		b = appendString(b, t.Username)
	}
	if f&hasAudience != 0 {
		b = appendStrings(b, t.Audience)
	}
	if f&hasJTI != 0 {
		b = appendString(b, t.JTI)
	}
	if f&hasCNF != 0 {
		b = appendBytes(b, t.CNF)
	}
	return b
}

// isLiveRow reports whether a token's row is that of a live one.
func isLiveRow(row []byte) bool {
	return len(row) > 0 && revoked.TokenState(row[0]&0x07) == revoked.Live
}

func parseToken(d revoked.Digest, row []byte) (revoked.Token, error) {
	r := rowReader{b: row}
	head := r.byte()
	t := revoked.Token{
		Digest: d, State: revoked.TokenState(head & 0x07), Kind: revoked.TokenKind(head >> 4), GrantID: r.string(),
	}
	if t.State < revoked.Live || t.State > revoked.Expired ||
		(t.Kind != revoked.AccessToken && t.Kind != revoked.RefreshToken) {
		return t, fmt.Errorf("token %s: %w", d.Prefix(), errRow)
	}
	if t.State != revoked.Live {
		t.ExpiresAt = r.time()
		return t, wrapRow(r.end(), "token ", d.Prefix())
	}
	f := r.byte()
	t.IssuedAt = r.time()
	if head&isAhead != 0 {
		t.RegisteredAt = r.time()
	}
	if f&hasExpiry != 0 {
		t.ExpiresAt = r.time()
	}
	if f&hasNotBefore != 0 {
		t.NotBefore = r.time()
	}
	if f&notBeforeIsIssued != 0 {
		t.NotBefore = t.IssuedAt
	}
	if f&hasScope != 0 {
		t.Scope = r.string()
	}
	if f&hasUsername != 0 {
		t.Username = r.string()
	}
	if f&hasAudience != 0 {
		t.Audience = r.strings()
	}
	if f&hasJTI != 0 {
		t.JTI = r.string()
	}
	if f&hasCNF != 0 {
		t.CNF = append([]byte(nil), r.bytes()...)
	}
	return t, wrapRow(r.end(), "token ", d.Prefix())
}

// A grantRow is a grant and what the state machine keeps beside it.
type grantRow struct {
	revoked.Grant
	// Due is the time of the row's entry in the queue, 0 when it has none.
	Due revoked.Time
	// Tokens are the first inlineTokens digests registered in the grant, dead ones included.
	Tokens []revoked.Digest
}

// overflow reports whether the grant has tokens beyond the inline ones.
func (g *grantRow) overflow() bool { return g.TokenCount > len(g.Tokens) }

// appendGrant writes a grant's row: strings, times, counts, the live refresh token as a position among
// the inline digests (0: none, inlineTokens+1: spelled out), the revocation, the inline digests.
func appendGrant(b []byte, g *grantRow) []byte {
	b = append(b, 1) // version of the row
	for _, s := range [...]string{g.ClientID, g.Subject, g.Session, g.Issuer, g.RegisteredBy} {
		b = appendString(b, s)
	}
	b = appendTime(b, g.CreatedAt)
	b = binary.AppendUvarint(b, g.CreatedIndex)
	b = appendTime(b, g.LatestExpiry)
	b = binary.AppendUvarint(b, uint64(g.TokenCount))
	b = appendTime(b, g.RefreshIat)
	b = appendTime(b, g.Due)
	b = appendLiveRefresh(b, g)
	if g.Revoked == nil {
		b = append(b, 0)
	} else {
		b = appendTime(append(b, 1), g.Revoked.At)
		b = appendString(b, g.Revoked.By)
		b = appendString(b, g.Revoked.Reason)
		b = binary.AppendUvarint(b, g.Revoked.Index)
	}
	b = append(b, byte(len(g.Tokens)))
	for i := range g.Tokens {
		b = append(b, g.Tokens[i][:]...)
	}
	return b
}

func appendLiveRefresh(b []byte, g *grantRow) []byte {
	if g.LiveRefresh.IsZero() {
		return append(b, 0)
	}
	for i := range g.Tokens {
		if g.Tokens[i] == g.LiveRefresh {
			return append(b, byte(i+1))
		}
	}
	return append(append(b, inlineTokens+1), g.LiveRefresh[:]...)
}

func parseGrant(id string, row []byte) (grantRow, error) {
	r := rowReader{b: row}
	if r.byte() != 1 {
		return grantRow{}, fmt.Errorf("grant %q: %w", id, errRow)
	}
	g := grantRow{Grant: revoked.Grant{
		ID: id, ClientID: r.string(), Subject: r.string(), Session: r.string(), Issuer: r.string(),
		RegisteredBy: r.string(), CreatedAt: r.time(), CreatedIndex: r.uvarint(), LatestExpiry: r.time(),
		TokenCount: int(min(r.uvarint(), revoked.MaxGrantTokens+1)), RefreshIat: r.time(),
	}}
	g.Due = r.time()
	refresh := int(r.byte())
	if refresh == inlineTokens+1 {
		g.LiveRefresh = r.digest()
	}
	if r.byte() == 1 {
		g.Revoked = &revoked.Revocation{At: r.time(), By: r.string(), Reason: r.string(), Index: r.uvarint()}
	}
	n := int(r.byte())
	if n > inlineTokens || n > g.TokenCount || n*len(revoked.Digest{}) > len(r.b) {
		return grantRow{}, fmt.Errorf("grant %q: %w", id, errRow)
	}
	g.Tokens = make([]revoked.Digest, n, n+2)
	for i := range g.Tokens {
		g.Tokens[i] = r.digest()
	}
	if refresh > 0 && refresh <= inlineTokens {
		if refresh > n {
			return grantRow{}, fmt.Errorf("grant %q: %w", id, errRow)
		}
		g.LiveRefresh = g.Tokens[refresh-1]
	}
	return g, wrapRow(r.end(), "grant ", id)
}

// A binding ties a tombstone to the client whose registration it kills; the empty client id is any.
type binding struct {
	ClientID string
	By       string // whose quota it counts against
	At       revoked.Time
	Until    revoked.Time
	Index    uint64
	Reason   string
}

// A tombRow is what stays of the revocation of an unknown token. Due is the latest Until.
type tombRow struct {
	Due      revoked.Time
	Bindings []binding
}

func (t *tombRow) binds(client string) *binding {
	for i := range t.Bindings {
		if b := &t.Bindings[i]; b.ClientID == "" || b.ClientID == client {
			return b
		}
	}
	return nil
}

func appendTombstone(b []byte, t *tombRow) []byte {
	b = appendTime(append(b, 1), t.Due)
	b = binary.AppendUvarint(b, uint64(len(t.Bindings)))
	for i := range t.Bindings {
		v := &t.Bindings[i]
		b = appendString(appendString(b, v.ClientID), v.By)
		b = appendTime(appendTime(b, v.At), v.Until)
		b = appendString(binary.AppendUvarint(b, v.Index), v.Reason)
	}
	return b
}

func parseTombstone(row []byte) (tombRow, error) {
	r := rowReader{b: row}
	if r.byte() != 1 {
		return tombRow{}, fmt.Errorf("tombstone: %w", errRow)
	}
	t := tombRow{Due: r.time()}
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		return tombRow{}, fmt.Errorf("tombstone: %w", errRow)
	}
	for ; n > 0 && !r.bad; n-- {
		t.Bindings = append(t.Bindings, binding{
			ClientID: r.string(), By: r.string(), At: r.time(), Until: r.time(), Index: r.uvarint(), Reason: r.string(),
		})
	}
	return t, wrapRow(r.end(), "tombstone", "")
}

// A deletedRow remembers that a client was there.
type deletedRow struct {
	At    revoked.Time
	Index uint64
	Due   revoked.Time
}

func appendDeleted(b []byte, d *deletedRow) []byte {
	b = appendTime(append(b, 1), d.At)
	return appendTime(binary.AppendUvarint(b, d.Index), d.Due)
}

func parseDeleted(row []byte) (deletedRow, error) {
	r := rowReader{b: row}
	if r.byte() != 1 {
		return deletedRow{}, fmt.Errorf("deleted client: %w", errRow)
	}
	d := deletedRow{At: r.time(), Index: r.uvarint(), Due: r.time()}
	return d, wrapRow(r.end(), "deleted client", "")
}

// A settingsRow is the settings, and until when their LeaseCeiling matters.
type settingsRow struct {
	revoked.Settings
	CeilingUntil revoked.Time
}

// at returns the settings as they hold at a stamp.
func (s *settingsRow) at(stamp revoked.Time) revoked.Settings {
	now := s.Settings
	if stamp >= s.CeilingUntil {
		now.LeaseCeiling = 0
	}
	return now
}

func appendEvent(b []byte, e *revoked.Event) []byte {
	b = appendTime(append(b, 1), e.Time)
	for _, s := range [...]string{
		string(e.Kind), e.Selector.ClientID, e.Selector.Subject, e.Selector.Session, e.Selector.GrantID,
		e.Selector.Issuer, e.Action, e.Actor, e.Reason,
	} {
		b = appendString(b, s)
	}
	b = appendTime(b, e.IssuedBefore)
	b = binary.AppendUvarint(b, uint64(len(e.Digests)))
	for i := range e.Digests {
		b = appendStrings(append(b, e.Digests[i][:]...), e.Audiences[i])
	}
	return b
}

func parseEvent(key, row []byte) (revoked.Event, error) {
	r := rowReader{b: row}
	if r.byte() != 1 || len(key) != 13 {
		return revoked.Event{}, fmt.Errorf("event: %w", errRow)
	}
	e := revoked.Event{Index: binary.BigEndian.Uint64(key[1:]), Time: r.time(), Kind: revoked.EventKind(r.string())}
	for _, s := range [...]*string{
		&e.Selector.ClientID, &e.Selector.Subject, &e.Selector.Session, &e.Selector.GrantID,
		&e.Selector.Issuer, &e.Action, &e.Actor, &e.Reason,
	} {
		*s = r.string()
	}
	e.IssuedBefore = r.time()
	n := r.uvarint()
	if n > uint64(len(r.b)/len(revoked.Digest{})) {
		return e, fmt.Errorf("event: %w", errRow)
	}
	for ; n > 0 && !r.bad; n-- {
		e.Digests = append(e.Digests, r.digest())
		e.Audiences = append(e.Audiences, r.strings())
	}
	return e, wrapRow(r.end(), "event", "")
}

func wrapRow(err error, what, id string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s%s: %w", what, id, err)
}
