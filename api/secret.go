package api

import (
	"crypto/rand"
	"encoding/base64"

	"revoked"
)

// Bounds of a client secret, in bytes.
const (
	strongSecret = 32 // from here on a fast hash is enough
	maxSecret    = 1024
	saltLen      = 16
)

// NewSecret draws a client secret of 256 random bits. Its alphabet, A-Z a-z 0-9 - _, is the same in
// the form-encoded, the percent-encoded and the raw spelling, so that every client sends it alike.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// HashSecret returns what is stored of a secret: SHA-256 under a salt for one of 32 bytes and more,
// argon2id for a shorter one, which can only be an imported one.
func HashSecret(secret string) revoked.SecretHash {
	kind := revoked.HashSHA256
	if len(secret) < strongSecret {
		kind = revoked.HashArgon2id
	}
	salt := make([]byte, saltLen)
	rand.Read(salt) // never fails
	return revoked.SecretHash{Kind: kind, Salt: salt, Hash: hashSecret(kind, salt, secret)}
}
