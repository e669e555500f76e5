package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// A rawConn is one HTTP/1.1 connection over TLS that sends requests as bytes. It costs a fraction of
// net/http's client, so that the load generator, which shares the machine, weighs little; subject and
// baseline are driven by one and the same.
type rawConn struct {
	conn *tls.Conn
	r    *bufio.Reader
	body []byte
	// closing is set when the server said that this answer is the connection's last.
	closing bool
}

// rawTimeout is how long one request may take.
const rawTimeout = 30 * time.Second

func dialRaw(ctx context.Context, addr string, cfg *tls.Config) (*rawConn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: cfg}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &rawConn{conn: c.(*tls.Conn), r: bufio.NewReaderSize(c, 8<<10)}, nil
}

func (c *rawConn) close() { c.conn.Close() }

// spent reports whether the connection takes no further request after err.
func (c *rawConn) spent(err error) bool { return err != nil || c.closing }

// agreed returns what the handshake agreed on.
func (c *rawConn) agreed() (version, suite uint16) {
	s := c.conn.ConnectionState()
	return s.Version, s.CipherSuite
}

// do sends request and returns status and body of the answer. The body is good until the next call.
func (c *rawConn) do(request []byte) (int, []byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(rawTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	return c.answer()
}

var (
	headerLength = []byte("content-length:")
	headerClose  = []byte("connection: close")
)

// maxRawAnswer bounds the body of an answer in a measurement.
const maxRawAnswer = 1 << 20

// answer reads one answer that has a Content-Length.
func (c *rawConn) answer() (int, []byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, errors.New("not an HTTP/1.1 answer")
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, nil, errors.New("not an HTTP/1.1 status")
	}
	length := -1
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if hasPrefixFold(line, headerLength) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(headerLength):]))); err != nil {
				return 0, nil, fmt.Errorf("Content-Length: %w", err)
			}
		}
		if bytes.EqualFold(line, headerClose) {
			c.closing = true
		}
	}
	if length < 0 || length > maxRawAnswer {
		return 0, nil, fmt.Errorf("status %d with a body of no usable Content-Length", status)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.r, c.body)
	return status, c.body, err
}

func hasPrefixFold(line, prefix []byte) bool {
	return len(line) >= len(prefix) && bytes.EqualFold(line[:len(prefix)], prefix)
}

// A requestTemplate is the bytes of a request with a place for a token's number.
type requestTemplate struct {
	bytes []byte
	body  int // where the body begins
	slot  int // where the digits go
}

// formTemplate returns a POST with Basic authentication whose form holds one token, number left open.
func formTemplate(path, host, basic, tokenPrefix string) requestTemplate {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\ntoken=%s",
		path, host, basic, len("token=")+len(tokenPrefix)+tokenDigits, tokenPrefix)
	return requestTemplate{
		bytes: append([]byte(head), bytes.Repeat([]byte{'0'}, tokenDigits)...),
		body:  len(head) - len("token=") - len(tokenPrefix),
		slot:  len(head),
	}
}

// copy returns a template for one connection to change.
func (t requestTemplate) copy() requestTemplate {
	t.bytes = bytes.Clone(t.bytes)
	return t
}

// number puts n into the template and returns its bytes, good until the next call.
func (t requestTemplate) number(n uint64) []byte {
	putDigits(t.bytes[t.slot:t.slot+tokenDigits], n)
	return t.bytes
}

// tokenDigits is how many digits of a token's text are its number.
const tokenDigits = 10

func putDigits(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}
