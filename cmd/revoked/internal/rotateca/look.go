package rotateca

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"revoked/transport/pki"
)

// lookTime bounds the connection to one node.
const lookTime = 10 * time.Second

// A node is the state of a member's certificates, as the member shows them. Either err is set, or
// the other fields are.
type node struct {
	id, address string
	err         error

	leaf       *x509.Certificate
	trustsOld  bool // the member trusts all old CAs
	trustsNext bool
	fromNext   bool // the next CA issued leaf
}

// authorities are the CAs between which the cluster moves. next is nil before the first step.
type authorities struct {
	old  []*x509.Certificate
	next *x509.Certificate
}

// errSeen ends a handshake that has shown everything.
var errSeen = errors.New("seen")

// look connects to the cluster port of a member. In the handshake, the member shows its
// certificate, and requests a certificate of one of the CAs that it trusts (RFC 8446, section
// 4.3.2). The function then ends the handshake without a certificate.
func look(ctx context.Context, id, address string, cas authorities) node {
	n := node{id: id, address: address}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var sent []*x509.Certificate
	dialer := &tls.Dialer{NetDialer: new(net.Dialer), Config: &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		// The handshake itself verifies nothing, because the roots of the system and host names do
		// not apply. GetClientCertificate calls n.read, which checks the chain and the name of the
		// node. A peer that does not request a client certificate is an error.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			sent = cs.PeerCertificates
			return nil
		},
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if n.err = n.read(sent, request.AcceptableCAs, cas); n.err != nil {
				return nil, n.err
			}
			return nil, errSeen
		},
	}}
	c, err := dialer.DialContext(ctx, "tcp", address)
	switch {
	case err == nil:
		_ = c.Close()
		n.err = errors.New("peer did not request a client certificate (is this a cluster port?)")
	case n.err == nil && !errors.Is(err, errSeen):
		n.err = err
	}
	return n
}

// read fills in the results of a handshake: the certificate of the node with its intermediate CAs,
// and the subjects (DER) of the CAs that it trusts.
func (n *node) read(sent []*x509.Certificate, trusted [][]byte, cas authorities) error {
	if len(sent) == 0 {
		return errors.New("node sent no certificate")
	}
	n.leaf = sent[0]
	switch id, err := pki.NodeOf(n.leaf); {
	case err != nil:
		return err
	case id != n.id:
		return fmt.Errorf("node certificate is for %s", id)
	}
	trusts := func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(trusted, func(subject []byte) bool { return bytes.Equal(subject, ca.RawSubject) })
	}
	n.trustsOld = !slices.ContainsFunc(cas.old, func(ca *x509.Certificate) bool { return !trusts(ca) })
	n.trustsNext = cas.next != nil && trusts(cas.next)
	if !n.trustsOld && !n.trustsNext {
		return errors.New("node trusts neither the current CA nor the next one")
	}
	if cas.next != nil && issuedBy(sent, cas.next) == nil {
		n.fromNext = true
		return nil
	}
	if err := issuedBy(sent, cas.old...); err != nil {
		return fmt.Errorf("certificate was issued by neither the current CA nor the next one: %w", err)
	}
	return nil
}

// issuedBy returns an error unless one of the roots issued the first certificate of sent, directly
// or through the other certificates of sent.
func issuedBy(sent []*x509.Certificate, roots ...*x509.Certificate) error {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range roots {
		opts.Roots.AddCert(c)
	}
	for _, c := range sent[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := sent[0].Verify(opts)
	return err
}
