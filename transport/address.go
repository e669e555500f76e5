package transport

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"revoked/transport/pki"
)

// maxHostPort is the maximum length of an address: the longest DNS name, a colon and a port.
const maxHostPort = 253 + 1 + 5

// ErrBadAddress is returned for an address that is not host:port or node@host:port.
var ErrBadAddress = errors.New("not an address")

// RaftAddress returns the address of a node in Raft's configuration: "node1@127.0.0.1:9443". It
// contains the node's name, so that the dialing side can check the certificate.
func RaftAddress(nodeID, hostport string) raft.ServerAddress {
	return raft.ServerAddress(nodeID + "@" + hostport)
}

// InstanceAddress is RaftAddress with the instance appended: "node1@127.0.0.1:9443#0a1b". Raft
// allows an address only once in a configuration. After a node lost its disk, two instances of it
// share an address for a while. The new instance has lost the log and the votes of the old one, so
// it must not answer for the old one. Therefore a Raft stream names the intended instance.
func InstanceAddress(nodeID, hostport, instance string) raft.ServerAddress {
	return RaftAddress(nodeID, hostport) + raft.ServerAddress("#"+instance)
}

// instanceOf returns the instance in an address, or "".
func instanceOf(addr raft.ServerAddress) string {
	_, instance, _ := strings.Cut(string(addr), "#")
	return instance
}

// SplitAddress splits a RaftAddress or an InstanceAddress. The error wraps ErrBadAddress or
// pki.ErrBadNodeID.
//
// An address may come from another node's log or file, so it is checked as strictly as one that an
// operator types.
func SplitAddress(addr raft.ServerAddress) (nodeID, hostport string, err error) {
	nodeID, hostport, ok := strings.Cut(string(addr), "@")
	if !ok {
		return "", "", fmt.Errorf("%w: missing node (want node@host:port)", ErrBadAddress)
	}
	if at := strings.LastIndexByte(hostport, '#'); at >= 0 {
		if err := pki.CheckNodeID(hostport[at+1:]); err != nil {
			return "", "", fmt.Errorf("%w: instance: %w", ErrBadAddress, err)
		}
		hostport = hostport[:at]
	}
	if err := pki.CheckNodeID(nodeID); err != nil {
		return "", "", err
	}
	if err := checkHostPort(hostport); err != nil {
		return "", "", err
	}
	return nodeID, hostport, nil
}

// checkHostPort returns an error for an address that cannot be dialed. It looks up no name, so it
// does not block. A port of 0 cannot be dialed, although it can be bound.
func checkHostPort(hostport string) error {
	if len(hostport) > maxHostPort {
		return fmt.Errorf("%w: too long (got %d bytes, want at most %d)", ErrBadAddress, len(hostport), maxHostPort)
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil || host == "" {
		return fmt.Errorf("%w: no host or port (got %q, want host:port)", ErrBadAddress, hostport)
	}
	if strings.ContainsAny(host, "@/\\ \t\r\n\x00") {
		return fmt.Errorf("%w: invalid character in host (got %q)", ErrBadAddress, host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%w: invalid port (got %q, want 1 to 65535)", ErrBadAddress, port)
	}
	return nil
}
