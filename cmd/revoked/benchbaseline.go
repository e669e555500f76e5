package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// A baselineRequest is what the baseline server is told, as one line on its standard input, which
// then stays open: its end is the server's end.
type baselineRequest struct {
	Bodies map[string]string `json:"bodies"` // the body to answer with, by path
}

// A baselineReady is what the baseline server says, as one line on its standard output.
type baselineReady struct {
	Addr string `json:"addr"`
	CA   string `json:"ca"` // PEM
}

// baselineServerCommand is the other side of every comparison: net/http over TLS that reads a request
// and answers with a body it was given, and nothing else.
func baselineServerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "baseline-server",
		Short:  "Serve fixed bodies over TLS, for bench to compare with",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serveBaseline(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func serveBaseline(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read what to serve: %w", err)
	}
	var req baselineRequest
	if err := json.Unmarshal(line, &req); err != nil {
		return fmt.Errorf("read what to serve: %w", err)
	}
	cert, ca, err := baselineCertificate()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           baselineHandler(req.Bodies),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if err := json.NewEncoder(stdout).Encode(baselineReady{Addr: ln.Addr().String(), CA: ca}); err != nil {
		ln.Close()
		return err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, in) // until the parent closes it, or is gone
		srv.Close()
	}()
	err = srv.ServeTLS(ln, "", "")
	<-gone
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// baselineHandler reads the request and writes the body of its path with the headers of the API.
func baselineHandler(bodies map[string]string) http.Handler {
	byPath := make(map[string][]byte, len(bodies))
	for path, body := range bodies {
		byPath[path] = []byte(body)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, 16<<10)); err != nil {
			return
		}
		body, ok := byPath[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("Pragma", "no-cache")
		w.Write(body)
	})
}

// baselineCertificate returns a certificate of the kind that `revoked cert` makes: ECDSA P-256.
func baselineCertificate() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "revoked bench baseline"},
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(48 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(ca), nil
}
