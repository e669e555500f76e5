package transport_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/internal/await"
	"revoked/transport"
	"revoked/transport/pki"
)

// longStop limits every wait of a test.
const longStop = 30 * time.Second

func newCA(t testing.TB) *pki.CA {
	t.Helper()
	a, err := pki.NewCA("test CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t testing.TB, file string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// files writes a CA, a certificate and a key and returns their paths.
func files(t testing.TB, ca, cert, key []byte) (caFile, certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	return write(t, filepath.Join(dir, "ca.pem"), ca),
		write(t, filepath.Join(dir, "cert.pem"), cert),
		write(t, filepath.Join(dir, "key.pem"), key)
}

func nodeCerts(t testing.TB, a *pki.CA, node string) *pki.Certs {
	t.Helper()
	cert, key, err := a.IssueNode(node, []string{"127.0.0.1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, certFile, keyFile := files(t, a.CertPEM(), cert, key)
	c, err := pki.LoadCerts(ca, certFile, keyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type server struct {
	*transport.Transport
	ca   *pki.CA
	name string
	addr string
	log  *await.Log
	reg  *prometheus.Registry
}

// start runs a transport on loopback. tune may change its configuration.
func start(t testing.TB, a *pki.CA, node string, tune func(*transport.Config)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ca: a, name: node, addr: ln.Addr().String(), log: &await.Log{}, reg: prometheus.NewRegistry()}
	cfg := transport.Config{
		NodeID: node, Listener: ln, Advertise: s.addr, Certs: nodeCerts(t, a, node),
		Handler:   http.HandlerFunc(echo),
		AllowRaft: func(string) error { return nil },
		Log:       s.log.Logger(), Registerer: s.reg,
		RaftTimeout: longStop, DialTimeout: longStop,
	}
	if tune != nil {
		tune(&cfg)
	}
	if s.Transport, err = transport.New(cfg); err != nil {
		t.Fatal(err)
	}
	s.Serve()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", node, err)
		}
	})
	return s
}

// echo answers with the caller's node and the body of the call.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		transport.WriteError(w, http.StatusRequestEntityTooLarge, 1, err.Error())
		return
	}
	_, _ = w.Write([]byte(transport.PeerNode(r) + ":"))
	_, _ = w.Write(body)
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), longStop)
	t.Cleanup(cancel)
	return ctx
}

// metric returns the sum of a metric's samples whose labels include want.
func (s *server) metric(t testing.TB, name string, want map[string]string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			got := map[string]string{}
			for _, l := range m.GetLabel() {
				got[l.GetName()] = l.GetValue()
			}
			for k, v := range want {
				if got[k] != v {
					continue samples
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
