package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"
)

// backdate moves the start of a certificate's validity into the past, for peers with a slow clock.
const backdate = 5 * time.Minute

// A CA issues certificates for development and tests, and for nodes that join with a token.
// Production clusters may use any CA that can put revoked://node/<id> into a certificate. All
// methods may be called concurrently.
type CA struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte
	keyPEM  []byte
}

// NewCA returns a CA with a new P-256 key. It cannot sign other CAs. The key exists in memory only,
// until the caller writes KeyPEM to a file.
func NewCA(commonName string, validFor time.Duration) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate CA key: %w", err)
	}
	tmpl, err := template(commonName, validFor)
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	return assemble(der, key)
}

// bom is the byte order mark that some editors write. encoding/pem would skip the block after it.
var bom = []byte("\ufeff")

// LoadCA reads a CA from PEM files. The key may be PKCS #8 or SEC 1, ECDSA only. LoadCA rejects a
// key that does not belong to the certificate: every node would reject the certificates of such a
// CA.
func LoadCA(certFile, keyFile string) (*CA, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate: %w", err)
	}
	certs, err := parseCertificates(certFile, bytes.TrimPrefix(certPEM, bom))
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read CA key: %w", err)
	}
	key, err := parseECKey(bytes.TrimPrefix(raw, bom))
	if err != nil {
		return nil, fmt.Errorf("CA key %s: %w", keyFile, err)
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("%s is not a CA certificate", certFile)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("key %s does not belong to certificate %s", keyFile, certFile)
	}
	return assemble(certs[0].Raw, key)
}

// Certificate returns the CA's certificate. The caller must not change it.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// CertPEM returns the CA's certificate, which every node trusts.
func (ca *CA) CertPEM() []byte { return append([]byte(nil), ca.certPEM...) }

// KeyPEM returns the CA's private key (PKCS #8). Its holder can issue certificates for any node.
func (ca *CA) KeyPEM() []byte { return append([]byte(nil), ca.keyPEM...) }

// IssueNode issues a certificate for the cluster port of one node. Its SANs are the URI
// revoked://node/<id> and the hosts (DNS names or IP addresses). The certificate is valid for
// servers and clients.
func (ca *CA) IssueNode(nodeID string, hosts []string, validFor time.Duration) (certPEM, keyPEM []byte, err error) {
	if err := CheckNodeID(nodeID); err != nil {
		return nil, nil, err
	}
	return ca.issue(nodeID, hosts, []*url.URL{nodeURI(nodeID)}, validFor,
		x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// IssueServer issues a certificate for the API port. The cluster port refuses it, because it does
// not name a node.
func (ca *CA) IssueServer(hosts []string, validFor time.Duration) (certPEM, keyPEM []byte, err error) {
	if len(hosts) == 0 {
		return nil, nil, errors.New("a server certificate needs at least one host")
	}
	return ca.issue(hosts[0], hosts, nil, validFor, x509.ExtKeyUsageServerAuth)
}

// IssueClient issues a certificate for a client of the API port. The cluster port refuses it.
func (ca *CA) IssueClient(name string, validFor time.Duration) (certPEM, keyPEM []byte, err error) {
	return ca.issue(name, nil, nil, validFor, x509.ExtKeyUsageClientAuth)
}

// issue makes a new key for each certificate, so a stolen key authenticates only one node.
func (ca *CA) issue(name string, hosts []string, uris []*url.URL, validFor time.Duration,
	usage ...x509.ExtKeyUsage) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := ca.sign(key.Public(), name, hosts, uris, validFor, usage...)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, nil
}

// sign returns the DER of a certificate for a public key.
func (ca *CA) sign(public crypto.PublicKey, name string, hosts []string, uris []*url.URL, validFor time.Duration,
	usage ...x509.ExtKeyUsage) ([]byte, error) {
	tmpl, err := template(name, validFor)
	if err != nil {
		return nil, err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	tmpl.ExtKeyUsage = usage
	tmpl.URIs = uris
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}

// template returns a certificate template without key usages. Its random serial number
// distinguishes certificates with the same name.
func template(name string, validFor time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("generate serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"revoked"}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(validFor),
	}, nil
}

// assemble returns the CA of a certificate and its key. It parses the certificate, because sign
// needs the subject and the key id.
func assemble(der []byte, key *ecdsa.PrivateKey) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return &CA{
		cert: cert, key: key, keyPEM: keyPEM,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseECKey(raw []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("not a PEM file")
	}
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("unsupported key (got %T, want ECDSA)", k)
	}
	return key, nil
}
