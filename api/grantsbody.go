package api

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"revoked"
)

// Limits of a registration, in bytes where nothing else is said.
const (
	maxRegistration = 64 << 10 // the whole body, or one line of many
	maxID           = 256
	maxClientID     = 128
	maxURI          = 512 // an issuer, an audience, a user name
	maxScope        = 4 << 10
	maxAudiences    = 64 // entries
	maxCNF          = 2 << 10
	maxToken        = 16 << 10
)

// A registrationDecoder turns bodies of POST /v1/grants into registrations. A raw token is digested as
// it is read; nothing of it stays. The zero value is ready; one goroutine may use it at a time.
type registrationDecoder struct {
	r    jsonReader
	last [lastFields]string // values of the body before: those of many lines are the same
	aud  []string
}

// The fields whose value is likely that of the line before.
const (
	lastClient = iota
	lastSubject
	lastSession
	lastUsername
	lastIssuer
	lastScope
	lastAudience
	lastFields
)

var registrationFields = [...]string{"grant_id", "client_id", "subject", "session", "username", "issuer", "scope",
	"audience", "access_token", "refresh_token"}

var tokenFields = [...]string{"token", "digest", "issued_at", "expires_at", "not_before", "jti", "cnf"}

// decode reads one body. now is what expires_at is held against. An error wraps
// [revoked.ErrInvalid] and quotes nothing of the body.
func (d *registrationDecoder) decode(body []byte, now revoked.Time) (reg revoked.Registration, err error) {
	r := &d.r
	r.reset(body)
	var access, refresh revoked.TokenRegistration
	var hasAccess, hasRefresh bool
	err = r.object(registrationFields[:], func(k int) (err error) {
		if r.null() {
			return nil
		}
		switch k {
		case 0:
			reg.GrantID, err = d.id(maxID, -1)
			if err == nil && reg.GrantID == "" {
				err = r.fail("empty")
			}
		case 1:
			reg.ClientID, err = d.id(maxID, lastClient)
		case 2:
			reg.Subject, err = d.id(maxID, lastSubject)
		case 3:
			reg.Session, err = d.id(maxID, lastSession)
		case 4:
			reg.Username, err = d.id(maxURI, lastUsername)
		case 5:
			reg.Issuer, err = d.id(maxURI, lastIssuer)
		case 6:
			reg.Scope, err = d.id(maxScope, lastScope)
		case 7:
			reg.Audience, err = d.audience()
		case 8:
			hasAccess = true
			access, err = d.token(revoked.AccessToken, now)
		case 9:
			hasRefresh = true
			refresh, err = d.token(revoked.RefreshToken, now)
		}
		return err
	})
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return revoked.Registration{}, err
	}
	r.field = ""
	switch {
	case reg.ClientID == "":
		return revoked.Registration{}, r.fail("client_id is missing")
	case !hasAccess && !hasRefresh:
		return revoked.Registration{}, r.fail("no token: give access_token, refresh_token or both")
	case hasAccess && hasRefresh && access.Digest == refresh.Digest:
		return revoked.Registration{}, r.fail("access_token and refresh_token are the same token")
	}
	if reg.GrantID == "" {
		reg.GrantID = newGrantID()
	}
	reg.Tokens = make([]revoked.TokenRegistration, 0, 2)
	if hasAccess {
		reg.Tokens = append(reg.Tokens, access)
	}
	if hasRefresh {
		reg.Tokens = append(reg.Tokens, refresh)
	}
	return reg, nil
}

func (d *registrationDecoder) token(kind revoked.TokenKind, now revoked.Time) (t revoked.TokenRegistration, err error) {
	r := &d.r
	outer := r.field
	t.Kind = kind
	var hasToken, hasDigest bool
	err = r.object(tokenFields[:], func(k int) (err error) {
		if r.null() {
			return nil
		}
		switch k {
		case 0:
			hasToken = true
			t.Digest, err = d.rawToken()
		case 1:
			hasDigest = true
			t.Digest, err = d.digest()
		case 2:
			t.IssuedAt, err = r.seconds()
		case 3:
			t.ExpiresAt, err = r.seconds()
		case 4:
			t.NotBefore, err = r.seconds()
		case 5:
			t.JTI, err = d.id(maxID, -1)
		case 6:
			t.CNF, err = d.confirmation()
		}
		return err
	})
	r.field = outer
	switch {
	case err != nil:
		return t, err
	case hasToken && hasDigest:
		return t, r.fail("both token and digest are given")
	case !hasToken && !hasDigest:
		return t, r.fail("neither token nor digest is given")
	case t.ExpiresAt != 0 && t.ExpiresAt <= now:
		return t, r.fail("expires_at is past")
	}
	return t, nil
}

// rawToken digests a token and forgets it.
func (d *registrationDecoder) rawToken() (revoked.Digest, error) {
	b, err := d.r.text(maxToken)
	if err != nil {
		return revoked.Digest{}, err
	}
	if len(b) == 0 {
		return revoked.Digest{}, d.r.fail("empty")
	}
	sum := revoked.Digest(sha256.Sum256(b))
	clear(b)
	return sum, nil
}

func (d *registrationDecoder) digest() (digest revoked.Digest, err error) {
	b, err := d.r.text(maxToken)
	if err != nil {
		return digest, err
	}
	var out [sha256.Size + 1]byte
	if len(b) != base64.RawURLEncoding.EncodedLen(len(digest)) {
		return digest, d.r.fail("want the base64url form, without padding, of 32 bytes: 43 characters")
	}
	// The decoder skips line breaks: fewer bytes come out then.
	n, derr := base64.RawURLEncoding.Strict().Decode(out[:], b)
	if derr != nil || n != len(digest) {
		return digest, d.r.fail("want the base64url form, without padding, of 32 bytes: 43 characters")
	}
	copy(digest[:], out[:])
	if digest.IsZero() {
		return digest, d.r.fail("the zero digest is no token's")
	}
	return digest, nil
}

// confirmation reads a cnf object (RFC 7800 section 3.1) and returns it without blanks.
func (d *registrationDecoder) confirmation() ([]byte, error) {
	if d.r.peek() != '{' {
		return nil, d.r.fail("want an object")
	}
	raw, err := d.r.skip(maxCNF)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return nil, d.r.fail("want an object")
	}
	return out.Bytes(), nil
}

// id reads a string without control characters. last is its place in d.last, or -1.
func (d *registrationDecoder) id(limit, last int) (string, error) {
	b, err := d.r.text(limit)
	if err != nil {
		return "", err
	}
	if last >= 0 && d.last[last] == string(b) {
		return d.last[last], nil
	}
	if !printable(b) {
		return "", d.r.fail("control character")
	}
	s := string(b)
	if last >= 0 {
		d.last[last] = s
	}
	return s, nil
}

// audience reads the list of audiences. The list of the body before is returned again when it is equal:
// nobody changes it.
func (d *registrationDecoder) audience() ([]string, error) {
	n, same := 0, true
	var list []string
	err := d.r.array(maxAudiences, func() error {
		b, err := d.r.text(maxURI)
		switch {
		case err != nil:
			return err
		case len(b) == 0:
			return d.r.fail("empty element")
		case same && n < len(d.aud) && d.aud[n] == string(b):
			n++
			return nil
		case !printable(b):
			return d.r.fail("control character")
		}
		if same {
			same = false
			list = append(list, d.aud[:n]...)
		}
		list = append(list, string(b))
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !same:
		d.aud = list
	case n == 0:
		return nil, nil
	case n < len(d.aud):
		d.aud = d.aud[:n:n]
	}
	return d.aud, nil
}

// printable reports whether s, which is valid UTF-8, has no control characters: neither those of ASCII
// nor U+0080 to U+009F, nor the line separators that break a log line.
func printable[T string | []byte](s T) bool {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c < 0x20 || c == 0x7f:
			return false
		case c < utf8.RuneSelf:
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		if r <= 0x9f || r == '\u2028' || r == '\u2029' || r == utf8.RuneError && n == 1 {
			return false
		}
		i += n
	}
	return true
}

// newGrantID draws an id that nobody can guess: "g_" and 128 random bits.
func newGrantID() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	var id [24]byte
	copy(id[:], "g_")
	base64.RawURLEncoding.Encode(id[2:], random[:])
	return string(id[:])
}

// appendSeconds appends t as Unix seconds, with a fraction of at most six digits where it has one.
func appendSeconds(b []byte, t revoked.Time) []byte {
	b = strconv.AppendInt(b, t.Unix(), 10)
	us := int64(t) - t.Unix()*1e6
	if us == 0 {
		return b
	}
	b = append(b, '.')
	for scale := int64(100_000); us > 0; scale /= 10 {
		b = append(b, byte('0'+us/scale))
		us %= scale
	}
	return b
}

// unixTime is a time in an answer: Unix seconds, a number; null where it is absent.
type unixTime revoked.Time

func (s unixTime) MarshalJSON() ([]byte, error) {
	if s == 0 {
		return []byte("null"), nil
	}
	return appendSeconds(nil, revoked.Time(s)), nil
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always has a JSON form
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
