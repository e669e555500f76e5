package serve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/api/serve"
	"revoked/internal/await"
)

// certFiles writes a self-signed certificate for 127.0.0.1 and its key. The certificate is valid
// for one more hour, of a lifetime of two hours.
func certFiles(t testing.TB, dir, name string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	return certFilesFor(t, dir, name, time.Hour)
}

// certFilesFor writes a certificate with a lifetime of two hours. left is the remaining part of it.
func certFilesFor(t testing.TB, dir, name string, left time.Duration) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(left - 2*time.Hour), NotAfter: time.Now().Add(left), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, b := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

func TestCertificate_ChangedFiles_AreReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := certFiles(t, dir, "one")
	cert, err := serve.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := cert.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := serial()
	if changed, err := cert.Reload(); changed || err != nil {
		t.Errorf("unchanged files: got changed %t, error %v, want false", changed, err)
	}
	if cert.NotAfter().IsZero() {
		t.Error("NotAfter: got the zero time, want the expiry of the certificate")
	}
	if err := os.WriteFile(certFile, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	observed, ended := make(chan error), make(chan struct{})
	go func() {
		cert.Watch(ctx, time.Millisecond, func(err error) { observed <- err }, func(left time.Duration) {
			t.Errorf("a new certificate: got a warning that %v are left, want none", left)
		})
		close(ended)
	}()
	if err := await.Receive(t, observed, "an observed check"); err == nil {
		t.Error("broken file: got nil, want an error")
	}
	if serial() != first {
		t.Error("broken file: got another certificate, want the previous one")
	}
	certFiles(t, dir, "two")
	for await.Receive(t, observed, "an observed check") != nil { // the key does not match the certificate for a moment
	}
	if serial() == first {
		t.Error("new files: got the previous certificate, want the new one")
	}
	cancel()
	await.Receive(t, ended, "the end of Watch")
	if _, err := serve.LoadCertificate(certFile, filepath.Join(dir, "none")); err == nil {
		t.Error("missing key: got nil, want an error")
	}
}

// A certificate with less than a fifth of its lifetime left is reported once. A metric has the time
// at which it expires.
func TestCertificate_ExpiresSoon_ReportedOnce(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := certFilesFor(t, dir, "one", 20*time.Minute)
	cert, err := serve.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	warnings, changes, ended := make(chan time.Duration, 9), make(chan error, 9), make(chan struct{})
	go func() {
		cert.Watch(ctx, time.Millisecond, func(err error) { changes <- err }, func(left time.Duration) { warnings <- left })
		close(ended)
	}()
	if left := await.Receive(t, warnings, "a warning"); left > 20*time.Minute || left < 10*time.Minute {
		t.Errorf("got %v left, want the 20 minutes of the certificate", left)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(cert.Metric())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if got := families[0].GetMetric()[0].GetGauge().GetValue(); got != float64(cert.NotAfter().Unix()) {
		t.Errorf("metric: got %v, want the expiry of the certificate, %d", got, cert.NotAfter().Unix())
	}
	certFiles(t, dir, "two") // renewed: after the first of the two files, the pair is invalid
	for await.Receive(t, changes, "the renewal") != nil {
	}
	cancel()
	await.Receive(t, ended, "the end of Watch")
	if len(warnings) != 0 {
		t.Errorf("got another warning, that %v are left; want one for the first certificate", <-warnings)
	}
}
