package clientauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"revoked"
	"revoked/internal/textsafe"
)

// Bounds of a client secret, in bytes.
const (
	StrongSecret = 32 // a fast hash is enough from this length
	MaxSecret    = 1024
)

// Parameters of stored hashes: argon2id makes 2 passes over 19 MiB.
const (
	argonTime    = 2
	argonMemory  = 19456 // KiB
	argonThreads = 1
	hashLen      = 32
	saltLen      = 16
)

// CheckSecret returns an error that wraps [revoked.ErrUnprocessable] or [revoked.ErrInvalid] if a
// client cannot have the secret. Only a secret that was imported from another system may be shorter
// than [StrongSecret] or begin or end with white space. The error does not quote the secret.
func CheckSecret(secret string, imported bool) error {
	switch {
	case secret == "":
		return fmt.Errorf("%w: client_secret: empty", revoked.ErrInvalid)
	case len(secret) > MaxSecret:
		return fmt.Errorf("%w: client_secret: too long (got %d bytes, want at most %d)",
			revoked.ErrInvalid, len(secret), MaxSecret)
	case !textsafe.Printable(secret):
		return fmt.Errorf("%w: client_secret: want UTF-8 on one line, without control characters", revoked.ErrInvalid)
	case imported:
		return nil
	case len(secret) < StrongSecret:
		return fmt.Errorf("%w: client_secret has fewer than %d bytes: omit it, or set imported",
			revoked.ErrUnprocessable, StrongSecret)
	case strings.TrimSpace(secret) != secret || strings.HasPrefix(secret, "\ufeff"):
		return fmt.Errorf("%w: client_secret begins or ends with white space or a byte order mark: "+
			"remove it, or set imported",
			revoked.ErrUnprocessable)
	}
	return nil
}

// NewSecret generates a client secret of 256 random bits. Its alphabet, A-Z a-z 0-9 - _, needs no
// escapes, so every client sends it in the same bytes.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// HashSecret returns the stored form of a secret: salted SHA-256 for [StrongSecret] bytes or more,
// argon2id for less. Only imported secrets are that short.
func HashSecret(secret string) revoked.SecretHash {
	kind := revoked.HashSHA256
	if len(secret) < StrongSecret {
		kind = revoked.HashArgon2id
	}
	salt := make([]byte, saltLen)
	rand.Read(salt) // never fails
	return revoked.SecretHash{Kind: kind, Salt: salt, Hash: computeHash(kind, salt, secret)}
}

// HasWeakSecret reports whether a secret of c that has not expired is shorter than [StrongSecret].
func HasWeakSecret(c *revoked.Client, now time.Time) bool {
	return slices.ContainsFunc(c.Secrets, func(s revoked.SecretHash) bool {
		return s.Kind == revoked.HashArgon2id && !expired(&s, now)
	})
}

// computeHash hashes a salted secret. It returns nil for an unknown kind.
func computeHash(kind revoked.HashKind, salt []byte, secret string) []byte {
	switch kind {
	case revoked.HashSHA256:
		b := make([]byte, 0, 128)
		b = append(append(b, salt...), secret...)
		sum := sha256.Sum256(b)
		clear(b)
		return sum[:]
	case revoked.HashArgon2id:
		return argon2.IDKey([]byte(secret), salt, argonTime, argonMemory, argonThreads, hashLen)
	}
	return nil
}
