package clientauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"sync"
	"time"

	"revoked"
)

// AuthenticateCertificate returns the client with that id, if its record names the certificate of
// the connection (RFC 8705 section 2). certs are the certificates that the peer sent, its own
// first. TLS has proved that the peer has the key of the first.
//
// With ClientCAs the method is tls_client_auth: one of them must have issued the certificate.
// Without ClientCAs it is self_signed_tls_client_auth: only the public key counts. Errors are those
// of [Authenticator.Authenticate].
func (a *Authenticator) AuthenticateCertificate(
	ctx context.Context, clientID string, certs []*x509.Certificate, from netip.Addr,
) (*Caller, error) {
	t := Attempt{Method: revoked.AuthSelfSigned, From: from, Candidates: []Credential{{ID: clientID}}}
	pool := a.clientCAs()
	if pool != nil {
		t.Method = revoked.AuthTLS
	}
	now := a.cfg.Now()
	trusted := len(certs) > 0 && isValid(certs[0], now) && (pool == nil || a.chains.verify(certs, pool, now))
	t.proof = func(c *revoked.Client) *Caller {
		if !trusted {
			return nil
		}
		caller := &Caller{Client: c, Method: t.Method, certificates: certs}
		if pool != nil && c.Subject.Matches(certs[0]) {
			return caller
		}
		for i := range c.Keys {
			if pool == nil && bytes.Equal(c.Keys[i].Public, certs[0].RawSubjectPublicKeyInfo) {
				caller.key = c.Keys[i].Thumbprint
				return caller
			}
		}
		return nil
	}
	return a.Authenticate(ctx, t)
}

// clientCAs returns the CAs that may issue certificates of callers, or nil.
func (a *Authenticator) clientCAs() *x509.CertPool {
	if a.cfg.ClientCAs == nil {
		return nil
	}
	return a.cfg.ClientCAs()
}

// chainHolds reports whether the certificate of a tls_client_auth caller still chains to one of the
// CAs. It is true for every other method.
func (a *Authenticator) chainHolds(c *Caller, now time.Time) bool {
	if c.Method != revoked.AuthTLS {
		return true
	}
	pool := a.clientCAs()
	return pool != nil && a.chains.verify(c.certificates, pool, now)
}

// isValid reports whether a certificate is within its validity.
func isValid(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// maxChains bounds the remembered chains.
const maxChains = 4096

// chains caches which certificates chain to a CA. A connection carries many requests, and a
// verification takes longer than most of them. The zero value is ready for use. Methods may be
// called concurrently.
type chains struct {
	mu    sync.Mutex
	pool  *x509.CertPool         // CAs to which the remembered chains lead
	until map[[32]byte]time.Time // end of a chain's validity, by the hash of its certificates
}

// verify reports whether the first certificate chains to the pool and allows client authentication.
func (s *chains) verify(certs []*x509.Certificate, pool *x509.CertPool, now time.Time) bool {
	h := sha256.New()
	for _, c := range certs {
		h.Write(c.Raw)
	}
	id := [32]byte(h.Sum(nil))
	s.mu.Lock()
	if s.pool != pool || s.until == nil { // the CA file has changed
		s.pool, s.until = pool, map[[32]byte]time.Time{}
	}
	until, ok := s.until[id]
	s.mu.Unlock()
	if ok && now.Before(until) {
		return true
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	found, err := certs[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return false
	}
	until = certs[0].NotAfter
	for _, c := range found[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool == pool {
		for k := range s.until {
			if len(s.until) < maxChains {
				break
			}
			delete(s.until, k)
		}
		s.until[id] = until
	}
	return true
}
