package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// preface is what a client says first in HTTP/2 (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// open connects for calls and returns when the peer has accepted.
//
// With TLS 1.3 the one who dials believes the handshake done before the other has looked at its
// certificate. A call sent then is lost, and whoever sent it cannot tell whether it was. So this says
// the first words of HTTP/2 itself and waits for the first byte of the answer: after it, the peer
// has taken the certificate; before it, no call was sent.
func (t *Transport) open(ctx context.Context, hostport, wantNode string) (net.Conn, error) {
	tc, below, err := t.dial(ctx, hostport, wantNode, "", protoHTTP)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = below.Close() })
	defer stop()
	c := &openConn{Conn: tc, said: len(preface)}
	_ = tc.SetDeadline(time.Now().Add(t.cfg.DialTimeout))
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

// An openConn is a connection on which the preface was said and one byte was read already.
// Reads come from one goroutine at a time, and so do writes, as net/http has it.
type openConn struct {
	*tls.Conn
	said   int // bytes of the preface that net/http has yet to say again
	first  [1]byte
	unread bool // first was not read yet
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
	skip := min(c.said, len(p))
	c.said -= skip
	if skip == len(p) {
		return skip, nil
	}
	n, err := c.Conn.Write(p[skip:])
	return n + skip, err
}
