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

// Files are the paths of the CA, the certificate and the key of a node that enrolled with a join
// token.
type Files struct{ CA, Cert, Key string }

// A Renewer renews this node's certificate as soon as the node is a member. After that, it renews
// when two thirds of the lifetime have passed. It renews earlier if a member signs with another CA
// that this node trusts.
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
	// Sign signs a certificate on this node. It is nil if this node does not have the CA's key.
	Sign func(ctx context.Context, req *nodepb.RenewRequest) *nodepb.RenewResponse

	renewed time.Time // expiry of the last renewed certificate, which may be short if the CA expires soon
}

const (
	checkEvery = time.Minute
	maxBackoff = time.Hour
)

// Run renews until ctx ends. It logs a failure only if the reason differs from the last logged
// reason.
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

// step renews the certificate if a renewal is due, or if a member signs with another CA that this
// node trusts.
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
		return nil // no renewal is due, so a failure is not reported
	}
	return r.renew(ctx)
}

// isDue reports whether two thirds of the certificate's lifetime have passed, or whether it is a
// first certificate, which has a short lifetime.
func (r *Renewer) isDue() bool {
	from, to := r.Certs.Validity()
	return to.Sub(from) < Lifetime/2 && !to.Equal(r.renewed) || r.Now().After(from.Add(to.Sub(from)*2/3))
}

// ask requests a certificate first from this node, if it can sign, and then from the other members
// in turn. It returns the first response without an error.
func (r *Renewer) ask(ctx context.Context, req *nodepb.RenewRequest) (*nodepb.RenewResponse, error) {
	failures := []error{errors.New("no member can sign certificates")}
	decided := func(resp *nodepb.RenewResponse, err error) bool {
		if err == nil {
			err = nodepb.DecodeError(resp.Code, resp.Detail)
		}
		if err == nil && len(resp.CaKey) != 32 {
			err = errors.New("malformed response")
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

// renew gets a new certificate for this node's key, and replaces the old certificate with it. It
// replaces nothing if an operator has replaced the key or the certificate in the meantime.
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

// Write replaces the named file with one of mode 0600. The new file is durable on return.
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
