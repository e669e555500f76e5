package serve

import (
	"bytes"
	"fmt"
	"net"
	"strings"
)

// The causes for closing a connection before its first request.
const (
	causeSilent    = "no_bytes"  // no byte arrived within readHeaderTimeout
	causeGone      = "closed"    // the peer closed before its first byte, as probes of a TCP port do
	causeHandshake = "handshake" // the TLS handshake failed
	causeProxyV1   = "proxy_v1"
	causeProxyV2   = "proxy_v2"
	causeCleartext = "http2_cleartext"
	causeNotHTTP   = "not_http"
	causeNoTLS     = "tls_not_served"
	causeFrame     = "incomplete_frame" // HTTP/2: a frame or a header did not arrive in time
	causeBlocks    = "header_blocks"    // HTTP/2: incomplete headers use too much memory
)

// openings are the prefixes of protocols that this port does not support.
var openings = []struct {
	bytes, cause, problem string
}{
	{"PROXY ", causeProxyV1, "the PROXY protocol (version 1) is not supported: disable it at the proxy"},
	{"\r\n\r\n\x00\r\nQUIT\n", causeProxyV2,
		"the PROXY protocol (version 2) is not supported: disable it at the proxy"},
	{"PRI * HTTP/2.0\r\n", causeCleartext, "HTTP/2 without TLS is not supported: use https"},
}

// A refusedError is the reason why a connection is closed before its first request.
type refusedError struct {
	cause string
	err   error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// refusedf returns a refusedError. cause is the value of a metric's label, so it must be one of the
// constants above.
func refusedf(cause, format string, args ...any) error {
	return &refusedError{cause, fmt.Errorf(format, args...)}
}

// readOpening reads from c until the bytes show the protocol. It reads at most as many bytes as the
// longest opening has. c.Read returns these bytes again.
func readOpening(c *conn) (isTLS bool, err error) {
	var buf [16]byte
	n := 0
	for {
		more, err := c.Conn.Read(buf[n:])
		n += more
		if n > 0 {
			c.peeked = bytes.Clone(buf[:n])
			isTLS, decided, err := recognize(string(buf[:n]))
			if decided || err != nil {
				return isTLS, err
			}
		}
		if err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				return false, refusedf(causeSilent, "read first bytes: %w", err)
			}
			return false, refusedf(causeGone, "read first bytes: %w", err)
		}
	}
}

// recognize classifies the first bytes of a connection. decided is false if more bytes are needed.
func recognize(first string) (isTLS, decided bool, err error) {
	const handshake = 0x16 // content type of a ClientHello's record (RFC 8446 section 5.1)
	if first[0] == handshake {
		return true, true, nil
	}
	for _, o := range openings {
		if strings.HasPrefix(first, o.bytes) {
			return false, true, refusedf(o.cause, "%s", o.problem)
		}
		if strings.HasPrefix(o.bytes, first) {
			return false, false, nil
		}
	}
	// A method begins with a letter in practice; net/http skips an empty line before it.
	if c := first[0]; c != '\r' && c != '\n' && (c|0x20 < 'a' || c|0x20 > 'z') {
		return false, true, refusedf(causeNotHTTP, "first byte 0x%02x: got neither TLS nor HTTP", c)
	}
	return false, true, nil
}
