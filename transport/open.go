package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// preface is the beginning of the HTTP/2 client preface (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// open uses dial to connect to a peer of version 0.3, for calls over HTTP/2. It then waits for at
// most timeout until the peer has accepted the connection.
//
// With TLS 1.3 the dialing side completes its handshake before the peer has verified its
// certificate. A call sent before that verification may be lost, and its outcome is unknown. So
// open sends the HTTP/2 preface itself and waits for the first byte of the response, which shows
// that the peer has accepted the certificate. If open fails, no call was sent.
func open(ctx context.Context, dial dialFunc, hostport, wantNode string, timeout time.Duration) (net.Conn, error) {
	tc, below, err := dial(ctx, hostport, wantNode, "", protoHTTP)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = below.Close() })
	defer stop()
	c := &openConn{Conn: tc, resend: len(preface)}
	_ = tc.SetDeadline(time.Now().Add(timeout))
	if _, err = tc.Write([]byte(preface)); err == nil {
		_, err = tc.Read(c.first[:])
	}
	if err != nil {
		_ = below.Close()
		return nil, fmt.Errorf("%s did not accept this node: %w", hostport, err)
	}
	_ = tc.SetDeadline(time.Time{})
	c.unread = true
	return c, nil
}

// openConn is a connection on which open has already sent the preface and read one byte. One
// goroutine at a time may read, and one may write. net/http writes the preface again, and Write
// drops it. The first Read returns the byte that open has read.
type openConn struct {
	*tls.Conn
	resend int // number of bytes of the preface that net/http has yet to write
	first  [1]byte
	unread bool // whether net/http has yet to read first
}

func (c *openConn) Read(p []byte) (int, error) {
	if c.unread && len(p) > 0 {
		c.unread = false
		p[0] = c.first[0]
		return 1, nil
	}
	return c.Conn.Read(p)
}

func (c *openConn) Write(p []byte) (int, error) {
	skip := min(c.resend, len(p))
	c.resend -= skip
	if skip == len(p) {
		return skip, nil
	}
	n, err := c.Conn.Write(p[skip:])
	return n + skip, err
}
