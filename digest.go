package revoked

import (
	"crypto/sha256"
	"encoding/base64"
)

// A Digest is the SHA-256 of a token's bytes, the only form of a token below the HTTP handlers.
type Digest [sha256.Size]byte

// DigestToken returns the digest of a raw token. It keeps no part of the token, and does not copy
// bytes.
func DigestToken[T string | []byte](token T) Digest { return sha256.Sum256([]byte(token)) }

// String returns the base64url form without padding.
func (d Digest) String() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// Prefix returns the first eight characters of String. They distinguish the tokens of a listing and
// are too short to look up a token.
func (d Digest) Prefix() string { return d.String()[:8] }

// IsZero reports whether d is the zero digest, which is not the digest of any token.
func (d Digest) IsZero() bool { return d == Digest{} }
