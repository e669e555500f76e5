package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"
)

// ErrOtherCA is returned for a peer without a node certificate of the pinned CA.
var ErrOtherCA = errors.New("member does not belong to the cluster that the join token names")

// LoadSigner reads the private key of a self-signed CA that certs trusts. It rejects the key of
// another CA: no node would trust the certificates that it signs.
func LoadSigner(certs *Certs, keyFile string) (*CA, error) {
	raw, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read CA key: %w", err)
	}
	key, err := parseECKey(bytes.TrimPrefix(raw, bom))
	if err != nil {
		return nil, fmt.Errorf("CA key %s: %w", keyFile, err)
	}
	s := certs.current.Load()
	cert := longest(s.cas, func(c *x509.Certificate) bool { return key.PublicKey.Equal(c.PublicKey) })
	if cert == nil {
		return nil, fmt.Errorf("CA key %s: %s has no valid self-signed CA with this key", keyFile, certs.caFile)
	}
	return assemble(cert.Raw, key)
}

// longest returns the self-signed CA that expires last, of those that are valid now and for which
// match is true. It returns nil if no CA qualifies.
func longest(certs []*x509.Certificate, match func(*x509.Certificate) bool) (best *x509.Certificate) {
	now := time.Now()
	for _, c := range certs {
		if c.IsCA && match(c) && c.CheckSignatureFrom(c) == nil && !now.Before(c.NotBefore) && !now.After(c.NotAfter) &&
			(best == nil || c.NotAfter.After(best.NotAfter)) {
			best = c
		}
	}
	return best
}

// NewRequest makes a P-256 key for a node and a certificate request (RFC 2986, DER) that proves
// possession of the key.
func NewRequest(nodeID string) (csr, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	csr, err = RequestFor(nodeID, keyPEM)
	return csr, keyPEM, err
}

// RequestFor returns a certificate request of a node for an existing key.
func RequestFor(nodeID string, keyPEM []byte) ([]byte, error) {
	key, err := parseECKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	tmpl := &x509.CertificateRequest{URIs: []*url.URL{nodeURI(nodeID)}}
	return x509.CreateCertificateRequest(rand.Reader, tmpl, key)
}

// A Request is a certificate request whose signature was checked.
type Request struct {
	public *ecdsa.PublicKey
	// KeyHash is the SHA-256 of the SubjectPublicKeyInfo.
	KeyHash [32]byte
}

// ParseRequest checks a certificate request. It uses only the public key in the request. The
// requester proves its name by other means.
func ParseRequest(der []byte) (*Request, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	public, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: unsupported key (want ECDSA P-256)")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return &Request{public: public, KeyHash: hashKey(csr.RawSubjectPublicKeyInfo)}, nil
}

// SignNode returns a certificate like those of IssueNode, in DER, without hosts, for the key of a
// request. The certificate expires no later than the CA.
func (ca *CA) SignNode(nodeID string, r *Request, notAfter time.Time) ([]byte, error) {
	if err := CheckNodeID(nodeID); err != nil {
		return nil, err
	}
	if notAfter.After(ca.cert.NotAfter) {
		notAfter = ca.cert.NotAfter
	}
	return ca.sign(r.public, nodeID, nil, []*url.URL{nodeURI(nodeID)}, time.Until(notAfter),
		x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// enrollConfig returns the TLS configuration for nodes that have no certificate yet. The presented
// chain ends with the self-signed CAs, one of which must match the hash in the join token.
func (s *certSet) enrollConfig(protocol string) *tls.Config {
	pair := s.pair
	pair.Certificate = append([][]byte(nil), pair.Certificate...)
	for _, ca := range s.cas {
		if ca.CheckSignatureFrom(ca) == nil {
			pair.Certificate = append(pair.Certificate, ca.Raw)
		}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, Certificates: []tls.Certificate{pair},
		SessionTicketsDisabled: true,
	}
}

// A Pin is the trust anchor of a node without a certificate: the CA whose key has this hash. Use a
// Pin for one connection only.
type Pin struct {
	Hash [32]byte
	ca   *x509.Certificate
}

// Config returns the configuration for dialing a member. The handshake fails with ErrOtherCA,
// before anything else is sent, unless the member presents the pinned CA and a node's certificate
// under it. CAPEM then returns that CA.
func (p *Pin) Config(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, SessionTicketsDisabled: true,
		// VerifyConnection replaces the verification by host name and system roots, and always runs.
		InsecureSkipVerify: true,
		VerifyConnection:   p.verify,
	}
}

func (p *Pin) verify(cs tls.ConnectionState) error {
	ca := longest(cs.PeerCertificates, func(c *x509.Certificate) bool { return KeyHash(c) == p.Hash })
	if ca == nil {
		return ErrOtherCA
	}
	set := &certSet{pool: x509.NewCertPool()}
	set.pool.AddCert(ca)
	if _, err := set.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("%w: %w", ErrOtherCA, err)
	}
	p.ca = ca
	return nil
}

// CAPEM returns the pinned CA after a handshake.
func (p *Pin) CAPEM() []byte { return encodeCert(p.ca.Raw) }

// CheckIssued returns the PEM of a certificate that a member has issued. It returns an error unless
// the CA in caPEM has issued it for the node and the key.
func CheckIssued(caPEM, keyPEM, der []byte, nodeID string) (certPEM []byte, err error) {
	c := &Certs{caFile: "the CA", certFile: "the issued certificate", keyFile: "the new key"}
	cas, pool, err := c.loadPool(caPEM)
	if err != nil {
		return nil, err
	}
	certPEM = encodeCert(der)
	set, err := c.loadPair(cas, pool, certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	if set.nodeID != nodeID {
		return nil, fmt.Errorf("the issued certificate names another node (got %s, want %s)", set.nodeID, nodeID)
	}
	return certPEM, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
