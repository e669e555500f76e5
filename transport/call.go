package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"revoked"
)

// ErrNotSent is returned when a call certainly did not reach the peer: nobody answered at the
// address, the handshake failed, or the call was refused here. Any other error than a *CallError
// leaves the outcome unknown.
var ErrNotSent = errors.New("not sent")

// A CallError is an answer other than 200. It unwraps to the sentinel that its code names.
type CallError struct {
	Status  int    // HTTP status
	Code    uint32 // revoked.Code of the peer's error, 0 for none
	Message string // what the peer says; at most 4 KiB
}

// Error returns status and message.
func (e *CallError) Error() string {
	return fmt.Sprintf("peer answered %d: %s", e.Status, e.Message)
}

// Unwrap returns the sentinel, nil for none.
func (e *CallError) Unwrap() error { return revoked.FromCode(e.Code) }

// Call posts body to a path of the peer at hostport and returns the body of its answer. The peer's
// certificate must name wantNode; empty accepts any node of the cluster's CA. Request and answer are
// bounded by Config.MaxBody (ErrTooLarge). An answer other than 200 is a *CallError; redirects are
// not followed; nothing that the peer may have seen is sent again. Only ctx bounds how long the peer
// may take; a peer that falls silent is noticed after about Config.Silence.
func (t *Transport) Call(ctx context.Context, hostport, wantNode, path string, body []byte) ([]byte, error) {
	answer, err := t.call(ctx, hostport, wantNode, path, body)
	result := "ok"
	var refused *CallError
	switch {
	case errors.As(err, &refused):
		result = "refused"
	case errors.Is(err, ErrNotSent):
		result = "not_sent"
	case err != nil:
		result = "unknown"
	}
	t.metrics.calls.WithLabelValues(result).Inc()
	if err != nil {
		return nil, fmt.Errorf("call %s%s: %w", hostport, path, err)
	}
	return answer, nil
}

func (t *Transport) call(ctx context.Context, hostport, wantNode, path string, body []byte) ([]byte, error) {
	if int64(len(body)) > t.cfg.MaxBody {
		return nil, fmt.Errorf("%w: %w: request of %d bytes, at most %d", ErrNotSent, ErrTooLarge, len(body), t.cfg.MaxBody)
	}
	resp, err := t.post(ctx, peerKey{wantNode, hostport, false}, path, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength > t.cfg.MaxBody {
		return nil, fmt.Errorf("%w: answer of %d bytes, at most %d", ErrTooLarge, resp.ContentLength, t.cfg.MaxBody)
	}
	if resp.ContentLength >= 0 {
		b, err := readExactly(resp.Body, int(resp.ContentLength))
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		return b, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, t.cfg.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if int64(len(b)) > t.cfg.MaxBody {
		return nil, fmt.Errorf("%w: answer, at most %d bytes", ErrTooLarge, t.cfg.MaxBody)
	}
	return b, nil
}

// post sends one request and returns its answer if that is 200. size is -1 for a streamed body.
func (t *Transport) post(ctx context.Context, key peerKey, path string, body io.Reader, size int64) (*http.Response, error) {
	if err := checkHostPort(key.hostport); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%w: path %q does not begin with /", ErrNotSent, path)
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+key.hostport+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	p, err := t.peers.get(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	// RoundTrip, not a http.Client: no redirect, no cookie, no second try of our own.
	resp, err := p.http.RoundTrip(req)
	if err != nil {
		if !sent.Load() || neverOpened(err) {
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	message, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	code, _ := strconv.ParseUint(resp.Header.Get(codeHeader), 10, 32)
	return nil, &CallError{Status: resp.StatusCode, Code: uint32(code), Message: string(message)}
}

// neverOpened reports whether net/http found a new connection closed before it wrote the first
// request to it. The error has no name in the library; a test fails should its text change.
func neverOpened(err error) bool {
	return err.Error() == "http2: client conn could not be established"
}

// A peerKey is one pool of connections. Streams have their own, so that what they report does not
// queue behind the body of a large call.
type peerKey struct {
	node, hostport string
	streams        bool
}

// A peer is the connections to one node at one address.
type peer struct {
	http *http.Transport
	used time.Time
}

// peers keeps the pools, at most maxPeers: the one unused for longest goes first.
type peers struct {
	t      *Transport
	mu     sync.Mutex
	kept   map[peerKey]*peer
	closed bool
}

func (p *peers) get(key peerKey) (*peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: transport", revoked.ErrClosed)
	}
	got, ok := p.kept[key]
	if !ok {
		if len(p.kept) >= maxPeers {
			p.evict()
		}
		got = &peer{http: p.t.newClient(key)}
		p.kept[key] = got
	}
	got.used = time.Now()
	return got, nil
}

func (p *peers) evict() {
	var oldest peerKey
	var at time.Time
	for k, v := range p.kept {
		if at.IsZero() || v.used.Before(at) {
			oldest, at = k, v.used
		}
	}
	p.kept[oldest].http.CloseIdleConnections()
	delete(p.kept, oldest)
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for k, v := range p.kept {
		v.http.CloseIdleConnections()
		delete(p.kept, k)
	}
}

func (t *Transport) newClient(key peerKey) *http.Transport {
	// To net/http this is HTTP/2 over plain connections: TLS is below, made by dial, because the
	// connection must be known to be accepted before net/http gets it.
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return t.open(ctx, key.hostport, key.node)
		},
		DisableCompression:     true,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: 1 << 20,
			SendPingTimeout:           t.cfg.Silence / 2,
			PingTimeout:               t.cfg.Silence / 2,
			WriteByteTimeout:          t.cfg.Silence,
		},
	}
}
