package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// The protocols of the port.
const (
	protoRaft = "revoked-raft/1"
	protoHTTP = "h2"
)

// maxPEM bounds a certificate or key file, in bytes.
const maxPEM = 1 << 20

// Certs holds what a node shows to its peers and what it trusts of them, read from three files and
// read again when they change. All methods may be called at once. Each handshake uses the newest set.
type Certs struct {
	caFile, certFile, keyFile string
	log                       *slog.Logger

	mu      sync.Mutex // held while loading, so that the newest files win
	stamps  [3]stamp
	lastErr string // of a failed reload, so that it is logged once and not at every poll
	warned  bool   // that the current certificate ends soon

	cur atomic.Pointer[identity]
}

// An identity is one loaded set of files. It is never changed after it was stored.
type identity struct {
	nodeID string
	pool   *x509.CertPool
	cert   tls.Certificate
	server *tls.Config
}

// A stamp tells whether a file was replaced.
type stamp struct {
	mtime time.Time
	size  int64
}

// LoadCerts reads the cluster's CA, and the node's certificate and key, from PEM files. The error
// says which file is wrong and what to do: missing, not PEM, no node named in it, key of another
// certificate, expired, not signed by the CA. A nil log logs nothing.
func LoadCerts(caFile, certFile, keyFile string, log *slog.Logger) (*Certs, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certs{caFile: caFile, certFile: certFile, keyFile: keyFile, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// NodeID returns the node that the certificate names.
func (c *Certs) NodeID() string { return c.cur.Load().nodeID }

// Expiry returns when the certificate ends.
func (c *Certs) Expiry() time.Time { return c.cur.Load().cert.Leaf.NotAfter }

// GetCertificate returns the current certificate; it fits tls.Config.GetCertificate.
func (c *Certs) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &c.cur.Load().cert, nil
}

// GetConfigForClient returns the current configuration of the cluster port; it fits
// tls.Config.GetConfigForClient.
func (c *Certs) GetConfigForClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	return c.cur.Load().server, nil
}

// Reload reads the files again. On any error, also when the new certificate names another node, the
// old set stays in use.
func (c *Certs) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.load()
}

// Watch reloads when a file changes, looking every interval, until ctx ends. After a reload, its own
// or one asked for with Reload, it calls changed, unless that is nil. A failed reload is logged once for each cause; a certificate that has
// less than a fifth of its life left is logged once.
func (c *Certs) Watch(ctx context.Context, interval time.Duration, changed func()) {
	last := c.cur.Load()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.poll()
			if cur := c.cur.Load(); cur != last {
				last = cur
				if changed != nil {
					changed()
				}
			}
		}
	}
}

func (c *Certs) poll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, err := c.stat(); err != nil || now != c.stamps {
		switch err := c.load(); {
		case err == nil:
			c.log.Info("certificates reloaded", "node", c.NodeID(), "expires", c.Expiry())
		case err.Error() != c.lastErr:
			c.lastErr = err.Error()
			c.log.Error("certificates not reloaded, the old ones stay in use", "err", err)
		}
	}
	leaf := c.cur.Load().cert.Leaf
	if left := time.Until(leaf.NotAfter); !c.warned && left < leaf.NotAfter.Sub(leaf.NotBefore)/5 {
		c.warned = true
		c.log.Warn("the node's certificate ends soon; put a new one in its place, it is read without a restart",
			"file", c.certFile, "expires", leaf.NotAfter, "left", left.Round(time.Second))
	}
}

func (c *Certs) stat() (s [3]stamp, err error) {
	for i, f := range []string{c.caFile, c.certFile, c.keyFile} {
		fi, err := os.Stat(f)
		if err != nil {
			return s, err
		}
		s[i] = stamp{fi.ModTime(), fi.Size()}
	}
	return s, nil
}

// load reads and checks the files and stores them. The caller holds mu.
func (c *Certs) load() error {
	// The stamps come first: a file replaced while it is read is then read once more.
	stamps, err := c.stat()
	if err != nil {
		return missing(err)
	}
	cas, err := readCertificates(c.caFile)
	if err != nil {
		return fmt.Errorf("cluster CA: %w", err)
	}
	pool := x509.NewCertPool()
	for _, ca := range cas {
		if !ca.IsCA {
			return fmt.Errorf("cluster CA: %s holds %q, which is not a CA certificate", c.caFile, ca.Subject.CommonName)
		}
		pool.AddCert(ca)
	}
	id, err := c.loadPair(pool)
	if err != nil {
		return err
	}
	if old := c.cur.Load(); old != nil && old.nodeID != id.nodeID {
		return fmt.Errorf("certificate %s names node %s, but this is node %s: a node keeps its name; use a certificate for %[3]s",
			c.certFile, id.nodeID, old.nodeID)
	}
	id.server = id.serverConfig()
	c.cur.Store(id)
	c.stamps, c.lastErr, c.warned = stamps, "", false
	return nil
}

func (c *Certs) loadPair(pool *x509.CertPool) (*identity, error) {
	if _, err := readCertificates(c.certFile); err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("node key: %w; the user that runs the node must be able to read it", err)
	}
	block, _ := pem.Decode(key)
	clear(key)
	if block == nil {
		return nil, fmt.Errorf("node key: %s holds no key in PEM", c.keyFile)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("key %s does not fit certificate %s; both must come from the same request: %w",
			c.keyFile, c.certFile, err)
	}
	// From here on only what was read together with the key counts.
	certs := make([]*x509.Certificate, len(pair.Certificate))
	for i, der := range pair.Certificate {
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("node certificate %s: %w", c.certFile, err)
		}
	}
	leaf := certs[0]
	pair.Leaf = leaf
	nodeID, err := nodeOf(leaf)
	if err != nil {
		return nil, fmt.Errorf("node certificate %s: %w; the cluster port needs one made with `revoked cert node NODE_ID`, or with URI SAN revoked://node/<node_id>",
			c.certFile, err)
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
	id := &identity{nodeID: nodeID, pool: pool, cert: pair}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := id.verify(certs, usage); err != nil {
			return nil, fmt.Errorf("node certificate %s is not good under the CA in %s, as server and as client: %w",
				c.certFile, c.caFile, err)
		}
	}
	return id, nil
}

// verify checks a chain against the cluster's CA for one usage and returns the node that it names.
func (id *identity) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("no certificate")
	}
	opts := x509.VerifyOptions{
		Roots: id.pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return "", err
	}
	return nodeOf(chain[0])
}

// serverConfig is what the port shows to one who dials it.
func (id *identity) serverConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protoRaft, protoHTTP},
		Certificates:           []tls.Certificate{id.cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              id.pool,
		SessionTicketsDisabled: true, // a ticket would outlive a CA that was taken away
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := id.verify(cs.PeerCertificates, x509.ExtKeyUsageClientAuth)
			return err
		},
	}
}

// clientConfig is for dialling wantNode, or any node when that is empty, and in it an instance, or any when
// that is empty: it goes as the server name, which says whom a connection is for (RFC 6066, section 3).
func (id *identity) clientConfig(wantNode, instance, proto string) *tls.Config {
	return &tls.Config{
		ServerName:             instance,
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{proto},
		Certificates:           []tls.Certificate{id.cert},
		SessionTicketsDisabled: true,
		// The built-in check compares host names. A node's name is its URI SAN, whatever address it
		// is reached at, so VerifyConnection checks chain, usage and name instead; it always runs.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			got, err := id.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			if wantNode != "" && got != wantNode {
				return fmt.Errorf("%w: %s, want %s", ErrWrongNode, got, wantNode)
			}
			if cs.NegotiatedProtocol != proto {
				return fmt.Errorf("peer does not speak %s: is this a cluster port?", proto)
			}
			return nil
		},
	}
}

// readCertificates reads all certificates of a PEM file; at least one.
func readCertificates(file string) ([]*x509.Certificate, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, missing(err)
	}
	if fi.Size() > maxPEM {
		return nil, fmt.Errorf("%s has %d bytes: not a certificate file", file, fi.Size())
	}
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
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
		return nil, fmt.Errorf("%s holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", file)
	}
	return certs, nil
}

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: make it with `revoked cert`, or correct the path", err)
	}
	return err
}
