package devfolder

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"revoked/cmd/revoked/internal/files"
)

// The demo issuer of a development cluster: the name of its record, and the claim iss of its JWTs.
const (
	IssuerName = "demo"
	IssuerURL  = "https://demo-issuer.example"
)

const (
	issuerKeyFile = "demo-issuer-key.pem"
	issuerKeyID   = "demo"
)

// IssuerFile returns the path of the file with the record of the demo issuer, which has its public
// key.
func (f Folder) IssuerFile() string { return f.path("demo-issuer.json") }

// makeIssuer creates the key of the demo issuer unless it exists, and writes its record.
func (f Folder) makeIssuer() error {
	s, err := ReadSigner(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		s, err = f.newSigner()
	}
	if err != nil {
		return err
	}
	key, err := s.jwk()
	if err != nil {
		return err
	}
	record, err := json.MarshalIndent(map[string]any{
		"name": IssuerName, "issuer": IssuerURL, "own_clients": true, "jwks": map[string]any{"keys": []any{key}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return files.Write(true, files.Public(f.IssuerFile(), append(record, '\n')))
}

func (f Folder) newSigner() (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return &Signer{key}, files.Write(false, files.Private(f.path(issuerKeyFile), text))
}

// A Signer signs JWTs as the demo issuer, with ES256. Its methods may be called concurrently.
type Signer struct{ key *ecdsa.PrivateKey }

// ReadSigner reads the key of the demo issuer from the directory of a development cluster.
func ReadSigner(dir string) (*Signer, error) {
	name := filepath.Join(dir, issuerKeyFile)
	text, err := files.Read(name, maxFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New(name + ": not a PEM file")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: not a private key", name)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New(name + ": not a key on P-256")
	}
	return &Signer{ec}, nil
}

// jwk returns the public key (RFC 7517).
func (s *Signer) jwk() (map[string]string, error) {
	point, err := s.key.PublicKey.Bytes() // the byte 4, then the coordinates x and y
	if err != nil {
		return nil, err
	}
	return map[string]string{"kty": "EC", "crv": "P-256", "kid": issuerKeyID, "alg": "ES256", "use": "sig",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}, nil
}

// Claims are the claims of an access token (RFC 9068). Times are Unix seconds.
type Claims struct {
	Issuer    string `json:"iss"`
	ClientID  string `json:"client_id"`
	Subject   string `json:"sub"`
	Session   string `json:"sid,omitempty"`
	Audience  string `json:"aud"`
	Scope     string `json:"scope"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
}

// Sign returns an access token with the claims.
func (s *Signer) Sign(c Claims) (string, error) {
	header, err := json.Marshal(map[string]string{"typ": "at+jwt", "alg": "ES256", "kid": issuerKeyID})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	token := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(token))
	x, y, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64) // RFC 7518 section 3.4
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	return token + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
