package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"revoked"
	"revoked/cmd/revoked/internal/config"
	"revoked/internal/durable"
	"revoked/internal/jointoken"
	"revoked/node/certify"
	"revoked/node/datadir"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// An applicant gets the certificate of a node with a join token. The node has no certificate, or is
// not a member and its certificate was issued for another token.
type applicant struct {
	files  certify.Files
	record string // file with the digest of the token that the certificate was issued for
	node   string
	token  jointoken.Token
	join   []string // cluster addresses of other nodes
	hup    <-chan os.Signal
	log    *slog.Logger

	write func(name string, data []byte) error // certify.Write, unless a test replaces it
}

func newApplicant(c *config.Config, token jointoken.Token, hup <-chan os.Signal, log *slog.Logger) *applicant {
	// Leave out this node, which does not serve yet: often all nodes have the same list.
	others := slices.DeleteFunc(slices.Clone(c.Join), func(host string) bool { return host == c.ClusterAdvertise })
	return &applicant{files: certificateFiles(c), record: c.TokenRecord(), node: c.NodeID, token: token, join: others,
		hup: hup, log: log, write: certify.Write}
}

// getCertificate gets a certificate with the join token. It returns nil if ctx ends first. It holds
// the lock on the data directory meanwhile. If the token is refused and the node keeps a
// certificate, getCertificate drops the token: only an existing admission can admit the node.
func getCertificate(
	ctx context.Context, c *config.Config, f *config.Files, hup <-chan os.Signal, log *slog.Logger,
) error {
	token, err := jointoken.Parse(f.JoinToken)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	lock, err := datadir.Lock(c.DataDir)
	if err != nil {
		return err
	}
	if err := datadir.Check(c.DataDir, c.NodeID, c.Rejoin); err != nil { // check before the token is used
		return errors.Join(err, lock.Close())
	}
	a := newApplicant(c, token, hup, log)
	if len(a.join) == 0 {
		return errors.Join(errors.New("cannot get a certificate: the join setting lists only this node; "+
			"add the address of a member that has cluster_ca_key"), lock.Close())
	}
	got, err := a.run(ctx)
	if !got {
		f.JoinToken = ""
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return errors.Join(err, lock.Close())
}

func certificateFiles(c *config.Config) certify.Files {
	return certify.Files{CA: c.ClusterCA, Cert: c.ClusterCert, Key: c.ClusterKey}
}

// run gets the certificate and stores it. It calls the members until one issues the certificate, or
// until every member that could issue it has refused permanently. After such refusals it returns
// false, and no error if the node already has a certificate. The key is on disk before a member
// sees it. So after a crash the node requests it again with the same key, which the token allows.
func (a *applicant) run(ctx context.Context) (got bool, err error) {
	key, err := a.prepare()
	if err != nil {
		return false, err
	}
	csr, err := pki.RequestFor(a.node, key)
	if err != nil {
		return false, err
	}
	request := &enroll.Applicant{Node: a.node, Token: a.token, CSR: csr}
	logged := ""
	for d := 100 * time.Millisecond; ; d = min(2*d, 5*time.Second) {
		issued, err := a.obtain(ctx, request, key)
		var end *refusedByAll
		switch {
		case err == nil:
			return true, a.store(issued)
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.As(err, &end) && !errors.Is(err, errWrongIssue) && a.hasCertificate():
			a.log.Warn("cannot get a new certificate with the join token; keeping the old one", "error", err)
			return false, nil
		case errors.As(err, &end):
			return false, fmt.Errorf("cannot get a certificate: %w", err)
		}
		if text := err.Error(); text != logged {
			a.log.Info("cannot obtain a certificate yet", "error", text)
			logged = text
		}
		a.wait(ctx, d)
	}
}

// wait returns after d, when ctx ends, or on SIGHUP.
func (a *applicant) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-a.hup:
		a.log.Info("requesting the certificate again after SIGHUP")
	}
}

// probeSize is more than the files of a certificate have together.
const probeSize = 16 << 10

// prepare checks that the directory can be written, before the token is used, and returns the
// node's key. It creates the key unless an earlier start did. Directory and key are durable on
// return.
func (a *applicant) prepare() ([]byte, error) {
	dir := filepath.Dir(a.files.Cert)
	probe, content := filepath.Join(dir, "probe"), make([]byte, probeSize)
	_, _ = rand.Read(content) // random, because a file system may use no space for zeros
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = durable.SyncDirIfSupported(filepath.Dir(dir))
	}
	if err == nil {
		err = errors.Join(a.write(probe, content), os.Remove(probe))
	}
	if err != nil {
		return nil, fmt.Errorf("certificate directory: %w; the join token was not used", err)
	}
	key, err := os.ReadFile(a.files.Key)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if _, key, err = pki.NewRequest(a.node); err != nil {
		return nil, err
	}
	return key, a.write(a.files.Key, key)
}

// An issued is a certificate that checkIssued accepted.
type issued struct {
	ca, cert []byte // PEM
	until    time.Time
}

// refusedByAll is the error of a round in which members refused permanently, and no other host
// could issue a certificate. It wraps their errors.
type refusedByAll struct{ error }

func (e *refusedByAll) Unwrap() error { return e.error }

// errWrongIssue is returned for a certificate that this node cannot use.
var errWrongIssue = errors.New("this node cannot use the certificate: check the node's clock first; if it is right, " +
	"the cluster is moving to another CA, or a member is misconfigured: create another join token")

// obtain calls the members in turn, and returns the first certificate for key. The refusal of one
// host does not end the round. The host may have left the cluster, or may belong to another cluster
// with this CA.
func (a *applicant) obtain(ctx context.Context, request *enroll.Applicant, key []byte) (*issued, error) {
	var failures, refusals []error
	wait := false
	for _, host := range a.join {
		got, err := a.obtainAt(ctx, request, host, key)
		if err == nil {
			return got, nil
		}
		err = fmt.Errorf("%s: %w", host, err)
		failures = append(failures, err)
		switch {
		case isRefusal(err):
			refusals = append(refusals, err)
		case !errors.Is(err, enroll.ErrNotOffered) && !errors.Is(err, pki.ErrOtherCA):
			wait = true
		}
	}
	if len(refusals) > 0 && !wait {
		return nil, &refusedByAll{errors.Join(refusals...)}
	}
	return nil, errors.Join(failures...)
}

func (a *applicant) obtainAt(ctx context.Context, request *enroll.Applicant, host string, key []byte) (*issued, error) {
	got, err := request.Ask(ctx, host)
	if err != nil {
		return nil, err
	}
	return checkIssued(got.CAPEM, key, got.DER, a.node)
}

// checkIssued returns errWrongIssue if the node cannot use the certificate.
func checkIssued(ca, key, der []byte, node string) (*issued, error) {
	cert, err := pki.CheckIssued(ca, key, der, node)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWrongIssue, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &issued{ca, cert, leaf.NotAfter}, nil
}

// isRefusal reports whether a retry with this token gets the same answer from the same host.
func isRefusal(err error) bool {
	return errors.Is(err, revoked.ErrForbidden) || errors.Is(err, revoked.ErrConflict) ||
		errors.Is(err, revoked.ErrInvalid) || errors.Is(err, errWrongIssue)
}

// hasCertificate reports whether this node can use the certificate that it has.
func (a *applicant) hasCertificate() bool {
	certs, err := pki.LoadCerts(a.files.CA, a.files.Cert, a.files.Key, nil)
	return err == nil && certs.NodeID() == a.node
}

// store puts the files in place. If the process stops between two files, the node still has a
// certificate and its CA. The record is written last: without it, the next start requests one again
// with the same token and key, which the token allows. store keeps a certificate of the same CA
// that expires later.
func (a *applicant) store(got *issued) error {
	type file struct {
		name string
		data []byte
	}
	var list []file
	if old, err := os.ReadFile(a.files.CA); err == nil && !bytes.Equal(old, got.ca) && a.hasCertificate() {
		list = append(list, file{a.files.CA, slices.Concat(got.ca, old)})
	} else {
		list = append(list, file{a.files.CA, got.ca})
	}
	if !a.hasLonger(got) {
		list = append(list, file{a.files.Cert, got.cert})
	}
	digest := jointoken.Digest(a.token.PublicKey())
	list = append(list, file{a.files.CA, got.ca}, file{a.record, []byte(hex.EncodeToString(digest[:]) + "\n")})
	for _, f := range list {
		if err := a.write(f.name, f.data); err != nil {
			return err
		}
	}
	a.log.Info("got a certificate with the join token", "file", a.files.Cert)
	return nil
}

// hasLonger reports whether this node has a certificate of the same CA that expires later than got.
func (a *applicant) hasLonger(got *issued) bool {
	certs, err := pki.LoadCerts(a.files.CA, a.files.Cert, a.files.Key, nil)
	if err != nil || !certs.Expiry().After(got.until) {
		return false
	}
	key, err := os.ReadFile(a.files.Key)
	if err == nil {
		_, err = pki.CheckIssued(got.ca, key, certs.Leaf().Raw, a.node)
	}
	return err == nil
}
