package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// A Certificate is a certificate with its key, read from two files and again when they change. All
// methods may be called at once.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[loaded]
}

type loaded struct {
	tls tls.Certificate
	sum [sha256.Size]byte // of both files
}

// LoadCertificate reads a PEM certificate chain and its key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads both files again and reports whether what is served changed. On an error what was
// served before is served on.
func (c *Certificate) Reload() (changed bool, err error) {
	certPEM, err := os.ReadFile(c.certFile)
	if err != nil {
		return false, fmt.Errorf("read certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(c.keyFile)
	if err != nil {
		return false, fmt.Errorf("read key: %w", err)
	}
	defer clear(keyPEM)
	h := sha256.New()
	h.Write(certPEM)
	h.Write(keyPEM)
	next := &loaded{}
	h.Sum(next.sum[:0])
	if old := c.current.Load(); old != nil && old.sum == next.sum {
		return false, nil
	}
	next.tls, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false, fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(next)
	return true, nil
}

// Watch looks at the files every interval until ctx ends, and tells each change, and each error that is
// not the one before, to observe.
func (c *Certificate) Watch(ctx context.Context, interval time.Duration, observe func(err error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := c.Reload()
		switch {
		case err != nil && err.Error() != last:
			last = err.Error()
			observe(err)
		case err == nil:
			last = ""
			if changed {
				observe(nil)
			}
		}
	}
}

// GetCertificate is for tls.Config.
func (c *Certificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cur := c.current.Load()
	if cur == nil {
		return nil, errors.New("no certificate")
	}
	return &cur.tls, nil
}

// NotAfter returns when the certificate that is served ends, the zero time if there is none.
func (c *Certificate) NotAfter() time.Time {
	cur := c.current.Load()
	if cur == nil || cur.tls.Leaf == nil {
		return time.Time{}
	}
	return cur.tls.Leaf.NotAfter
}

// TLSConfig returns the configuration of the API port: TLS 1.2 and up, with 1.2 only ephemeral elliptic
// curve key exchange and authenticated ciphers (RFC 8996, RFC 10015), HTTP/2, HTTP/1.1 and HTTP/1.0. With
// clientCAs a client may present a certificate, which must then be of one of them.
func TLSConfig(cert *Certificate, clientCAs *x509.CertPool) *tls.Config {
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", "http/1.0"},
		GetCertificate: cert.GetCertificate,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 are not a choice
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
	if clientCAs != nil {
		cfg.ClientCAs = clientCAs
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return cfg
}
