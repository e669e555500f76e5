package main

import (
	"encoding/base64"
	"errors"
	"strings"

	"revoked"
)

// A secret's hash in a file: kind:salt:hash, the last two in base64url without padding. The kinds are
// sha256 (SHA-256 over salt and secret) and argon2id (19 MiB, 2 passes).

// formatSecretHash writes h as parseSecretHash reads it.
func formatSecretHash(h revoked.SecretHash) string {
	kind := "sha256"
	if h.Kind == revoked.HashArgon2id {
		kind = "argon2id"
	}
	b64 := base64.RawURLEncoding
	return kind + ":" + b64.EncodeToString(h.Salt) + ":" + b64.EncodeToString(h.Hash)
}

// parseSecretHash reads the hash of a secret. Its errors do not repeat the text: it could be a secret
// in the wrong place.
func parseSecretHash(s string) (revoked.SecretHash, error) {
	wrong := errors.New("client_secret_hash: want kind:salt:hash as revoked keygen --hash prints it")
	if len(s) > 256 {
		return revoked.SecretHash{}, wrong
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return revoked.SecretHash{}, wrong
	}
	var h revoked.SecretHash
	switch parts[0] {
	case "sha256":
		h.Kind = revoked.HashSHA256
	case "argon2id":
		h.Kind = revoked.HashArgon2id
	default:
		return revoked.SecretHash{}, wrong
	}
	var err error
	if h.Salt, err = base64.RawURLEncoding.Strict().DecodeString(parts[1]); err != nil || len(h.Salt) < 8 {
		return revoked.SecretHash{}, wrong
	}
	if h.Hash, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil || len(h.Hash) != 32 {
		return revoked.SecretHash{}, wrong
	}
	return h, nil
}
