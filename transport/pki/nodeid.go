package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"revoked"
)

var (
	// ErrBadNodeID is returned for a node id that is not 1 to 64 characters of A-Z a-z 0-9 . _ -
	ErrBadNodeID = errors.New("not a node id")
	// ErrNotNode is returned for a certificate that does not name exactly one node.
	ErrNotNode = errors.New("certificate does not name a node")
	// ErrWrongNode is returned when a node other than the dialed one answers.
	ErrWrongNode = errors.New("wrong node answered")
)

// CheckNodeID is [revoked.CheckNodeID] with an error that wraps ErrBadNodeID.
func CheckNodeID(id string) error {
	if revoked.CheckNodeID(id) != nil {
		return fmt.Errorf("%w (got %.80q, want 1 to 64 characters of A-Z a-z 0-9 . _ -)", ErrBadNodeID, id)
	}
	return nil
}

// nodeURI returns the URI SAN of a node's certificate.
func nodeURI(nodeID string) *url.URL {
	return &url.URL{Scheme: "revoked", Host: "node", Path: "/" + nodeID}
}

// NodeOf returns the node that a certificate names in its one URI SAN revoked://node/<id>. It
// ignores URIs of other schemes. The error wraps ErrNotNode. NodeOf rejects a certificate with two
// names, because two parts of the program could choose different ones.
func NodeOf(cert *x509.Certificate) (string, error) {
	var found string
	for _, u := range cert.URIs {
		if u.Scheme != "revoked" {
			continue
		}
		id, ok := strings.CutPrefix(u.Path, "/")
		if u.Host != "node" || !ok || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return "", fmt.Errorf("%w: invalid URI (got %q, want revoked://node/<id>)", ErrNotNode, u)
		}
		if err := CheckNodeID(id); err != nil {
			return "", fmt.Errorf("%w: %v", ErrNotNode, err)
		}
		if found != "" {
			return "", fmt.Errorf("%w: two names (got %s and %s)", ErrNotNode, found, id)
		}
		found = id
	}
	if found == "" {
		return "", fmt.Errorf("%w: subject %q lacks the URI revoked://node/<id>", ErrNotNode, cert.Subject.CommonName)
	}
	return found, nil
}
