package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"

	"revoked"
	"revoked/transport/frames"
)

// ErrNotSent is returned when a call certainly did not reach the peer. The address did not respond,
// the handshake failed, or this node refused to send the call. After any other error except a
// *CallError the outcome is unknown.
var ErrNotSent = frames.ErrNotSent

// CallError is an answer with a status other than 200. It unwraps to the sentinel of its code.
type CallError struct {
	Status  int    // HTTP status
	Code    uint32 // revoked.Code of the peer's error, 0 for none
	Message string // from the peer, at most 4 KiB
}

// Error returns status and message.
func (e *CallError) Error() string {
	return fmt.Sprintf("peer answered %d: %s", e.Status, e.Message)
}

// Unwrap returns the sentinel error, or nil.
func (e *CallError) Unwrap() error { return revoked.FromCode(e.Code) }

// Call posts body to a path of the peer at hostport and returns the body of its answer. The peer's
// certificate must name wantNode; empty accepts any node of the cluster's CA. The error wraps
// ErrTooLarge if the request or the answer has more than Config.MaxBody bytes. The error wraps a
// *CallError if the status is not 200. Call does not follow redirects and never retries a request
// that the peer may have received. It blocks until ctx ends, or until the peer has been silent for
// about Config.Silence.
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

// bindingLabel is the exporter label of a binding (RFC 8446 section 7.5).
const bindingLabel = "EXPORTER-revoked-join-token"

// CallBound is like Call, but uses a new connection. It sends the body that makeBody returns for
// the binding of that connection, see Binding. The error wraps ErrNotSent if the peer does not
// support frames.
func (t *Transport) CallBound(
	ctx context.Context, hostport, wantNode, path string, makeBody func(binding []byte) ([]byte, error),
) ([]byte, error) {
	key := peerKey{wantNode, hostport, false}
	answer, err := t.callBound(ctx, key, path, makeBody)
	if err != nil {
		return nil, fmt.Errorf("call %s%s: %w", hostport, path, err)
	}
	return answer, nil
}

func (t *Transport) callBound(
	ctx context.Context, key peerKey, path string, makeBody func(binding []byte) ([]byte, error),
) ([]byte, error) {
	if _, err := t.peerOf(key, path); err != nil {
		return nil, err
	}
	conn, err := t.peers.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	state := conn.(*abruptConn).ConnectionState()
	binding, err := state.ExportKeyingMaterial(bindingLabel, nil, bindingSize)
	if err == nil {
		var body []byte
		if body, err = makeBody(binding); err == nil {
			client := frames.NewClient(conn, t.peers.limits)
			defer client.Retire()
			a, err := client.Call(ctx, path, body)
			return a.Body, cmp.Or(err, callError(a))
		}
	}
	_ = conn.Close()
	return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
}

// bindingSize is the length of a binding in bytes.
const bindingSize = 32

// Binding returns a secret value of the connection of r, which only its two ends can compute. A
// message that contains the value, or a signature over it, is invalid on any other connection.
func Binding(r *http.Request) ([]byte, error) {
	if r.TLS == nil {
		return nil, errors.New("request did not arrive through a Transport")
	}
	return r.TLS.ExportKeyingMaterial(bindingLabel, nil, bindingSize)
}

// call makes a call over frames, or over HTTP/2 to a peer of version 0.3. It retries only a call
// that certainly was not sent, and at most twice.
func (t *Transport) call(ctx context.Context, hostport, wantNode, path string, body []byte) ([]byte, error) {
	if int64(len(body)) > t.cfg.MaxBody {
		return nil, fmt.Errorf("%w: %w: request (got %d bytes, want at most %d)",
			ErrNotSent, ErrTooLarge, len(body), t.cfg.MaxBody)
	}
	key := peerKey{wantNode, hostport, false}
	p, err := t.peerOf(key, path)
	if err != nil {
		return nil, err
	}
	for tries := 1; ; tries++ {
		client, err := p.line.get(ctx)
		if errors.Is(err, errOlder) {
			return t.callHTTP(ctx, key, path, body)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		a, err := client.Call(ctx, path, body)
		if errors.Is(err, ErrNotSent) && client.Ended() && ctx.Err() == nil && tries < 3 {
			continue // the connection ended before the call: connect again
		}
		return a.Body, cmp.Or(err, callError(a))
	}
}

// peerOf checks the address and the path of a call and returns the peer.
func (t *Transport) peerOf(key peerKey, path string) (*peer, error) {
	err := checkHostPort(key.hostport)
	if err == nil && !strings.HasPrefix(path, "/") {
		err = fmt.Errorf("invalid path (got %q, want a leading /)", path)
	}
	var p *peer
	if err == nil {
		p, err = t.peers.get(key)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	return p, nil
}

// callError returns the *CallError of an answer, or nil for status 200. The message is truncated to
// maxMessage, because it is logged.
func callError(a frames.Answer) error {
	if a.Status == http.StatusOK {
		return nil
	}
	return &CallError{Status: a.Status, Code: a.Code, Message: string(a.Body[:min(len(a.Body), maxMessage)])}
}

// callHTTP makes a call over HTTP/2. It reads at most MaxBody bytes of the answer, even without a
// Content-Length.
func (t *Transport) callHTTP(ctx context.Context, key peerKey, path string, body []byte) ([]byte, error) {
	resp, err := t.post(ctx, key, path, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength > t.cfg.MaxBody {
		return nil, fmt.Errorf("%w: answer (got %d bytes, want at most %d)", ErrTooLarge, resp.ContentLength, t.cfg.MaxBody)
	}
	if resp.ContentLength >= 0 {
		b, err := frames.ReadExactly(resp.Body, int(resp.ContentLength))
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
		return nil, fmt.Errorf("%w: answer (want at most %d bytes)", ErrTooLarge, t.cfg.MaxBody)
	}
	return b, nil
}

// post sends one request over HTTP/2 and returns its answer if the status is 200. size is -1 for a
// streamed body.
//
// post treats a call as sent once net/http has a connection, which is before the first byte is
// sent. So ErrNotSent is never wrong, but a call with an unknown outcome may also not have been
// sent.
func (t *Transport) post(ctx context.Context, key peerKey, path string, body io.Reader,
	size int64) (*http.Response, error) {
	p, err := t.peerOf(key, path)
	if err != nil {
		return nil, err
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
	// An http.Client would follow redirects.
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

// neverOpened reports whether net/http found that a new connection was closed before any request
// was written to it. The library does not export the error; a test fails if its text changes.
// Without this check such a call would count as sent, and its outcome as unknown.
func neverOpened(err error) bool {
	return err.Error() == "http2: client conn could not be established"
}
