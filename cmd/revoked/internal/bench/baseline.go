package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"revoked/cmd/revoked/internal/bench/load"
	"revoked/transport/pki"
)

// A baselineReady is the line that the baseline server writes to its standard output.
type baselineReady struct {
	Addr string `json:"addr"`
	CA   string `json:"ca"` // PEM
}

// ServeBaseline serves the baseline of every comparison: net/http over TLS with a fixed body for
// each path. It reads the bodies by path as a JSON object from stdin and returns when stdin ends.
func ServeBaseline(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	var bodies map[string]string
	if err := json.NewDecoder(stdin).Decode(&bodies); err != nil {
		return fmt.Errorf("read response bodies from stdin: %w", err)
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
		Handler:           baselineHandler(bodies),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if err := json.NewEncoder(stdout).Encode(baselineReady{Addr: ln.Addr().String(), CA: ca}); err != nil {
		return errors.Join(err, ln.Close())
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, _ = io.Copy(io.Discard, stdin) // until the parent closes stdin or exits
		_ = srv.Close()
	})
	if err = srv.ServeTLS(ln, "", ""); errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// baselineHandler answers with the body of the path and the headers of the API.
func baselineHandler(bodies map[string]string) http.Handler {
	mux := http.NewServeMux()
	for path, text := range bodies {
		body := []byte(text)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, 16<<10)); err != nil {
				return
			}
			h := w.Header()
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "no-store")
			h.Set("Pragma", "no-cache")
			_, _ = w.Write(body)
		})
	}
	return mux
}

// baselineCertificate returns a certificate like those of `revoked cert`, and its CA in PEM.
func baselineCertificate() (cert tls.Certificate, ca string, err error) {
	const life = 48 * time.Hour
	authority, err := pki.NewCA("revoked bench baseline", life)
	if err != nil {
		return cert, "", err
	}
	certPEM, keyPEM, err := authority.IssueServer([]string{"127.0.0.1"}, life)
	if err != nil {
		return cert, "", err
	}
	cert, err = tls.X509KeyPair(certPEM, keyPEM)
	return cert, string(authority.CertPEM()), err
}

// A baseline is the child process that runs ServeBaseline.
type baseline struct {
	load.Target
	cmd   *exec.Cmd
	stdin io.Closer
}

func startBaseline(bodies map[string]string) (*baseline, error) {
	exe, errExe := os.Executable()
	b := &baseline{cmd: exec.Command(exe, "bench", "baseline-server")}
	b.cmd.Args[0] = "revoked"
	b.cmd.Stderr = os.Stderr
	in, errIn := b.cmd.StdinPipe()
	out, errOut := b.cmd.StdoutPipe()
	b.stdin = in
	err := errors.Join(errExe, errIn, errOut)
	if err == nil {
		err = b.cmd.Start()
	}
	if err == nil {
		if b.Target, err = askBaseline(in, out, bodies); err == nil {
			return b, nil
		}
		b.stop()
	}
	return nil, fmt.Errorf("start the baseline: %w", err)
}

func askBaseline(in io.Writer, out io.Reader, bodies map[string]string) (load.Target, error) {
	if err := json.NewEncoder(in).Encode(bodies); err != nil {
		return load.Target{}, err
	}
	var ready baselineReady
	if err := json.NewDecoder(io.LimitReader(out, 64<<10)).Decode(&ready); err != nil {
		return load.Target{}, err
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, NextProtos: httpOne}
	cfg.RootCAs.AppendCertsFromPEM([]byte(ready.CA))
	return load.Target{Addr: ready.Addr, TLS: cfg}, nil
}

func (b *baseline) stop() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait()
}
