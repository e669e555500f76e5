package client

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

// assertionLifetime is how long an assertion is valid. The request is sent immediately, so this
// only has to cover a clock that is slightly behind. Nodes accept at most ten minutes.
const assertionLifetime = time.Minute

// assertionType is the value of client_assertion_type (RFC 7523 section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// ErrKey is returned when a key cannot sign assertions.
var ErrKey = errors.New("invalid key")

// A Key is the private key of a client whose method is private_key_jwt (RFC 7523).
type Key struct {
	// Signer holds an RSA, ECDSA or Ed25519 key. It may be called concurrently. The key may be in a
	// hardware module.
	Signer crypto.Signer
	ID     string // kid of the assertions; empty: no kid, and the nodes try the keys of the client
	// Algorithm is RS256 to RS512, PS256 to PS512, ES256 to ES512 or EdDSA. Empty: RS256 for an RSA
	// key. For every other key, only one algorithm fits.
	Algorithm string
}

// A method has the parameters of a signature algorithm.
type method struct {
	hash crypto.Hash // 0: the whole text is signed
	pss  bool
	size int // bytes of each of the two numbers of an ECDSA signature
}

var methods = map[string]method{
	"RS256": {hash: crypto.SHA256}, "RS384": {hash: crypto.SHA384}, "RS512": {hash: crypto.SHA512},
	"PS256": {hash: crypto.SHA256, pss: true}, "PS384": {hash: crypto.SHA384, pss: true},
	"PS512": {hash: crypto.SHA512, pss: true},
	"ES256": {hash: crypto.SHA256, size: 32}, "ES384": {hash: crypto.SHA384, size: 48},
	"ES512": {hash: crypto.SHA512, size: 66}, "EdDSA": {},
}

// algorithms returns the algorithms that fit a public key, the default first.
func algorithms(public crypto.PublicKey) []string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}

// An asserter signs the assertions of one client. Methods may be called concurrently.
type asserter struct {
	id       string
	key      Key
	method   method
	audience string // empty: the issuer in the metadata of each node

	mu      sync.Mutex
	issuers map[string]string // issuer of each node, by its address
}

// newAsserter checks a key.
func newAsserter(id string, key Key, audience string) (*asserter, error) {
	if key.Signer == nil {
		return nil, fmt.Errorf("%w: signer is nil", ErrKey)
	}
	fit := algorithms(key.Signer.Public())
	if len(fit) == 0 {
		return nil, fmt.Errorf("%w: want RSA, ECDSA with P-256, P-384 or P-521, or Ed25519", ErrKey)
	}
	key.Algorithm = cmp.Or(key.Algorithm, fit[0])
	for _, name := range fit {
		if name == key.Algorithm {
			return &asserter{id: id, key: key, method: methods[name], audience: audience, issuers: map[string]string{}}, nil
		}
	}
	return nil, fmt.Errorf("%w: key algorithm is %s (want %s)", ErrKey, key.Algorithm, strings.Join(fit, ", "))
}

// sign returns a new assertion for an audience.
func (a *asserter) sign(audience string, now time.Time) (string, error) {
	header := map[string]string{"typ": "client-authentication+jwt", "alg": a.key.Algorithm}
	if a.key.ID != "" {
		header["kid"] = a.key.ID
	}
	claims := map[string]any{"iss": a.id, "sub": a.id, "aud": audience, "jti": rand.Text(),
		"exp": now.Add(assertionLifetime).Unix()}
	var parts [2]string
	for i, v := range [...]any{header, claims} {
		b, err := json.Marshal(v)
		if err != nil {
			return "", fmt.Errorf("create the assertion: %w", err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	input := parts[0] + "." + parts[1]
	signature, err := a.signature([]byte(input))
	if err != nil {
		return "", fmt.Errorf("create the assertion: %w", err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// signature returns the signature of a JWS (RFC 7518 section 3, RFC 8037 section 3.1).
func (a *asserter) signature(input []byte) ([]byte, error) {
	m := a.method
	if m.hash == 0 {
		return a.key.Signer.Sign(rand.Reader, input, m.hash)
	}
	h := m.hash.New()
	h.Write(input)
	var opts crypto.SignerOpts = m.hash
	if m.pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: m.hash}
	}
	der, err := a.key.Signer.Sign(rand.Reader, h.Sum(nil), opts)
	if err != nil || m.size == 0 {
		return der, err
	}
	var numbers struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &numbers); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: the signer does not make ECDSA signatures", ErrKey)
	}
	if max(numbers.R.BitLen(), numbers.S.BitLen()) > m.size*8 || min(numbers.R.Sign(), numbers.S.Sign()) <= 0 {
		return nil, fmt.Errorf("%w: the signatures of the signer do not match the curve of the key", ErrKey)
	}
	raw := make([]byte, 2*m.size)
	numbers.R.FillBytes(raw[:m.size])
	numbers.S.FillBytes(raw[m.size:])
	return raw, nil
}

// assertion returns a new assertion for a request to the node at addr, or "" for a client without a
// key. First it may request the issuer of the node, which is the only audience that the node
// accepts (RFC 10070).
func (c *Client) assertion(ctx context.Context, addr string) (string, error) {
	a := c.asserter
	if a == nil {
		return "", nil
	}
	issuer := a.audience
	if issuer == "" {
		a.mu.Lock()
		issuer = a.issuers[addr]
		a.mu.Unlock()
	}
	if issuer == "" {
		var err error
		if issuer, err = c.issuer(ctx, addr); err != nil {
			return "", fmt.Errorf("read the issuer at %s: %w", addr, cause(ctx, err))
		}
		a.mu.Lock()
		a.issuers[addr] = issuer
		a.mu.Unlock()
	}
	return a.sign(issuer, time.Now())
}

// forget makes the next call request the issuer of the node at addr again, because the issuer may
// have changed.
func (a *asserter) forget(addr string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.issuers, addr)
}

// maxMetadata bounds a metadata document, in bytes.
const maxMetadata = 1 << 20

// issuer returns the issuer in the metadata of a node (RFC 8414). It sends no credentials.
func (c *Client) issuer(ctx context.Context, addr string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return "", withoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%w: %s", ErrAnswer, resp.Status)
	}
	var doc struct {
		Issuer string `json:"issuer"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata))
	switch {
	case err != nil:
		return "", err
	case json.Unmarshal(body, &doc) != nil || doc.Issuer == "":
		return "", ErrAnswer
	}
	return doc.Issuer, nil
}
