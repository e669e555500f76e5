package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"revoked"
	"revoked/cmd/revoked/internal/config"
	"revoked/internal/jointoken"
	"revoked/internal/retry"
	"revoked/node/certify"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// An applicant gets the certificate of a node that has only a join token.
type applicant struct {
	files certify.Files
	node  string
	token jointoken.Token
	join  []string
	log   *slog.Logger
}

// getCertificate gets a certificate with the join token. It returns nil if ctx ends first.
func getCertificate(ctx context.Context, c *config.Config, f *config.Files, log *slog.Logger) error {
	token, err := jointoken.Parse(f.JoinToken)
	if err != nil {
		return err
	}
	a := &applicant{certificateFiles(c), c.NodeID, token, c.Join, log}
	if err := a.run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func certificateFiles(c *config.Config) certify.Files {
	return certify.Files{CA: c.ClusterCA, Cert: c.ClusterCert, Key: c.ClusterKey}
}

// run gets the certificate and stores it. It asks the members until one issues it or refuses for
// good. The key exists on disk before a member sees it: a node that dies in between asks again with
// the same key, which the token allows.
func (a *applicant) run(ctx context.Context) error {
	key, err := a.prepare()
	if err != nil {
		return err
	}
	csr, err := pki.RequestFor(a.node, key)
	if err != nil {
		return err
	}
	ask := &enroll.Applicant{Node: a.node, Token: a.token, CSR: csr}
	logged := ""
	for d := 100 * time.Millisecond; ; d = min(2*d, 5*time.Second) {
		issued, err := a.ask(ctx, ask)
		switch {
		case err == nil:
			return a.store(key, issued)
		case ctx.Err() != nil:
			return ctx.Err()
		case isFinal(err):
			return fmt.Errorf("no certificate: %w", err)
		}
		if text := err.Error(); text != logged {
			a.log.Info("no certificate yet", "error", text)
			logged = text
		}
		_ = retry.Sleep(ctx, d)
	}
}

// isFinal reports whether a repeat with this token gets the same answer.
func isFinal(err error) bool {
	return errors.Is(err, revoked.ErrForbidden) || errors.Is(err, revoked.ErrConflict) ||
		errors.Is(err, revoked.ErrInvalid)
}

// prepare checks that the folder can be written, before the token is used, and returns the node's
// key. It makes one unless an earlier start has.
func (a *applicant) prepare() ([]byte, error) {
	dir := filepath.Dir(a.files.Cert)
	probe := filepath.Join(dir, "probe")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = errors.Join(certify.Write(probe, nil), os.Remove(probe))
	}
	if err != nil {
		return nil, fmt.Errorf("folder of the certificate: %w; the join token was not used", err)
	}
	key, err := os.ReadFile(a.files.Key)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if _, key, err = pki.NewRequest(a.node); err != nil {
		return nil, err
	}
	return key, certify.Write(a.files.Key, key)
}

// ask asks the members in turn. It returns at the first certificate or final refusal.
func (a *applicant) ask(ctx context.Context, ask *enroll.Applicant) (*enroll.Certificate, error) {
	var failures []error
	for _, host := range a.join {
		issued, err := ask.Ask(ctx, host)
		if err == nil {
			return issued, nil
		}
		err = fmt.Errorf("%s: %w", host, err)
		if isFinal(err) {
			return nil, err
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// store checks the certificate and writes the CA before it: with a certificate, a start asks no
// more.
func (a *applicant) store(key []byte, issued *enroll.Certificate) error {
	cert, err := pki.CheckIssued(issued.CAPEM, key, issued.DER, a.node)
	if err != nil {
		return fmt.Errorf("the cluster moves to another CA, or a member is wrong: create another join token: %w", err)
	}
	if err := certify.Write(a.files.CA, issued.CAPEM); err != nil {
		return err
	}
	if err := certify.Write(a.files.Cert, cert); err != nil {
		return err
	}
	a.log.Info("got a certificate with the join token", "file", a.files.Cert)
	return nil
}
