package revoked

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Limits of an issuer record.
const (
	MaxIssuerName      = 64   // bytes of a name
	MaxIssuerURI       = 2048 // bytes of a jwks_uri
	MaxIssuerList      = 16   // token types, required claims or forbidden claims
	MaxClaimName       = 128  // bytes
	MaxClaimValue      = 512  // bytes of a required claim, of an iss, of a kid
	MaxTokenType       = 64   // bytes of a typ
	MaxKeySet          = 64   // keys of one set
	MaxIssuerKeys      = 256  // stored keys, including retired and banned ones
	maxKeyBytes        = 2048 // DER; an RSA key of 8192 bits takes 1,062
	thumbprintLength   = 43   // SHA-256 in base64url
	MinIssuerLifetime  = time.Minute
	MaxIssuerLifetime  = 720 * time.Hour
	MaxIssuerClockSkew = 5 * time.Minute
)

// signatureAlgorithms are the algorithms of RFC 7518 section 3.1 and RFC 8037 section 3.1 that an
// issuer may use. HMAC and "none" are not among them.
var signatureAlgorithms = [...]string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// SignatureAlgorithms returns the names of the algorithms that an issuer may use.
func SignatureAlgorithms() []string { return slices.Clone(signatureAlgorithms[:]) }

// CheckIssuerName returns an error that wraps [ErrInvalid] unless name is valid: 1 to 64 characters
// of a-z 0-9 . _ -, and a letter or a digit first.
func CheckIssuerName(name string) error {
	if name == "" || len(name) > MaxIssuerName {
		return fmt.Errorf("%w: name: want 1 to %d characters (got %d)", ErrInvalid, MaxIssuerName, len(name))
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return fmt.Errorf("%w: name: want only a-z 0-9 . _ -, and a letter or digit first", ErrInvalid)
		}
	}
	return nil
}

// ValidateIssuer returns an error that names the first invalid field of an issuer record. The API
// and Apply both use it. The error wraps [ErrInvalid] if a value is malformed and
// [ErrUnprocessable] if it is out of bounds or if well-formed fields contradict each other.
//
// A record with JWKSURI may contain fetched keys. A record without JWKSURI needs keys.
func ValidateIssuer(i *Issuer) error {
	for _, err := range []error{
		CheckIssuerName(i.Name),
		checkIssuerText("issuer", i.Issuer, 1, MaxClaimValue),
		checkKeySetURI(i.JWKSURI),
		checkAlgorithms(i.Algorithms),
		checkTokenTypes(i.TokenTypes),
		checkIssuerClaims(i),
		checkIssuerTimes(i),
		checkEarlierMappings(i),
		ValidateIssuerKeys(i.Keys),
		checkIssuerCombination(i),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkIssuerText checks the length of s in bytes and its characters.
func checkIssuerText(field, s string, shortest, longest int) error {
	if len(s) < shortest || len(s) > longest {
		return fmt.Errorf("%w: %s: wrong length (got %d bytes, want %d to %d)", ErrInvalid, field, len(s), shortest, longest)
	}
	return checkPlain(field, s)
}

func checkKeySetURI(uri string) error {
	if uri == "" {
		return nil
	}
	if err := checkIssuerText("jwks_uri", uri, 1, MaxIssuerURI); err != nil {
		return err
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%w: jwks_uri: want a URL that begins with https://", ErrInvalid)
	case u.User != nil:
		return fmt.Errorf("%w: jwks_uri: want a URL without credentials", ErrInvalid)
	case strings.Contains(uri, "#"):
		return fmt.Errorf("%w: jwks_uri: want a URL without a fragment", ErrInvalid)
	}
	return nil
}

func checkAlgorithms(list []string) error {
	for i, a := range list {
		if !slices.Contains(signatureAlgorithms[:], a) {
			return fmt.Errorf("%w: algorithms: want %s", ErrInvalid, strings.Join(signatureAlgorithms[:], ", "))
		}
		if slices.Contains(list[:i], a) {
			return fmt.Errorf("%w: algorithms: %s is repeated", ErrInvalid, a)
		}
	}
	return nil
}

func checkTokenTypes(list []string) error {
	if len(list) == 0 || len(list) > MaxIssuerList {
		return fmt.Errorf("%w: token_types: wrong number of values (got %d, want 1 to %d)",
			ErrInvalid, len(list), MaxIssuerList)
	}
	for _, t := range list {
		if err := checkIssuerText("token_types", t, 0, MaxTokenType); err != nil {
			return err
		}
		if strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%w: token_types: want printable ASCII without spaces", ErrInvalid)
		}
	}
	return nil
}

func checkIssuerClaims(i *Issuer) error {
	if n := len(i.RequiredClaims); n > MaxIssuerList {
		return fmt.Errorf("%w: required_claims: too many (got %d, want at most %d)", ErrInvalid, n, MaxIssuerList)
	}
	if n := len(i.ForbiddenClaims); n > MaxIssuerList {
		return fmt.Errorf("%w: forbidden_claims: too many (got %d, want at most %d)", ErrInvalid, n, MaxIssuerList)
	}
	for _, name := range slices.Sorted(maps.Keys(i.RequiredClaims)) {
		if err := checkIssuerText("required_claims", name, 1, MaxClaimName); err != nil {
			return err
		}
		if err := checkIssuerText("required_claims", i.RequiredClaims[name], 0, MaxClaimValue); err != nil {
			return err
		}
	}
	for _, name := range i.ForbiddenClaims {
		if err := checkIssuerText("forbidden_claims", name, 1, MaxClaimName); err != nil {
			return err
		}
	}
	mapping := i.Mapping()
	return checkClaimNames(&mapping)
}

func checkIssuerTimes(i *Issuer) error {
	switch {
	case i.MaxLifetime < MinIssuerLifetime || i.MaxLifetime > MaxIssuerLifetime:
		return fmt.Errorf("%w: max_lifetime must be from %s to %s", ErrUnprocessable,
			FormatDuration(MinIssuerLifetime), FormatDuration(MaxIssuerLifetime))
	case i.ClockSkew < 0 || i.ClockSkew > MaxIssuerClockSkew:
		return fmt.Errorf("%w: clock_skew must be from 0s to %s", ErrUnprocessable,
			FormatDuration(MaxIssuerClockSkew))
	case i.EarlierLifetime < 0 || i.EarlierLifetime > MaxIssuerLifetime || i.LifetimeSince < 0:
		return fmt.Errorf("%w: earlier lifetime: out of bounds", ErrUnprocessable)
	case i.EarlierSkew < 0 || i.EarlierSkew > MaxIssuerClockSkew || i.SkewSince < 0:
		return fmt.Errorf("%w: earlier skew: out of bounds", ErrUnprocessable)
	}
	return nil
}

// ValidateIssuerKeys returns an error that wraps [ErrInvalid] if a key is malformed, or if the list
// is too long, unsorted or has duplicates.
func ValidateIssuerKeys(keys []IssuerKey) error {
	if len(keys) > MaxIssuerKeys {
		return fmt.Errorf("%w: jwks: too many keys (got %d, want at most %d)", ErrInvalid, len(keys), MaxIssuerKeys)
	}
	for i := range keys {
		k := &keys[i]
		if err := checkIssuerText("jwks: kid", k.KeyID, 0, MaxClaimValue); err != nil {
			return err
		}
		if len(k.Thumbprint) != thumbprintLength || len(k.Public) == 0 || len(k.Public) > maxKeyBytes ||
			k.State < KeyActive || k.State > KeyBanned || k.MissingSince < 0 || k.EndedAt < 0 ||
			k.Algorithm != "" && !slices.Contains(signatureAlgorithms[:], k.Algorithm) {
			return fmt.Errorf("%w: jwks: malformed key", ErrInvalid)
		}
		if i > 0 && keys[i-1].Thumbprint >= k.Thumbprint {
			return fmt.Errorf("%w: jwks: key is repeated, or not in the order of the thumbprints", ErrInvalid)
		}
	}
	return nil
}

// checkIssuerCombination rejects a record whose fields contradict each other.
func checkIssuerCombination(i *Issuer) error {
	alike := i.AcceptsType("JWT") || i.AcceptsType("")
	problem := ""
	switch {
	case i.JWKSURI == "" && len(i.Keys) == 0:
		problem = "jwks_uri: want exactly one of jwks_uri and jwks"
	case alike && len(i.RequiredClaims) == 0 && len(i.ForbiddenClaims) == 0:
		problem = `token_types: "JWT" and "" do not distinguish access tokens from ID tokens; ` +
			"add required_claims or forbidden_claims that do"
	case i.RevokeSession && i.SessionClaim == "":
		problem = "revoke_session: needs session_claim"
	default:
		for _, name := range i.ForbiddenClaims {
			if _, both := i.RequiredClaims[name]; both {
				return fmt.Errorf("%w: forbidden_claims: %q is required as well", ErrUnprocessable, name)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnprocessable, problem)
}

// checkEarlierMappings checks the fields that only Apply sets.
func checkEarlierMappings(i *Issuer) error {
	if n := len(i.Earlier); n > MaxEarlierMappings {
		return fmt.Errorf("%w: earlier mappings: too many (got %d, want at most %d)", ErrUnprocessable, n, MaxEarlierMappings)
	}
	for _, m := range i.Earlier {
		if m.Until < 0 {
			return fmt.Errorf("%w: earlier mappings: out of bounds", ErrUnprocessable)
		}
		if err := checkClaimNames(&m.ClaimMapping); err != nil {
			return err
		}
	}
	return nil
}

func checkClaimNames(m *ClaimMapping) error {
	for _, f := range [...]struct{ field, name string }{
		{"client_claim", m.ClientClaim}, {"session_claim", m.SessionClaim}, {"grant_claim", m.GrantClaim},
	} {
		if err := checkIssuerText(f.field, f.name, 0, MaxClaimName); err != nil {
			return err
		}
	}
	return nil
}
