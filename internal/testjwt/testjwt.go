// Package testjwt signs JWTs of issuers and clients, for tests only.
package testjwt

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"

	"revoked"
)

// AccessToken is the header "typ" of an access token (RFC 9068 section 2.1).
const AccessToken = "at+jwt"

// A Key is an Ed25519 key pair with a key id. Methods may be called concurrently.
type Key struct {
	ID      string
	private ed25519.PrivateKey
}

// NewKey generates a key with the given id.
func NewKey(t testing.TB, id string) Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Key{id, private}
}

// Record returns the active public key in the form in which records of issuers and clients store
// it.
func (k Key) Record(t testing.TB) revoked.IssuerKey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return revoked.IssuerKey{KeyID: k.ID, Thumbprint: encode(sum[:]), Public: der, State: revoked.KeyActive}
}

// JWK returns the public key as a JWK (RFC 8037).
func (k Key) JWK() string {
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, k.ID,
		encode(k.private.Public().(ed25519.PublicKey)))
}

// Sign returns a compact JWS with the claims. If typ is "", the header has no typ. Sign panics if
// the claims cannot be encoded as JSON.
func (k Key) Sign(typ string, claims map[string]any) string {
	header := fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, k.ID)
	if typ != "" {
		header = fmt.Sprintf(`{"typ":%q,"alg":"EdDSA","kid":%q}`, typ, k.ID)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return k.SignRaw(header, payload)
}

// SignRaw returns a compact JWS with any header and payload.
func (k Key) SignRaw(header string, payload []byte) string {
	input := encode([]byte(header)) + "." + encode(payload)
	return input + "." + encode(ed25519.Sign(k.private, []byte(input)))
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
