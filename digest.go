package revoked

import (
	"crypto/sha256"
	"encoding/base64"
)

// A Digest is the SHA-256 of a token's bytes: the only form of a token below the HTTP handler.
type Digest [sha256.Size]byte

// DigestToken returns the digest of a raw token.
func DigestToken(token string) Digest { return sha256.Sum256([]byte(token)) }

// String returns the base64url form without padding.
func (d Digest) String() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// Prefix returns the first eight characters of String: enough to tell tokens apart in a listing,
// too little to search for one.
func (d Digest) Prefix() string { return d.String()[:8] }

// IsZero reports whether d is the zero digest, which no token has.
func (d Digest) IsZero() bool { return d == Digest{} }
