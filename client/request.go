package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer bounds a response that is read into memory, in bytes.
const maxAnswer = 64 << 20

// A request is one API call.
type request struct {
	name        string // name of the call in errors: "list the members"
	method      string
	path        string
	contentType string
	body        []byte
	form        url.Values // instead of body: parameters of an OAuth endpoint
	stream      io.Reader  // instead of body; sent once, to the first node that connects
	accept      string     // empty: JSON
	local       bool       // acts on the called node
	once        bool       // must not be retried after it was sent
}

func get(name, path string) request { return request{name: name, method: http.MethodGet, path: path} }

// jsonRequest returns a request with v as its JSON body.
func jsonRequest(name, method, path string, v any) (request, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return request{}, fmt.Errorf("%s: %w", name, err)
	}
	return request{name: name, method: method, path: path, contentType: "application/json", body: b}, nil
}

// formRequest returns a request of an OAuth endpoint.
func formRequest(name, path string, form url.Values) request {
	return request{
		name: name, method: http.MethodPost, path: path, contentType: "application/x-www-form-urlencoded", form: form,
	}
}

// isQuick reports whether a node can answer immediately. A backup takes longer.
func (r request) isQuick() bool { return r.method == http.MethodGet && r.accept == "" }

// An Answer is a parsed response: its value, its body and its header.
type Answer[T any] struct {
	Value  T
	Body   []byte
	Header http.Header
}

// call sends r and parses the response as a T.
func call[T any](ctx context.Context, c *Client, r request) (Answer[T], error) {
	var a Answer[T]
	body, header, err := c.do(ctx, r)
	if err != nil {
		return a, err
	}
	a.Body, a.Header = body, header
	if err := json.Unmarshal(body, &a.Value); err != nil {
		return a, fmt.Errorf("%s: %w", r.name, ErrAnswer)
	}
	return a, nil
}

// do sends r and returns body and header of the response.
func (c *Client) do(ctx context.Context, r request) ([]byte, http.Header, error) {
	limit := fmt.Errorf("%w within %v", ErrTimeout, c.cfg.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, limit)
	defer cancel()
	resp, addr, err := c.open(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s at %s: read answer: %w", r.name, addr, cause(ctx, err))
	}
	if len(b) > maxAnswer {
		return nil, nil, fmt.Errorf("%s at %s: answer too long (want at most %d bytes)", r.name, addr, maxAnswer)
	}
	return b, resp.Header, nil
}

// open sends r to the nodes in turn. It returns the first answer, whose body the caller closes, and
// the node's address. Errors of several nodes are joined.
func (c *Client) open(ctx context.Context, r request) (*http.Response, string, error) {
	if r.local && len(c.cfg.Addrs) > 1 {
		return nil, "", fmt.Errorf("%s: %w", r.name, ErrOneNode)
	}
	var failures []error
	for i, addr := range c.cfg.Addrs {
		resp, sent, err := c.try(ctx, r, addr, i == len(c.cfg.Addrs)-1)
		if err == nil {
			return resp, addr, nil
		}
		failures = append(failures, err)
		if !mayTryNext(ctx, r, sent, err) {
			break
		}
	}
	return nil, "", errors.Join(failures...)
}

// mayTryNext reports whether r may be sent to another node after err. sent is false if no byte of
// the request can have been sent.
func mayTryNext(ctx context.Context, r request, sent bool, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if !sent {
		return true
	}
	if r.once || r.stream != nil {
		return false
	}
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status == http.StatusServiceUnavailable
	}
	return true // the connection broke, and r is idempotent
}

// try sends r to one node. A stopped process accepts connections and never serves them. So each
// node except the last has only its share of the timeout: to connect and, if the request is quick,
// to begin its response. A change that was sent may take as long as a lease, so try waits for it.
func (c *Client) try(ctx context.Context, r request, addr string, last bool) (*http.Response, bool, error) {
	stopTimer := func() bool { return true }
	if !last {
		share := min(maxConnect, c.cfg.Timeout/time.Duration(len(c.cfg.Addrs)))
		limited, giveUp := context.WithCancelCause(ctx) // lives as long as the body; ends with ctx
		stopTimer = time.AfterFunc(share, func() { giveUp(fmt.Errorf("%w within %v", ErrTimeout, share)) }).Stop
		ctx = limited
	}
	assertion, err := c.assertion(ctx, addr)
	if err != nil {
		stopTimer()
		return nil, false, fmt.Errorf("%s: %w", r.name, err)
	}
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		connected.Store(true)
		if !r.isQuick() {
			stopTimer()
		}
	}})
	resp, err := c.send(traced, r, addr, assertion)
	stopTimer()
	return resp, connected.Load(), err
}

// send sends r to one node. assertion, if it is not empty, authenticates the client.
func (c *Client) send(ctx context.Context, r request, addr, assertion string) (*http.Response, error) {
	body := r.stream
	switch {
	case r.form != nil:
		body = strings.NewReader(c.parameters(r.form, assertion))
	case body == nil && r.body != nil:
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, addr+r.path, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	req.Header.Set("Accept", cmp.Or(r.accept, "application/json"))
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	switch {
	case c.cfg.ID == "":
	case c.cfg.Secret != "":
		// RFC 6749 section 2.3.1: id and secret are form-encoded first.
		req.SetBasicAuth(url.QueryEscape(c.cfg.ID), url.QueryEscape(c.cfg.Secret))
	case r.form != nil: // the form has the credentials
	case assertion != "":
		req.Header.Set("Authorization", "Bearer "+assertion)
	default:
		req.Header.Set("Revoked-Client-Id", c.cfg.ID)
	}
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", r.name, addr, cause(ctx, withoutURL(err)))
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		c.asserter.forget(addr)
	}
	return nil, readStatusError(r.name, addr, resp)
}

// parameters returns the body of a form. If the client has no secret, an assertion authenticates it
// (RFC 7523 section 2.2), or its certificate. In the second case, the form names the client (RFC
// 8705 section 2).
func (c *Client) parameters(form url.Values, assertion string) string {
	form = maps.Clone(form)
	switch {
	case c.cfg.ID == "" || c.cfg.Secret != "":
	case assertion != "":
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	default:
		form.Set("client_id", c.cfg.ID)
	}
	return form.Encode()
}

// withoutURL returns the cause of an error of an HTTP client, without method and URL. The caller
// adds its own text for these.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// cause returns the cause that ended ctx, or err if ctx has not ended.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
