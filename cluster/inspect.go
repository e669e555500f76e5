package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The messages of memberlist that nodes of this program exchange. The program never sends the
// other types: compressed, user and nested compound messages.
const (
	typePing         = 0
	typeIndirectPing = 1
	typeAck          = 2
	typeSuspect      = 3
	typeAlive        = 4
	typeDead         = 5
	typePushPull     = 6
	typeCompound     = 7
	typeCompressed   = 9
	typeNack         = 11
	typeCRC          = 12
	typeError        = 13
)

const (
	crcHeader = 5 // the type and a CRC-32
	versions  = 6 // versions in an alive message; memberlist reads them without a check
	maxStates = 2 * maxPeers
)

// inspectPacket checks the decrypted content of a UDP packet. It returns how many indirect pings
// the packet contains. A packet with more than one request is refused, because one small packet
// would otherwise make this node send many.
func inspectPacket(b []byte) (indirect int, err error) {
	if len(b) > crcHeader && b[0] == typeCRC {
		b = b[crcHeader:]
	}
	parts := [][]byte{b}
	if len(b) > 0 && b[0] == typeCompound {
		if parts, err = compoundParts(b[1:]); err != nil {
			return 0, err
		}
	}
	requests := 0 // messages that memberlist answers or waits for; it sends at most one in a packet
	for _, part := range parts {
		kind, err := inspectMessage(part, typePing, typeIndirectPing, typeAck, typeNack, typeSuspect, typeAlive, typeDead)
		if err != nil {
			return 0, err
		}
		switch kind {
		case typeIndirectPing:
			indirect++
			requests++
		case typePing, typeAck, typeNack:
			requests++
		}
	}
	if requests > 1 {
		return 0, fmt.Errorf("%w: %d requests in one packet", errMalformed, requests)
	}
	return indirect, nil
}

// compoundParts splits a compound message: the number of parts, their lengths, the parts. The
// lengths must fit exactly: memberlist would ignore trailing bytes, which no node sends.
func compoundParts(b []byte) ([][]byte, error) {
	if len(b) == 0 || len(b) < 1+2*int(b[0]) {
		return nil, fmt.Errorf("%w: truncated compound message", errMalformed)
	}
	lengths, b := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	parts := make([][]byte, 0, len(lengths)/2)
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(b) {
			return nil, fmt.Errorf("%w: truncated compound message", errMalformed)
		}
		parts = append(parts, b[:n])
		b = b[n:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: bytes after a compound message", errMalformed)
	}
	return parts, nil
}

// inspectRequest checks the decrypted message that opens a stream.
func inspectRequest(b []byte) error {
	_, err := inspectMessage(b, typePushPull, typePing)
	return err
}

// inspectReply checks the decrypted answer to a stream that this node opened. The answer comes from
// another holder of the key, so it is not trusted more than a request.
func inspectReply(b []byte) error {
	_, err := inspectMessage(b, typePushPull, typeAck, typeError)
	return err
}

// inspectMessage checks that b is one message of an allowed type, and that memberlist can decode it
// with little memory and without a panic.
func inspectMessage(b []byte, allowed ...byte) (kind byte, err error) {
	switch {
	case len(b) == 0:
		return 0, fmt.Errorf("%w: empty", errMalformed)
	case b[0] == typeCompressed:
		return b[0], errCompressed
	case !slices.Contains(allowed, b[0]):
		return b[0], fmt.Errorf("%w (got %d)", errType, b[0])
	}
	kind = b[0]
	fields, rest, err := flatMap(b[1:])
	if err != nil {
		return kind, fmt.Errorf("%w: type %d: %w", errMalformed, kind, err)
	}
	if kind == typePushPull {
		return kind, inspectStates(fields, rest)
	}
	if len(rest) > 0 {
		return kind, fmt.Errorf("%w: %d bytes after type %d", errMalformed, len(rest), kind)
	}
	return kind, checkVersions(fields)
}

// inspectStates checks the list of nodes that follows the header of a push/pull message. memberlist
// allocates memory for the number of nodes that the header announces, so maxStates bounds it.
func inspectStates(header map[string]value, b []byte) error {
	nodes := header["Nodes"].number
	if nodes > maxStates {
		return fmt.Errorf("%w: too many nodes (got %d, want at most %d)", errMalformed, nodes, maxStates)
	}
	for range nodes {
		fields, rest, err := flatMap(b)
		if err != nil {
			return fmt.Errorf("%w: state of a node: %w", errMalformed, err)
		}
		if err := checkVersions(fields); err != nil {
			return err
		}
		b = rest
	}
	if user := header["UserStateLen"].number; user != 0 || len(b) > 0 {
		return fmt.Errorf("%w: user state (got %d bytes announced, %d sent, want none)", errMalformed, user, len(b))
	}
	return nil
}

// checkVersions checks the protocol versions of an alive message. memberlist indexes that field
// without a check of its length, and panics if the field is too short.
func checkVersions(fields map[string]value) error {
	v, ok := fields["Vsn"]
	if n := len(v.text); ok && n != 0 && n != versions || ok && n == 0 && v.number != 0 {
		return fmt.Errorf("%w: versions (got %d bytes, want %d)", errMalformed, n, versions)
	}
	return nil
}
