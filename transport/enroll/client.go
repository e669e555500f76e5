package enroll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"revoked/internal/jointoken"
	"revoked/transport/pki"
)

// An Applicant is a node that requests a certificate.
type Applicant struct {
	Node  string
	Token jointoken.Token
	CSR   []byte // DER
}

// A Certificate is an issued certificate with the CA that the token names.
type Certificate struct {
	DER   []byte
	CAPEM []byte
}

// Ask requests a certificate from the member at address. The error wraps ErrNotOffered,
// pki.ErrOtherCA, a *Refusal or an error of the connection. Ask sends nothing to a member without a
// certificate of the CA in the token.
func (a *Applicant) Ask(ctx context.Context, address string) (*Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout+2*readTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, withoutPorts(err)
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	_ = raw.SetDeadline(time.Now().Add(issueTimeout + 2*readTimeout))
	pin := pki.Pin{Hash: a.Token.CA()}
	c := tls.Client(raw, pin.Config(Protocol))
	if err := c.HandshakeContext(ctx); err != nil {
		if strings.Contains(err.Error(), "no application protocol") { // the alert has no exported type
			return nil, ErrNotOffered
		}
		return nil, withoutPorts(err)
	}
	der, err := a.ask(c)
	if err != nil {
		return nil, withoutPorts(err)
	}
	return &Certificate{DER: der, CAPEM: pin.CAPEM()}, nil
}

// ask sends the request and returns the certificate in the answer.
func (a *Applicant) ask(c *tls.Conn) ([]byte, error) {
	bound, err := binding(c)
	if err != nil {
		return nil, err
	}
	req := Request{Node: a.Node, CSR: a.CSR, TokenKey: a.Token.PublicKey(),
		Proof: a.Token.SignEnrollment(a.Node, a.CSR, bound)}
	b, err := req.encode()
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	if b, err = read(c); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	got, err := decodeAnswer(b)
	switch {
	case err != nil:
		return nil, err
	case got.code != 0:
		return nil, &Refusal{got.code, got.detail}
	}
	return got.certificate, nil
}

// withoutPorts removes the addresses from a network error. The local port is different each time,
// so equal errors would have different texts.
func withoutPorts(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}
