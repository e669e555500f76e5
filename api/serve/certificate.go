package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"revoked/internal/filewatch"
)

// A Certificate is a certificate chain with its key, loaded from two files. Methods may be called
// concurrently.
type Certificate struct {
	files   *filewatch.Watcher
	current atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads a PEM certificate chain and its key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{}
	c.files = filewatch.New(func(content [][]byte) error {
		pair, err := tls.X509KeyPair(content[0], content[1])
		if err != nil {
			return fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
		}
		c.current.Store(&pair)
		return nil
	}, certFile, keyFile)
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads both files and reports whether their contents changed. On an error the previous
// certificate stays in use.
func (c *Certificate) Reload() (changed bool, err error) { return c.files.Reload() }

// Watch reloads every interval until ctx ends. It calls observe with nil for each change and with
// each error that differs from the previous one.
func (c *Certificate) Watch(ctx context.Context, interval time.Duration, observe func(err error)) {
	c.files.Watch(ctx, interval, func(changed bool, err error) {
		if changed || err != nil {
			observe(err)
		}
	})
}

// GetCertificate implements the field of that name in tls.Config.
func (c *Certificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cur := c.current.Load()
	if cur == nil {
		return nil, errors.New("no certificate")
	}
	return cur, nil
}

// NotAfter returns the end of the certificate's validity, or the zero time if nothing is loaded.
func (c *Certificate) NotAfter() time.Time {
	cur := c.current.Load()
	if cur == nil || cur.Leaf == nil {
		return time.Time{}
	}
	return cur.Leaf.NotAfter
}

// TLSConfig returns a configuration with TLS 1.2 and 1.3, HTTP/2, HTTP/1.1 and HTTP/1.0. TLS 1.2
// has ephemeral elliptic-curve key exchange and authenticated ciphers only (RFC 8996, RFC 10015).
// If clientCAs is not nil, a client certificate is optional and must chain to one of them.
func TLSConfig(cert *Certificate, clientCAs *x509.CertPool) *tls.Config {
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", "http/1.0"},
		GetCertificate: cert.GetCertificate,
		CipherSuites: []uint16{ // TLS 1.2 only; crypto/tls fixes those of TLS 1.3
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
