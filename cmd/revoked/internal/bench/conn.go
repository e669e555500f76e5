package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// requestTime limits one request.
const requestTime = 30 * time.Second

// maxAnswer limits the body of an answer, in bytes.
const maxAnswer = 1 << 20

// A request is a POST with any body. Baseline and subject get the same bytes.
type request struct {
	path, host string
	header     http.Header
	head       string // lean conn: everything before the length of the body
}

func newRequest(path, host, basic, contentType string) *request {
	return &request{
		path: path, host: host,
		header: http.Header{"Authorization": {"Basic " + basic}, "Content-Type": {contentType}},
		head: fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\nContent-Type: %s\r\nContent-Length: ",
			path, host, basic, contentType),
	}
}

// A target is a server that a client connects to.
type target struct {
	addr string // host:port
	tls  *tls.Config
	lean bool // see conn
	grpc bool // HTTP/2 without TLS, and gRPC; excludes lean
}

// A conn is one HTTP/1.1 connection over TLS. A lean conn writes requests as bytes, because the
// load shares the machine. Any other conn is a net/http client, like that of a resource server in
// Go. One goroutine may use a conn.
type conn struct {
	target
	tcp     *tls.Conn // set for a lean conn
	r       *bufio.Reader
	http    *http.Client // set for any other conn
	state   tls.ConnectionState
	closing bool // the server announced the end of the connection
	out     []byte
	answer  bytes.Buffer
}

// dial opens the connection with a handshake. A net/http client needs a request for that, which no
// measure counts.
func (t target) dial(ctx context.Context) (*conn, error) {
	c := &conn{target: t}
	if t.grpc {
		return c, c.dialGRPC(ctx)
	}
	if t.lean {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: t.tls}
		tcp, err := d.DialContext(ctx, "tcp", t.addr)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", t.addr, err)
		}
		c.tcp, c.r = tcp.(*tls.Conn), bufio.NewReaderSize(tcp, 8<<10)
		c.state = c.tcp.ConnectionState()
		return c, nil
	}
	c.http = &http.Client{
		Timeout: requestTime,
		Transport: &http.Transport{
			TLSClientConfig: t.tls, MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	hello, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+t.addr+"/livez", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(hello)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("connect to %s: %w", t.addr, err)
	}
	defer resp.Body.Close()
	c.state = *resp.TLS
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return c, err
}

// do sends a request and returns status and body of the answer. The body is valid until the next
// call.
func (c *conn) do(r *request, body []byte) (int, []byte, error) {
	resp, err := c.send(r, body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if c.grpc {
		return c.readGRPC(resp)
	}
	if resp.ContentLength < 0 || resp.ContentLength > maxAnswer {
		return 0, nil, fmt.Errorf("status %d: body without a usable Content-Length", resp.StatusCode)
	}
	c.closing = resp.Close
	c.answer.Reset()
	_, err = c.answer.ReadFrom(resp.Body)
	return resp.StatusCode, c.answer.Bytes(), err
}

func (c *conn) send(r *request, body []byte) (*http.Response, error) {
	if c.http != nil {
		scheme := "https"
		if c.grpc {
			scheme = "http"
		}
		return c.http.Do(&http.Request{
			Method: http.MethodPost, URL: &url.URL{Scheme: scheme, Host: c.addr, Path: r.path}, Host: r.host, Header: r.header,
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

// spent reports whether a new conn is needed after a call that returned err. A net/http client
// opens a new connection by itself.
func (c *conn) spent(err error) bool { return c.http == nil && (err != nil || c.closing) }

func (c *conn) protocol() string {
	if c.grpc {
		return "gRPC without TLS"
	}
	return "HTTP/1.1, " + tls.VersionName(c.state.Version) + ", " + tls.CipherSuiteName(c.state.CipherSuite)
}

func (c *conn) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
		return
	}
	_ = c.tcp.Close()
}
