package call

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"revoked/client"
	"revoked/cmd/revoked/internal/files"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 64 << 10

// Problems of a key file. No error contains its content.
var (
	errNoKey     = errors.New("want a private key: PEM, or a JWK")
	errEncrypted = errors.New("the key is encrypted: decrypt it first")
	errPublic    = errors.New("the key is public: want the private key")
	errKeySet    = errors.New("the JWK is a set of keys: want only the private key")
)

// readKey reads a private key from a PEM file or from a JWK (RFC 7517). It uses kid and alg of a
// JWK. It does not check the mode of the file, because containers mount secrets that everybody may
// read.
func readKey(file string) (*client.Key, error) {
	data, err := files.Read(file, maxKeyFile)
	if err != nil {
		return nil, err
	}
	text, err := files.Text(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	parse := parsePEM
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		parse = parseJWK
	}
	key, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

func parseJWK(text []byte) (*client.Key, error) {
	var set struct {
		Keys json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &set) == nil && set.Keys != nil {
		return nil, errKeySet
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(text) != nil || !jwk.Valid() {
		return nil, errNoKey
	}
	if jwk.IsPublic() {
		return nil, errPublic
	}
	signer, ok := jwk.Key.(crypto.Signer)
	if !ok { // the key is symmetric
		return nil, errNoKey
	}
	return &client.Key{Signer: signer, ID: jwk.KeyID, Algorithm: jwk.Algorithm}, nil
}

func parsePEM(text []byte) (*client.Key, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errNoKey
		}
		text = rest
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncrypted
		case "PUBLIC KEY":
			return nil, errPublic
		default: // such as EC PARAMETERS
			continue
		}
		if block.Headers["DEK-Info"] != "" {
			return nil, errEncrypted
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errNoKey
		}
		return &client.Key{Signer: signer}, nil
	}
}
