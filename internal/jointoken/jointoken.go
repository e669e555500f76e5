// Package jointoken defines the form of a join token and the proofs that a node makes with it.
//
// A token consists of a secret and the hash of the key of the cluster's CA. The secret is never
// sent: the node derives an Ed25519 key from it (RFC 5869, RFC 8032) and signs its request. The
// signature covers a value that only the ends of the TLS connection know (RFC 8446 section 7.5). So
// a captured message is useless on another connection and for another node. A member that received
// the message can replay it while the token is valid, for the same node only. The cluster stores
// only a digest of the public key.
//
// The package never prints a token, except in Text.
package jointoken

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// prefix begins the text of a token. Tokens of older versions are base64url without a dot.
const prefix = "rjt1."

// A Token admits one node. The text is the prefix and the base64url of
//
//	byte 0..31   secret, random
//	byte 32..63  SHA-256 of the SubjectPublicKeyInfo of the cluster's CA
type Token struct {
	secret, ca [32]byte
}

// New returns a token with a random secret. ca is the hash of the key of the CA.
func New(ca [32]byte) Token {
	t := Token{ca: ca}
	rand.Read(t.secret[:]) // never fails
	return t
}

// errForm does not quote the text, which may contain a secret.
var errForm = errors.New("join token: damaged or incomplete (want rjt1. and 86 more characters)")

// Parse is the inverse of Text.
func Parse(text string) (Token, error) {
	var t Token
	rest, ok := strings.CutPrefix(text, prefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) != len(t.secret)+len(t.ca) || strings.ContainsAny(rest, "\r\n") {
		return Token{}, errForm
	}
	copy(t.secret[:], b)
	copy(t.ca[:], b[len(t.secret):])
	return t, nil
}

// HasKey reports whether the text begins like that of a token with a key.
func HasKey(text string) bool { return strings.HasPrefix(text, prefix) }

// IsOlder reports whether the text is a token of an older version: base64url of 32 bytes. A node
// sends such a token as it is. It must not send a damaged token, so IsOlder accepts no other text.
func IsOlder(text string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == 32 && !strings.ContainsAny(text, "\r\n")
}

// Text returns the text of the token. Only the call that creates a token shows it.
func (t Token) Text() string {
	return prefix + base64.RawURLEncoding.EncodeToString(append(t.secret[:], t.ca[:]...))
}

// Format hides the secret from every verb of package fmt.
func (Token) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte("join token")) }

// CA returns the hash of the key of the cluster's CA.
func (t Token) CA() [32]byte { return t.ca }

// key derives the private key. The info string separates it from other uses of the secret.
func (t Token) key() ed25519.PrivateKey {
	seed, err := hkdf.Key(sha256.New, t.secret[:], nil, "revoked join token: Ed25519 seed, version 1", ed25519.SeedSize)
	if err != nil {
		panic(err) // only for a length that SHA-256 cannot give
	}
	return ed25519.NewKeyFromSeed(seed)
}

// PublicKey returns the public key of the token.
func (t Token) PublicKey() []byte { return t.key().Public().(ed25519.PublicKey) }

// Digest returns the digest of a token's public key, which identifies the token in the cluster.
func Digest(publicKey []byte) [32]byte { return sha256.Sum256(publicKey) }

// joinUse begins the message that SignJoin signs. Each use of the key has a different text.
const joinUse = "revoked join token: join, version 1"

// SignJoin returns the proof that the holder of the token requests that an instance of node joins,
// on the connection with that binding.
func (t Token) SignJoin(node, instance string, binding []byte) []byte {
	return ed25519.Sign(t.key(), message(joinUse, []byte(node), []byte(instance), binding))
}

// VerifyJoin reports whether SignJoin of the token with that public key made proof for the same
// arguments. The arguments may be any bytes.
func VerifyJoin(publicKey, proof []byte, node, instance string, binding []byte) bool {
	return verify(publicKey, proof, message(joinUse, []byte(node), []byte(instance), binding))
}

// enrollUse begins the message that SignEnrollment signs.
const enrollUse = "revoked join token: enrollment, version 1"

// SignEnrollment returns the proof that the holder of the token requests a certificate of node, by
// the certificate request csr, on the connection with that binding.
func (t Token) SignEnrollment(node string, csr, binding []byte) []byte {
	sum := sha256.Sum256(csr)
	return ed25519.Sign(t.key(), message(enrollUse, []byte(node), sum[:], binding))
}

// VerifyEnrollment reports whether SignEnrollment of the token with that public key made proof for
// the same arguments. The arguments may be any bytes.
func VerifyEnrollment(publicKey, proof []byte, node string, csr, binding []byte) bool {
	sum := sha256.Sum256(csr)
	return verify(publicKey, proof, message(enrollUse, []byte(node), sum[:], binding))
}

func verify(publicKey, proof, signed []byte) bool {
	return len(publicKey) == ed25519.PublicKeySize && ed25519.Verify(publicKey, signed, proof)
}

// message returns the bytes to sign. Each part has a length prefix, so different lists of parts
// give different bytes.
func message(use string, parts ...[]byte) []byte {
	b := append([]byte(use), 0)
	for _, p := range parts {
		b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
	}
	return b
}
