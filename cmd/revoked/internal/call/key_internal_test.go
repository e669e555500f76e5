package call

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"revoked/cmd/revoked/internal/files"
)

func pemText(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// A key file is PEM, as openssl writes it, or a JWK. An error never shows the content of a wrong
// file.
func TestReadKey_EachForm_IsReadOrRefused(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(k any) string {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		return pemText(t, "PRIVATE KEY", der, err)
	}
	jwk := func(k any) string {
		b, err := jose.JSONWebKey{Key: k, KeyID: "k1", Algorithm: "ES256"}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	oldEC := pemText(t, "EC PRIVATE KEY", sec1, err)
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	publicPEM := pemText(t, "PUBLIC KEY", public, err)
	legacy := strings.Replace(oldEC, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1)
	for name, row := range map[string]struct {
		text string
		want crypto.Signer
		err  error
	}{
		"PKCS 8 of ECDSA":   {pkcs8(ec), ec, nil},
		"PKCS 8 of RSA":     {pkcs8(rsaKey), rsaKey, nil},
		"PKCS 8 of Ed25519": {pkcs8(ed), ed, nil},
		"SEC 1":             {oldEC, ec, nil},
		"SEC 1 after its parameters": {
			"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + oldEC, ec, nil},
		"PKCS 1":                 {pemText(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil), rsaKey, nil},
		"a byte order mark":      {"\ufeff" + pkcs8(ec), ec, nil},
		"a JWK":                  {jwk(ec), ec, nil},
		"a JWK, indented":        {"\ufeff\r\n " + jwk(ec), ec, nil},
		"a public JWK":           {jwk(ec.Public()), nil, errPublic},
		"a symmetric JWK":        {`{"kty":"oct","k":"Y2FuYXJ5LWNhbmFyeS1jYW5hcnk"}`, nil, errNoKey},
		"a set":                  {`{"keys":[` + jwk(ec) + `]}`, nil, errKeySet},
		"another object":         {`{"client_secret":"canary-canary"}`, nil, errNoKey},
		"a public key":           {publicPEM, nil, errPublic},
		"a certificate alone":    {pemText(t, "CERTIFICATE", public, nil), nil, errNoKey},
		"an encrypted key":       {pemText(t, "ENCRYPTED PRIVATE KEY", sec1, nil), nil, errEncrypted},
		"an old encrypted key":   {legacy, nil, errEncrypted},
		"a damaged key":          {pemText(t, "PRIVATE KEY", sec1[3:], nil), nil, errNoKey},
		"a secret":               {"canary-canary-canary", nil, errNoKey},
		"nothing":                {"", nil, errNoKey},
		"UTF-16":                 {"\xff\xfec\x00", nil, files.ErrText},
		"a file that is too big": {strings.Repeat("canary", maxKeyFile), nil, files.ErrTooLong},
	} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readKey(file)
		if !errors.Is(err, row.err) {
			t.Errorf("%s: got %v, want %v", name, err, row.err)
		}
		if err != nil && (strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), file)) {
			t.Errorf("%s: got %v, want the name of the file, and nothing of its content", name, err)
		}
		if row.want == nil {
			continue
		}
		equal, ok := got.Signer.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !equal.Equal(row.want.Public()) {
			t.Errorf("%s: got another key", name)
		}
		if isJWK := strings.Contains(row.text, "{"); isJWK != (got.ID == "k1") || isJWK != (got.Algorithm == "ES256") {
			t.Errorf("%s: got kid %q and algorithm %q", name, got.ID, got.Algorithm)
		}
	}
	if _, err := readKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v, want %v", err, os.ErrNotExist)
	}
}
