package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
// each error that differs from the previous one. It calls expiring once for each certificate with
// less than a fifth of its lifetime left.
func (c *Certificate) Watch(ctx context.Context, interval time.Duration, observe func(err error),
	expiring func(left time.Duration)) {
	var warned *tls.Certificate
	c.files.Watch(ctx, interval, func(changed bool, err error) {
		if changed || err != nil {
			observe(err)
		}
		cur := c.current.Load()
		if cur == nil || cur == warned || cur.Leaf == nil {
			return
		}
		if left := time.Until(cur.Leaf.NotAfter); left < cur.Leaf.NotAfter.Sub(cur.Leaf.NotBefore)/5 {
			warned = cur
			expiring(left)
		}
	})
}

// Metric returns a metric with the time at which the certificate expires.
func (c *Certificate) Metric() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "revoked_api_certificate_expiry_seconds",
		Help: "When the certificate of the API port expires, in Unix seconds.",
	}, func() float64 { return float64(c.NotAfter().Unix()) })
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

// ClientCAs holds the CAs that may issue certificates of callers, loaded from a file. A nil value
// has no CAs. Methods may be called concurrently.
type ClientCAs struct {
	files   *filewatch.Watcher
	current atomic.Pointer[x509.CertPool]
}

// LoadClientCAs reads a file of PEM certificates.
func LoadClientCAs(file string) (*ClientCAs, error) {
	c := &ClientCAs{}
	c.files = filewatch.New(func(content [][]byte) error {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(bytes.TrimPrefix(content[0], []byte("\ufeff"))) {
			return fmt.Errorf("%s contains no PEM certificate", file)
		}
		c.current.Store(pool)
		return nil
	}, file)
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads the file and reports whether its content changed. On an error the previous CAs stay
// in use.
func (c *ClientCAs) Reload() (changed bool, err error) {
	if c == nil {
		return false, nil
	}
	return c.files.Reload()
}

// Watch reloads every interval until ctx ends. It calls observe with nil for each change and with
// each error that differs from the previous one.
func (c *ClientCAs) Watch(ctx context.Context, interval time.Duration, observe func(err error)) {
	if c == nil {
		return
	}
	c.files.Watch(ctx, interval, func(changed bool, err error) {
		if changed || err != nil {
			observe(err)
		}
	})
}

// Pool returns the CAs, or nil for none. It returns the same pool until the file changes.
func (c *ClientCAs) Pool() *x509.CertPool {
	if c == nil {
		return nil
	}
	return c.current.Load()
}

// TLSConfig returns a configuration with TLS 1.2 and 1.3, HTTP/2, HTTP/1.1 and HTTP/1.0. With TLS
// 1.2, the server accepts only ephemeral elliptic-curve key exchange and authenticated ciphers (RFC
// 8996, RFC 10015).
//
// It requests a client certificate but does not require one. With clientCAs, a certificate must
// chain to one of them, even when the peer resumes a session. Without clientCAs, any certificate
// passes: the handshake only proves that the peer has its key.
func TLSConfig(cert *Certificate, clientCAs *ClientCAs) *tls.Config {
	cfg := baseConfig(cert)
	cfg.ClientAuth = tls.RequestClientCert
	if clientCAs == nil {
		return cfg
	}
	var mu sync.Mutex
	var verifying *tls.Config // configuration for the pool in use
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if pool := clientCAs.Pool(); verifying == nil || verifying.ClientCAs != pool {
			verifying = baseConfig(cert)
			verifying.ClientAuth, verifying.ClientCAs = tls.VerifyClientCertIfGiven, pool
		}
		return verifying, nil
	}
	return cfg
}

func baseConfig(cert *Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", "http/1.0"},
		GetCertificate: cert.GetCertificate,
		CipherSuites: []uint16{ // for TLS 1.2 only; the suites of TLS 1.3 are not configurable
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}
