package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
)

// maxNodeID is the longest node id, in bytes.
const maxNodeID = 64

// maxHostPort bounds an address: the longest DNS name, a colon and a port.
const maxHostPort = 253 + 1 + 5

var (
	// ErrBadNodeID is returned for a node id that is not 1 to 64 of A-Z a-z 0-9 . _ -
	ErrBadNodeID = errors.New("not a node id")
	// ErrBadAddress is returned for an address that is not host:port or node@host:port.
	ErrBadAddress = errors.New("not an address")
	// ErrNotNode is returned when a certificate does not name exactly one node.
	ErrNotNode = errors.New("certificate does not name a node")
	// ErrWrongNode is returned when the peer is a node of the cluster, but not the one that was meant.
	ErrWrongNode = errors.New("another node answered")
)

// CheckNodeID returns an error that wraps ErrBadNodeID unless id is 1 to 64 characters of
// A-Z a-z 0-9 . _ - and is neither "." nor "..", which would not survive as names of files.
func CheckNodeID(id string) error {
	if id == "" || len(id) > maxNodeID || id == "." || id == ".." {
		return fmt.Errorf("%w: it has 1 to %d characters, and this one %d", ErrBadNodeID, maxNodeID, len(id))
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%w: %q holds a character other than A-Z a-z 0-9 . _ -", ErrBadNodeID, id)
		}
	}
	return nil
}

// nodeURI is the URI SAN of a node's certificate.
func nodeURI(nodeID string) *url.URL {
	return &url.URL{Scheme: "revoked", Host: "node", Path: "/" + nodeID}
}

// nodeOf returns the node that a certificate names in its one URI SAN revoked://node/<id>. URIs of
// other schemes are left alone: they belong to somebody else.
func nodeOf(cert *x509.Certificate) (string, error) {
	var found string
	for _, u := range cert.URIs {
		if u.Scheme != "revoked" {
			continue
		}
		id, ok := strings.CutPrefix(u.Path, "/")
		if u.Host != "node" || !ok || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return "", fmt.Errorf("%w: its URI %q is not revoked://node/<id>", ErrNotNode, u)
		}
		if err := CheckNodeID(id); err != nil {
			return "", fmt.Errorf("%w: %v", ErrNotNode, err)
		}
		if found != "" {
			return "", fmt.Errorf("%w: it names two, %s and %s", ErrNotNode, found, id)
		}
		found = id
	}
	if found == "" {
		return "", fmt.Errorf("%w: subject %q has no URI revoked://node/<id>", ErrNotNode, cert.Subject.CommonName)
	}
	return found, nil
}

// RaftAddress returns the address under which Raft knows a node: "node1@127.0.0.1:9443". It carries
// the name so that whoever dials it can check the certificate against it.
func RaftAddress(nodeID, hostport string) raft.ServerAddress {
	return raft.ServerAddress(nodeID + "@" + hostport)
}

// InstanceAddress is RaftAddress with the instance behind it: "node1@127.0.0.1:9443#0a1b". Raft allows
// an address once in a configuration, but for a while two instances of a node have the same one: that
// which lost its disk, and its successor, who must not speak for it: it has forgotten what it stored and whom it
// voted for. So a stream of Raft's names the instance that it is for.
func InstanceAddress(nodeID, hostport, instance string) raft.ServerAddress {
	return RaftAddress(nodeID, hostport) + raft.ServerAddress("#"+instance)
}

// instanceOf returns the instance that an address names; empty when it names none.
func instanceOf(addr raft.ServerAddress) string {
	_, instance, _ := strings.Cut(string(addr), "#")
	return instance
}

// SplitAddress takes a RaftAddress or an InstanceAddress apart. The error wraps ErrBadAddress or
// ErrBadNodeID.
func SplitAddress(addr raft.ServerAddress) (nodeID, hostport string, err error) {
	nodeID, hostport, ok := strings.Cut(string(addr), "@")
	if !ok {
		return "", "", fmt.Errorf("%w: want node@host:port", ErrBadAddress)
	}
	if at := strings.LastIndexByte(hostport, '#'); at >= 0 {
		if err := CheckNodeID(hostport[at+1:]); err != nil {
			return "", "", fmt.Errorf("%w: instance: %w", ErrBadAddress, err)
		}
		hostport = hostport[:at]
	}
	if err := CheckNodeID(nodeID); err != nil {
		return "", "", err
	}
	if err := checkHostPort(hostport); err != nil {
		return "", "", err
	}
	return nodeID, hostport, nil
}

// checkHostPort refuses what cannot be dialled: no host, no numeric port, or too long.
func checkHostPort(hostport string) error {
	if len(hostport) > maxHostPort {
		return fmt.Errorf("%w: %d bytes are too long", ErrBadAddress, len(hostport))
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || host == "" {
		return fmt.Errorf("%w: want host:port, got %q", ErrBadAddress, hostport)
	}
	if strings.ContainsAny(host, "@/\\ \t\r\n\x00") {
		return fmt.Errorf("%w: bad character in host %q", ErrBadAddress, host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%w: port %q is not 1 to 65535", ErrBadAddress, port)
	}
	return nil
}
