package certify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"revoked/internal/durable"
	"revoked/internal/retry"
	"revoked/node/nodepb"
	"revoked/transport/pki"
)

// Files are the files of a certificate that came from a join token.
type Files struct{ CA, Cert, Key string }

// A Renewer renews the certificate of this node as soon as the node is a member, and then after two
// thirds of the lifetime. It renews earlier if a member signs with another CA that this node
// trusts.
type Renewer struct {
	NodeID string
	Files  Files
	Certs  *pki.Certs
	Log    *slog.Logger
	Now    func() time.Time

	IsMember func(node string) bool
	// Members returns the addresses of the other members. Call sends a request to one of them.
	Members func() []string
	Call    func(ctx context.Context, host string, req *nodepb.RenewRequest, resp *nodepb.RenewResponse) error
	// Sign signs here, if this node has the CA's key. It may be nil.
	Sign func(ctx context.Context, req *nodepb.RenewRequest) *nodepb.RenewResponse

	renewed time.Time // expiry of the last renewed certificate, which may be short if the CA expires soon
}

const (
	checkEvery = time.Minute
	maxBackoff = time.Hour
)

// Run renews until ctx ends. It logs a failure when its reason changes.
func (r *Renewer) Run(ctx context.Context) {
	logged, pause := "", checkEvery
	for ctx.Err() == nil {
		switch err := r.step(ctx); {
		case errors.Is(err, errNotYet):
			pause = checkEvery / 30 // until the first renewal, the certificate may expire soon
		case err == nil:
			logged, pause = "", checkEvery
		default:
			if text := err.Error(); text != logged && ctx.Err() == nil {
				r.Log.Warn("cannot renew the certificate of this node", "error", text, "not_after", r.Certs.Expiry())
				logged = text
			}
			pause = min(2*pause, maxBackoff, max(r.Certs.Expiry().Sub(r.Now())/10, checkEvery/30))
		}
		_ = retry.Sleep(ctx, pause)
	}
}

// errNotYet is returned while this node is not a member.
var errNotYet = errors.New("not a member yet")

// step renews the certificate if it is due.
func (r *Renewer) step(ctx context.Context) error {
	if !r.IsMember(r.NodeID) {
		return errNotYet
	}
	if r.isDue() {
		return r.renew(ctx)
	}
	own, err := r.Certs.CAKeyHash()
	if err != nil {
		return err
	}
	resp, err := r.ask(ctx, &nodepb.RenewRequest{})
	if err != nil || bytes.Equal(resp.CaKey, own[:]) || !r.Certs.Trusts([32]byte(resp.CaKey)) {
		return nil // nothing is due, so a failure is not reported
	}
	return r.renew(ctx)
}

// isDue reports whether two thirds of the lifetime are over, or whether the certificate is a first
// one, with its short lifetime.
func (r *Renewer) isDue() bool {
	from, to := r.Certs.Validity()
	return to.Sub(from) < Lifetime/2 && !to.Equal(r.renewed) || r.Now().After(from.Add(to.Sub(from)*2/3))
}

// ask requests a certificate from this node if it can sign, then from the members in turn. It
// returns the first answer without an error.
func (r *Renewer) ask(ctx context.Context, req *nodepb.RenewRequest) (*nodepb.RenewResponse, error) {
	failures := []error{errors.New("no member can sign certificates")}
	decided := func(resp *nodepb.RenewResponse, err error) bool {
		if err == nil {
			err = nodepb.DecodeError(resp.Code, resp.Detail)
		}
		if err == nil && len(resp.CaKey) != 32 {
			err = errors.New("malformed answer")
		}
		if err != nil {
			failures = append(failures, err)
		}
		return err == nil
	}
	if r.Sign != nil {
		if resp := r.Sign(ctx, req); decided(resp, nil) {
			return resp, nil
		}
	}
	for _, host := range r.Members() {
		resp := new(nodepb.RenewResponse)
		if decided(resp, r.Call(ctx, host, req, resp)) {
			return resp, nil
		}
	}
	return nil, errors.Join(failures...)
}

// renew gets a certificate for the key that this node has, and puts it in place of the old one. It
// does nothing if an operator has replaced key or certificate in the meantime.
func (r *Renewer) renew(ctx context.Context) error {
	before, err := r.read()
	if err != nil {
		return err
	}
	csr, err := pki.RequestFor(r.NodeID, before.key)
	if err != nil {
		return err
	}
	resp, err := r.ask(ctx, &nodepb.RenewRequest{Csr: csr})
	if err != nil {
		return err
	}
	cert, err := pki.CheckIssued(before.ca, before.key, resp.Certificate, r.NodeID)
	if err != nil {
		return fmt.Errorf("certificate from a member: %w", err)
	}
	now, err := r.read()
	if err != nil {
		return err
	}
	if !bytes.Equal(now.key, before.key) || !bytes.Equal(now.cert, before.cert) {
		return nil
	}
	if err := Write(r.Files.Cert, cert); err != nil {
		return err
	}
	if err := r.Certs.Reload(); err != nil {
		return err
	}
	_, r.renewed = r.Certs.Validity()
	r.Log.Info("certificate of this node renewed", "not_after", r.Certs.Expiry())
	return nil
}

// Write puts a file of mode 0600 in place of another. It is durable on return.
func Write(name string, data []byte) error {
	err := durable.Replace(name, data, 0o600)
	if err == nil {
		err = durable.SyncDirIfSupported(filepath.Dir(name))
	}
	return err
}

type contents struct{ ca, cert, key []byte }

func (r *Renewer) read() (c contents, err error) {
	for name, b := range map[string]*[]byte{r.Files.CA: &c.ca, r.Files.Cert: &c.cert, r.Files.Key: &c.key} {
		if *b, err = os.ReadFile(name); err != nil {
			return c, err
		}
	}
	return c, nil
}
