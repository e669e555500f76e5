package pki

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"revoked/internal/filewatch"
)

// Certs holds a node's certificate and key and the CA that it trusts, loaded from three files. All
// methods may be called concurrently.
//
// The three files are read together: a set is used only if the key matches the certificate and the
// CA trusts the certificate. So a renewal that replaces the files one after the other never mixes
// two sets.
type Certs struct {
	caFile, certFile, keyFile string

	log     *slog.Logger
	files   *filewatch.Watcher
	current atomic.Pointer[certSet]
}

// certSet is one loaded set of files. It is immutable.
type certSet struct {
	nodeID string
	cas    []*x509.Certificate
	pool   *x509.CertPool
	pair   tls.Certificate
}

// LoadCerts reads the cluster's CA, the node's certificate and its key from PEM files. The error
// names the file and the problem. A nil log discards all lines.
func LoadCerts(caFile, certFile, keyFile string, log *slog.Logger) (*Certs, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certs{caFile: caFile, certFile: certFile, keyFile: keyFile, log: log}
	c.files = filewatch.New(c.load, caFile, certFile, keyFile)
	if err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// NodeID returns the node that the certificate names. It never changes.
func (c *Certs) NodeID() string { return c.current.Load().nodeID }

// Expiry returns the end of the certificate's validity.
func (c *Certs) Expiry() time.Time { return c.current.Load().pair.Leaf.NotAfter }

// Leaf returns the node's certificate. The caller must not change it.
func (c *Certs) Leaf() *x509.Certificate { return c.current.Load().pair.Leaf }

// Validity returns the beginning and the end of the certificate's validity.
func (c *Certs) Validity() (from, to time.Time) {
	leaf := c.current.Load().pair.Leaf
	return leaf.NotBefore, leaf.NotAfter
}

// Trusts reports whether this node trusts a CA whose KeyHash is caKey.
func (c *Certs) Trusts(caKey [32]byte) bool {
	return slices.ContainsFunc(c.current.Load().cas, func(ca *x509.Certificate) bool { return KeyHash(ca) == caKey })
}

// Reload loads the files if they have changed. On an error the previous set stays in use; a
// certificate that names another node is an error.
func (c *Certs) Reload() error {
	_, err := c.files.Reload()
	return explain(err)
}

// Watch reloads the files every interval until ctx ends. It calls changed after each change, even
// if Reload has loaded it. It logs each reload, each new error and, once for each certificate, that
// less than a fifth of its lifetime is left.
func (c *Certs) Watch(ctx context.Context, interval time.Duration, changed func()) {
	last := c.current.Load()
	var warned *certSet
	c.files.Watch(ctx, interval, func(_ bool, err error) {
		if err != nil {
			c.log.Error("cannot reload certificates", "error", explain(err))
		}
		cur := c.current.Load()
		leaf := cur.pair.Leaf
		if cur != last {
			last = cur
			c.log.Info("certificates reloaded", "not_after", leaf.NotAfter)
			changed()
		}
		if left := time.Until(leaf.NotAfter); warned != cur && left < leaf.NotAfter.Sub(leaf.NotBefore)/5 {
			warned = cur
			c.log.Warn("cluster certificate expires soon", "file", c.certFile, "not_after", leaf.NotAfter,
				"left_seconds", left.Seconds())
		}
	})
}

// Verify checks that a peer's chain is valid for one usage under the CAs that are now in use. Use
// it for connections that are open when the CA changes: a handshake verifies the peer in any case.
func (c *Certs) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	_, err := c.current.Load().verify(chain, usage)
	return err
}

// CAKeyHash returns the SHA-256 of the public key (SubjectPublicKeyInfo) of the CA under which this
// node's certificate is valid. While a cluster moves to another CA, several CAs are trusted, and
// the hash is that of the signing CA. Two CA certificates with the same key have the same hash.
func (c *Certs) CAKeyHash() ([32]byte, error) {
	s := c.current.Load()
	root, err := s.root()
	if err != nil {
		return [32]byte{}, fmt.Errorf("node certificate %s: %w", c.certFile, err)
	}
	return KeyHash(root), nil
}

// KeyHash returns the SHA-256 of the public key (SubjectPublicKeyInfo) of a certificate.
func KeyHash(cert *x509.Certificate) [32]byte { return hashKey(cert.RawSubjectPublicKeyInfo) }

func hashKey(spki []byte) [32]byte { return sha256.Sum256(spki) }

// root returns the CA under which the certificate is valid.
func (s *certSet) root() (*x509.Certificate, error) {
	opts := x509.VerifyOptions{
		Roots: s.pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, der := range s.pair.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			opts.Intermediates.AddCert(cert)
		}
	}
	chains, err := s.pair.Leaf.Verify(opts)
	if err != nil {
		return nil, err
	}
	return chains[0][len(chains[0])-1], nil
}

// ServerConfig returns the TLS configuration of the cluster port. It requires a certificate that
// names a node. Each handshake uses the newest set of files, so a listener need not restart after a
// renewal.
//
// enroll, if not empty, is the protocol of nodes that have no certificate yet. Only a handshake
// that offers this protocol alone may use it. Every other handshake needs a certificate.
func (c *Certs) ServerConfig(enroll string, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			s := c.current.Load()
			if enroll != "" && slices.Equal(hello.SupportedProtos, []string{enroll}) {
				return s.enrollConfig(enroll), nil
			}
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				NextProtos:             protocols,
				Certificates:           []tls.Certificate{s.pair},
				ClientAuth:             tls.RequireAndVerifyClientCert,
				ClientCAs:              s.pool,
				SessionTicketsDisabled: true,
				VerifyConnection: func(cs tls.ConnectionState) error {
					_, err := s.verify(cs.PeerCertificates, x509.ExtKeyUsageClientAuth)
					return err
				},
			}, nil
		},
	}
}

// ClientConfig returns the configuration for dialing wantNode, or any node if it is empty.
// instance, if not empty, is sent as the server name (RFC 6066, section 3) and names the intended
// instance of the peer. The peer chooses one of the protocols (RFC 7301). The configuration uses
// the set that is current now, so make a configuration for each dial.
func (c *Certs) ClientConfig(wantNode, instance string, protocols ...string) *tls.Config {
	s := c.current.Load()
	return &tls.Config{
		ServerName:             instance,
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		Certificates:           []tls.Certificate{s.pair},
		SessionTicketsDisabled: true,
		// This skips only the comparison of host names. A node's name is its URI SAN, whatever its
		// address is. VerifyConnection checks the chain, the usage and the name, and always runs.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			got, err := s.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			if wantNode != "" && got != wantNode {
				return fmt.Errorf("%w (got %s, want %s)", ErrWrongNode, got, wantNode)
			}
			if !slices.Contains(protocols, cs.NegotiatedProtocol) {
				return fmt.Errorf("peer does not support %s: is this a cluster port?", strings.Join(protocols, " or "))
			}
			return nil
		},
	}
}

// verify checks a chain for one usage and returns the node that it names. crypto/x509 checks dates,
// usages and the path to a root. No revocation list is consulted.
func (s *certSet) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("no certificate")
	}
	opts := x509.VerifyOptions{
		Roots: s.pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return "", err
	}
	return NodeOf(chain[0])
}

// load checks the content of the three files and makes it current. A set for another node is
// refused: the id is part of Raft's addresses and of the data directory.
func (c *Certs) load(content [][]byte) error {
	cas, pool, err := c.loadPool(content[0])
	if err != nil {
		return err
	}
	set, err := c.loadPair(cas, pool, content[1], content[2])
	if err != nil {
		return err
	}
	if old := c.current.Load(); old != nil && old.nodeID != set.nodeID {
		return fmt.Errorf("certificate %s names another node (got %s, want %s)", c.certFile, set.nodeID, old.nodeID)
	}
	c.current.Store(set)
	return nil
}

// loadPool reads the CAs. A file with two of them lets a cluster move from one CA to the other
// without downtime.
func (c *Certs) loadPool(content []byte) ([]*x509.Certificate, *x509.CertPool, error) {
	cas, err := parseCertificates(c.caFile, content)
	if err != nil {
		return nil, nil, fmt.Errorf("cluster CA: %w", err)
	}
	pool := x509.NewCertPool()
	for _, ca := range cas {
		if !ca.IsCA {
			return nil, nil, fmt.Errorf("cluster CA: %s contains %q, which is not a CA certificate",
				c.caFile, ca.Subject.CommonName)
		}
		pool.AddCert(ca)
	}
	return cas, pool, nil
}

// loadPair reads the certificate and its key, and verifies them as a peer would. So the node logs a
// bad renewal before a handshake with a peer fails.
func (c *Certs) loadPair(cas []*x509.Certificate, pool *x509.CertPool, certPEM, keyPEM []byte) (*certSet, error) {
	chain, err := parseCertificates(c.certFile, certPEM)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	if block, _ := pem.Decode(keyPEM); block == nil {
		return nil, fmt.Errorf("node key: %s contains no PEM key", c.keyFile)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("key %s does not match certificate %s; both must come from the same request: %w",
			c.keyFile, c.certFile, err)
	}
	leaf := chain[0]
	pair.Leaf = leaf
	nodeID, err := NodeOf(leaf)
	if err != nil {
		return nil, fmt.Errorf("node certificate %s: %w; the cluster port needs one made with `revoked cert node NODE_ID`, "+
			"or with URI SAN revoked://node/<node_id>", c.certFile, err)
	}
	now := time.Now()
	if now.After(leaf.NotAfter) {
		return nil, fmt.Errorf("node certificate %s expired at %s: issue a new one",
			c.certFile, leaf.NotAfter.Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		return nil, fmt.Errorf("node certificate %s is not valid before %s: check this machine's clock",
			c.certFile, leaf.NotBefore.Format(time.RFC3339))
	}
	set := &certSet{nodeID: nodeID, cas: cas, pool: pool, pair: pair}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := set.verify(chain, usage); err != nil {
			return nil, fmt.Errorf("node certificate %s is not valid under the CA in %s for servers and clients: %w",
				c.certFile, c.caFile, err)
		}
	}
	return set, nil
}

// parseCertificates returns all certificates of a PEM file, at least one. It skips blocks of other
// types, such as the key in a combined file.
func parseCertificates(file string, rest []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s contains no PEM certificate (-----BEGIN CERTIFICATE-----)", file)
	}
	return certs, nil
}

// explain adds advice on the probable cause to an error of reading a file.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: create it with `revoked cert`, or correct the path", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; the user that runs the node must be able to read it", err)
	case errors.Is(err, filewatch.ErrTooLarge):
		return fmt.Errorf("not a certificate file: %w", err)
	}
	return err
}
