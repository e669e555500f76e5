// Package registration decodes bodies of POST /v1/grants, retries registrations, and formats their
// results. A [Pipeline] registers the lines of an NDJSON body in batches.
//
// It keeps no raw token: a [Decoder] clears each one as soon as it has its digest. Its errors never
// quote the body, which may contain a token.
//
// It does not depend on HTTP or on the form of errors: the caller supplies
// [PipelineConfig.AppendError].
package registration

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"revoked"
	"revoked/api/strictjson"
	"revoked/internal/textsafe"
)

// Limits of a registration, in bytes unless noted.
const (
	MaxBody      = 64 << 10 // size of a body, or of one line of a bulk registration
	MaxID        = 256
	MaxURI       = 512 // length of an issuer, an audience or a user name
	maxScope     = 4 << 10
	maxAudiences = 64 // number of entries
	maxCNF       = 2 << 10
	maxToken     = 8 << 10
	// maxEscapedToken limits the percent-encoded form of a token. The limit for the form of a
	// revocation is 4 KiB larger, for its other parameters: a hint, and the longest client id and
	// secret.
	maxEscapedToken = 12 << 10
)

// escapedLen returns the length of a token in a form after the strictest percent-encoding. The
// strictest encoder leaves unchanged only the characters that all encoders leave unchanged.
func escapedLen(token []byte) int {
	n := len(token)
	for _, c := range token {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			n += 2
		}
	}
	return n
}

// A Decoder decodes bodies. It digests a raw token as it reads it and keeps no copy. The zero value
// is ready to use, by one goroutine at a time.
//
// Lines of a bulk registration often repeat values, so the decoder returns the previous strings
// instead of allocating equal ones.
type Decoder struct {
	r         strictjson.Reader
	prev      revoked.Registration
	audiences []string // scratch space of the method audience
}

// bodyFields are the members of a body, and tokenFields are the members of a token in it. An
// unknown member is an error: a misspelled expires_at must not register a token that never expires.
var bodyFields = [...]string{"grant_id", "client_id", "subject", "session", "username", "issuer", "scope",
	"audience", "access_token", "refresh_token"}

var tokenFields = [...]string{"token", "digest", "issued_at", "expires_at", "not_before", "jti", "cnf"}

// Decode reads one body. Every expires_at must be after now. The error wraps [revoked.ErrInvalid]
// and does not quote the body.
func (d *Decoder) Decode(body []byte, now revoked.Time) (reg revoked.Registration, err error) {
	r := &d.r
	r.Reset(body)
	var access, refresh revoked.TokenRegistration // Kind 0: absent
	err = r.Object(bodyFields[:], func(k int) (err error) {
		if r.Null() {
			return nil
		}
		switch name := bodyFields[k]; name {
		case "access_token":
			access, err = d.token(revoked.AccessToken, now)
		case "refresh_token":
			refresh, err = d.token(revoked.RefreshToken, now)
		default:
			err = d.member(name, &reg)
		}
		return err
	})
	if err == nil {
		err = r.End()
	}
	switch {
	case err != nil:
	case reg.ClientID == "":
		err = r.Fail("client_id is missing")
	case access.Kind == 0 && refresh.Kind == 0:
		err = r.Fail("access_token and refresh_token are missing: give at least one")
	case access.Digest == refresh.Digest:
		err = r.Fail("access_token and refresh_token are the same token")
	}
	if err != nil {
		return revoked.Registration{}, err
	}
	if reg.GrantID == "" {
		reg.GrantID = newGrantID()
	}
	reg.Tokens = make([]revoked.TokenRegistration, 0, 2)
	for _, t := range []revoked.TokenRegistration{access, refresh} {
		if t.Kind != 0 {
			reg.Tokens = append(reg.Tokens, t)
		}
	}
	d.prev = reg
	return reg, nil
}

// Wipe clears the copies of text that d made while reading: strings with escapes. The body itself
// belongs to the caller, who clears it.
func (d *Decoder) Wipe() { d.r.Wipe() }

// member reads the value of a member that is not a token.
func (d *Decoder) member(name string, reg *revoked.Registration) (err error) {
	switch prev := &d.prev; name {
	case "grant_id":
		reg.GrantID, err = d.r.Name(MaxID)
	case "client_id":
		reg.ClientID, err = d.line(MaxID, prev.ClientID)
	case "subject":
		reg.Subject, err = d.line(MaxID, prev.Subject)
	case "session":
		reg.Session, err = d.line(MaxID, prev.Session)
	case "username":
		reg.Username, err = d.line(MaxURI, prev.Username)
	case "issuer":
		reg.Issuer, err = d.line(MaxURI, prev.Issuer)
	case "scope":
		reg.Scope, err = d.line(maxScope, prev.Scope)
	case "audience":
		reg.Audience, err = d.audience(prev.Audience)
	}
	return err
}

// token reads access_token or refresh_token. A token that has expired is refused: its registration
// would have no effect, so the caller is wrong about the time.
func (d *Decoder) token(kind revoked.TokenKind, now revoked.Time) (t revoked.TokenRegistration, err error) {
	r := &d.r
	t.Kind = kind
	var hasToken, hasDigest bool
	err = r.Object(tokenFields[:], func(k int) (err error) {
		if r.Null() {
			return nil
		}
		switch tokenFields[k] {
		case "token":
			hasToken = true
			t.Digest, err = d.rawToken()
		case "digest":
			hasDigest = true
			t.Digest, err = ReadDigest(r)
		case "issued_at":
			t.IssuedAt, err = r.Time()
		case "expires_at":
			t.ExpiresAt, err = r.Time()
		case "not_before":
			t.NotBefore, err = r.Time()
		case "jti":
			t.JTI, err = r.Line(MaxID)
		case "cnf":
			t.CNF, err = d.confirmation()
		}
		return err
	})
	switch {
	case err != nil:
		return t, err
	case hasToken && hasDigest:
		return t, r.Fail("both token and digest are given")
	case !hasToken && !hasDigest:
		return t, r.Fail("neither token nor digest is given")
	case t.ExpiresAt != 0 && t.ExpiresAt <= now:
		return t, r.Fail("expires_at is in the past")
	}
	return t, nil
}

// rawToken reads a raw token, clears it and returns its digest. So the text of the request no
// longer contains the token, even if a later step fails. It refuses a token that would not fit into
// the form of a revocation or an introspection.
func (d *Decoder) rawToken() (revoked.Digest, error) {
	b, err := d.r.Text(maxToken)
	if err != nil {
		return revoked.Digest{}, err
	}
	if len(b) == 0 {
		return revoked.Digest{}, d.r.Fail("empty")
	}
	if n := escapedLen(b); n > maxEscapedToken {
		clear(b)
		return revoked.Digest{}, d.r.Fail(fmt.Sprintf("longer than %d bytes when percent-encoded (%d)",
			maxEscapedToken, n))
	}
	sum := revoked.Digest(sha256.Sum256(b))
	clear(b)
	return sum, nil
}

// ReadDigest reads a digest in base64url without padding (RFC 4648 section 5). It accepts one
// encoding of a digest only, so that a digest in a log can be searched as text.
func ReadDigest(r *strictjson.Reader) (digest revoked.Digest, err error) {
	b, err := r.Text(maxToken)
	if err != nil {
		return digest, err
	}
	var out [sha256.Size + 1]byte
	if len(b) != base64.RawURLEncoding.EncodedLen(len(digest)) {
		return digest, r.Fail("want the base64url form, without padding, of 32 bytes: 43 characters")
	}
	// The decoder skips line breaks, so it may return fewer bytes.
	n, derr := base64.RawURLEncoding.Strict().Decode(out[:], b)
	if derr != nil || n != len(digest) {
		return digest, r.Fail("want the base64url form, without padding, of 32 bytes: 43 characters")
	}
	copy(digest[:], out[:])
	// The zero digest is not the digest of any token, so a caller that sends it has a defect.
	if digest.IsZero() {
		return digest, r.Fail("the zero digest is not valid")
	}
	return digest, nil
}

// confirmation reads a cnf object (RFC 7800 section 3.1) and returns it in compact form.
func (d *Decoder) confirmation() ([]byte, error) {
	if d.r.Peek() != '{' {
		return nil, d.r.Fail("want an object")
	}
	raw, err := d.r.Raw(maxCNF)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return nil, d.r.Fail("want an object")
	}
	return out.Bytes(), nil
}

// line reads a string without control characters. It returns prev if the two are equal.
func (d *Decoder) line(limit int, prev string) (string, error) {
	b, err := d.r.Text(limit)
	switch {
	case err != nil:
		return "", err
	case string(b) == prev:
		return prev, nil
	case !textsafe.Printable(b):
		return "", d.r.Fail("control character")
	}
	return string(b), nil
}

// audience reads the list of audiences. It returns prev if the two are equal, so the result must
// not be changed.
func (d *Decoder) audience(prev []string) ([]string, error) {
	list := d.audiences[:0]
	err := d.r.Array(maxAudiences, func() error {
		same := ""
		if len(list) < len(prev) {
			same = prev[len(list)]
		}
		aud, err := d.line(MaxURI, same)
		if err == nil && aud == "" {
			err = d.r.Fail("empty element")
		}
		list = append(list, aud)
		return err
	})
	d.audiences = list
	switch {
	case err != nil || len(list) == 0:
		return nil, err
	case slices.Equal(list, prev):
		return prev, nil
	}
	return slices.Clone(list), nil
}

// newGrantID returns an unguessable id: "g_", the time in seconds and 96 random bits. Callers that
// choose ids of their own cannot collide with it by accident.
//
// The store sorts grants by id, so it has grants of the same time next to each other. With random
// ids, compactions would rewrite all grants again and again.
func newGrantID() string {
	var b [16]byte
	binary.BigEndian.PutUint32(b[:], uint32(time.Now().Unix()))
	rand.Read(b[4:]) // never fails
	return "g_" + base64.RawURLEncoding.EncodeToString(b[:])
}
