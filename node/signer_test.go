package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"sync"

	"revoked"
	"revoked/node/jwt"
)

// A simSigner is a key that signs tokens in simulations. Key ids repeat: several signers share one.
type simSigner struct {
	algorithm string
	record    revoked.IssuerKey
	private   crypto.Signer
}

// simSigners returns the keys of all simulated issuers. Several issuers may use the same key.
var simSigners = sync.OnceValue(func() (all []*simSigner) {
	enc := base64.RawURLEncoding.EncodeToString
	for n := range 12 {
		s, jwk := &simSigner{algorithm: "EdDSA"}, ""
		kid := fmt.Sprintf("k%d", n%4)
		if n%3 == 2 {
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				panic(err)
			}
			point, err := private.PublicKey.Bytes()
			if err != nil {
				panic(err)
			}
			s.algorithm, s.private = "ES256", private
			jwk = fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}`, kid, enc(point[1:33]), enc(point[33:]))
		} else {
			seed := sha256.Sum256([]byte{byte(n)})
			private := ed25519.NewKeyFromSeed(seed[:])
			s.private = private
			jwk = fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid,
				enc(private.Public().(ed25519.PublicKey)))
		}
		keys, err := jwt.ParseInline([]byte(`{"keys":[` + jwk + `]}`))
		if err != nil {
			panic(err)
		}
		s.record = keys[0]
		all = append(all, s)
	}
	return all
})

// sign returns the encodings of a token with these claims: two with ES256, else one.
func (s *simSigner) sign(claims string) (encodings []string) {
	enc := base64.RawURLEncoding.EncodeToString
	header := fmt.Sprintf(`{"typ":"at+jwt","alg":%q,"kid":%q}`, s.algorithm, s.record.KeyID)
	input := enc([]byte(header)) + "." + enc([]byte(claims))
	switch key := s.private.(type) {
	case ed25519.PrivateKey:
		return []string{input + "." + enc(ed25519.Sign(key, []byte(input)))}
	case *ecdsa.PrivateKey:
		sum := sha256.Sum256([]byte(input))
		r, v, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			panic(err)
		}
		for _, v := range []*big.Int{v, new(big.Int).Sub(elliptic.P256().Params().N, v)} {
			signature := make([]byte, 64)
			r.FillBytes(signature[:32])
			v.FillBytes(signature[32:])
			encodings = append(encodings, input+"."+enc(signature))
		}
	}
	return encodings
}
