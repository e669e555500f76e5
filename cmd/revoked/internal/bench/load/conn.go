// Package load sends the requests of the benchmark and measures the answers.
//
// Every target of a load gets the same bytes from the same client. At a fixed rate, a late request
// is sent immediately and never dropped. Every wrong answer is counted. The load runs in the
// process of the benchmark and so shares the machine with the servers.
package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// A Target is a server that a client connects to.
type Target struct {
	Addr string // host:port
	TLS  *tls.Config
	Lean bool  // see Conn
	GRPC *Call // nil, or the first call of a connection with gRPC over HTTP/2 without TLS; excludes Lean
}

// A Conn is one HTTP/1.1 connection over TLS. A lean Conn writes requests as bytes, which costs
// less processor time of the machine that the servers share. Any other Conn is a net/http client,
// like that of a resource server in Go. One goroutine may use a Conn.
type Conn struct {
	Target
	tcp     *tls.Conn // set for a lean Conn
	r       *bufio.Reader
	http    *http.Client // set for any other Conn
	state   tls.ConnectionState
	closing bool // the server announced the end of the connection
	out     []byte
	answer  bytes.Buffer
}

// Dial opens the connection with a handshake. A net/http client needs a request for that, which no
// measure counts.
func (t Target) Dial(ctx context.Context) (*Conn, error) {
	c := &Conn{Target: t}
	if t.GRPC != nil {
		c.http = grpcClient()
		return c, c.awaitReady(ctx)
	}
	if t.Lean {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: t.TLS}
		tcp, err := d.DialContext(ctx, "tcp", t.Addr)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", t.Addr, err)
		}
		c.tcp, c.r = tcp.(*tls.Conn), bufio.NewReaderSize(tcp, 8<<10)
		c.state = c.tcp.ConnectionState()
		return c, nil
	}
	c.http = &http.Client{
		Timeout: requestTime,
		Transport: &http.Transport{
			TLSClientConfig: t.TLS, MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	hello, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+t.Addr+"/livez", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(hello)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", t.Addr, err)
	}
	defer resp.Body.Close()
	c.state = *resp.TLS
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return c, err
}

// awaitReady makes the call c.GRPC, which shows that the server answers. It closes c on an error.
func (c *Conn) awaitReady(ctx context.Context) error {
	status, answer, err := c.Do(NewGRPC(c.GRPC.Path), FrameGRPC(nil, c.GRPC.Message))
	if err == nil && status != http.StatusOK {
		err = errors.New(Describe(status, answer))
	}
	if err != nil {
		c.Close()
		return fmt.Errorf("connect to %s: %w", c.Addr, err)
	}
	return ctx.Err()
}

// Do sends a request and returns status and body of the answer. The body is valid until the next
// call.
func (c *Conn) Do(r *Request, body []byte) (int, []byte, error) {
	resp, err := c.send(r, body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if c.GRPC != nil {
		c.answer.Reset()
		if _, err := c.answer.ReadFrom(io.LimitReader(resp.Body, maxAnswer)); err != nil {
			return 0, nil, err
		}
		status, answer := grpcAnswer(resp, c.answer.Bytes())
		return status, answer, nil
	}
	if resp.ContentLength < 0 || resp.ContentLength > maxAnswer {
		return 0, nil, fmt.Errorf("status %d: body without a usable Content-Length", resp.StatusCode)
	}
	c.closing = resp.Close
	c.answer.Reset()
	_, err = c.answer.ReadFrom(resp.Body)
	return resp.StatusCode, c.answer.Bytes(), err
}

func (c *Conn) send(r *Request, body []byte) (*http.Response, error) {
	if c.http != nil {
		scheme := "https"
		if c.GRPC != nil {
			scheme = "http"
		}
		return c.http.Do(&http.Request{
			Method: http.MethodPost, URL: &url.URL{Scheme: scheme, Host: c.Addr, Path: r.path}, Host: r.host, Header: r.header,
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		})
	}
	c.out = strconv.AppendInt(append(c.out[:0], r.head...), int64(len(body)), 10)
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
	if err := c.tcp.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return nil, err
	}
	if _, err := c.tcp.Write(c.out); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, nil)
}

// spent reports whether a new Conn is needed after a call that returned err. A net/http client
// opens a new connection by itself.
func (c *Conn) spent(err error) bool { return c.http == nil && (err != nil || c.closing) }

func (c *Conn) protocolName() string {
	if c.GRPC != nil {
		return "gRPC without TLS"
	}
	return "HTTP/1.1, " + tls.VersionName(c.state.Version) + ", " + tls.CipherSuiteName(c.state.CipherSuite)
}

// Close closes the connection.
func (c *Conn) Close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
		return
	}
	_ = c.tcp.Close()
}
