package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer bounds an answer that is read into memory.
const maxAnswer = 64 << 20

// An apiClient calls the API of the nodes. It tries the next node where one cannot be reached in time or
// answers 503.
type apiClient struct {
	addrs    []string // https URLs without a trailing slash; at least one
	id       string
	secret   string
	asJSON   bool
	timeout  time.Duration
	customCA bool
	http     *http.Client
}

// A call is one request to the API.
type call struct {
	what        string // what is done, for messages: "list the members"
	method      string
	path        string
	contentType string
	body        []byte
	stream      io.Reader // instead of body: sent once, to the first node that takes the connection
	accept      string
	// local calls act on the node that is asked: they go to one address only.
	local bool
	// once is set where doing it twice does harm: after a request has been sent no other node is tried.
	once bool
}

// jsonCall returns a call with a JSON body; nil sends none.
func jsonCall(what, method, path string, body any) (call, error) {
	c := call{what: what, method: method, path: path}
	if body == nil {
		return c, nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		return call{}, fmt.Errorf("%s: %w", what, err)
	}
	c.contentType, c.body = "application/json", b
	return c, nil
}

// do sends c and returns the body of the answer of the first node that gives one. Answers other than
// 2xx are an [*apiError].
func (a *apiClient) do(ctx context.Context, c call) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, fmt.Errorf("no answer within %v (--timeout)", a.timeout))
	defer cancel()
	resp, addr, err := a.open(ctx, c)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s at %s: read the answer: %w", c.what, addr, cause(ctx, err))
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("%s at %s: the answer %w: more than %d bytes", c.what, addr, errTooLong, maxAnswer)
	}
	return b, nil
}

// open sends c and returns the answer, whose body the caller reads and closes, and the address that
// gave it.
func (a *apiClient) open(ctx context.Context, c call) (*http.Response, string, error) {
	if c.local && len(a.addrs) > 1 {
		return nil, "", usageError("%s acts on the node that is asked: REVOKED_ADDR (or --addr) must name exactly one", c.what)
	}
	var failures []error
	for i, addr := range a.addrs {
		resp, sent, err := a.try(ctx, c, addr, i == len(a.addrs)-1)
		if err == nil {
			return resp, addr, nil
		}
		failures = append(failures, err)
		if !mayTryNext(ctx, c, sent, err) {
			break
		}
	}
	return nil, "", errors.Join(failures...)
}

// mayTryNext reports whether another node may be asked after err. sent is false where no byte of the
// request can have left.
func mayTryNext(ctx context.Context, c call, sent bool, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if !sent {
		return true
	}
	if c.once || c.stream != nil {
		return false
	}
	var refused *apiError
	if errors.As(err, &refused) {
		return refused.status == http.StatusServiceUnavailable
	}
	return true // the connection broke: every call that is not once may be repeated safely
}

// connectTime is the longest wait for a connection.
const connectTime = 5 * time.Second

// try sends c to one node. A node that is stopped takes connections and never serves them: unless it is
// the last, it gets only its share of the time, to be connected to and, where it is asked for something
// that it has at hand, to begin its answer. A change that was sent is waited for: it may take as long as a lease.
func (a *apiClient) try(ctx context.Context, c call, addr string, last bool) (resp *http.Response, sent bool, err error) {
	stopWatch := func() bool { return true }
	if !last {
		share := min(connectTime, a.timeout/time.Duration(len(a.addrs)))
		limited, giveUp := context.WithCancelCause(ctx) // lives on with the body; ends with ctx
		stopWatch = time.AfterFunc(share, func() { giveUp(fmt.Errorf("no answer within %v (its share of --timeout)", share)) }).Stop
		ctx = limited
	}
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		connected.Store(true)
		if !c.atHand() {
			stopWatch()
		}
	}})
	resp, err = a.send(traced, c, addr)
	stopWatch()
	return resp, connected.Load(), err
}

// atHand reports whether a node answers c from what it has.
func (c call) atHand() bool {
	return c.method == http.MethodGet && c.accept == "" // a backup is made first, which takes its time
}

// send sends c to one node.
func (a *apiClient) send(ctx context.Context, c call, addr string) (*http.Response, error) {
	body := c.stream
	if body == nil && c.body != nil {
		body = bytes.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, addr+c.path, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.what, err)
	}
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	req.Header.Set("Accept", first(c.accept, "application/json"))
	req.Header.Set("User-Agent", "revoked-cli")
	if a.id != "" {
		// RFC 6749 section 2.3.1: both are form-encoded first.
		req.SetBasicAuth(url.QueryEscape(a.id), url.QueryEscape(a.secret))
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, a.explain(ctx, c, addr, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readRefusal(c, addr, resp)
}

// explain says what failed at which address, and what to do about it.
func (a *apiClient) explain(ctx context.Context, c call, addr string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the method and the URL are told in our own words
	}
	err = cause(ctx, err)
	hint := ""
	var unknownCA x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var notTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &unknownCA) && !a.customCA:
		hint = "; name the cluster's CA with REVOKED_CACERT or --cacert"
	case errors.As(err, &unknownCA):
		hint = "; REVOKED_CACERT (or --cacert) names another CA than the one that signed this node's certificate"
	case errors.As(err, &wrongName):
		hint = "; use a name or address that the node's certificate holds"
	case errors.As(err, &notTLS):
		hint = "; there is no TLS at this port: is it the API's?"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(err.Error(), "certificate required"):
		hint = "; this looks like a cluster port: REVOKED_ADDR or --addr names the API address"
	case errors.As(err, &op) && op.Op == "dial":
		hint = "; does the node run? REVOKED_ADDR or --addr names the API address"
	}
	return fmt.Errorf("%s at %s: %w%s", c.what, addr, err, hint)
}

// cause returns the cause that ended ctx, where it did.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// An apiError is an answer other than 2xx.
type apiError struct {
	what   string
	addr   string
	status int
	code   string // OAuth error code or title of the problem
	detail string
}

func (e *apiError) Error() string {
	msg := fmt.Sprintf("%s at %s: %d", e.what, e.addr, e.status)
	if e.code != "" {
		msg += " " + e.code
	}
	if e.detail != "" {
		msg += ": " + e.detail
	}
	switch e.status {
	case http.StatusUnauthorized:
		msg += "; check REVOKED_CLIENT_ID and REVOKED_CLIENT_SECRET (or REVOKED_CLIENT_SECRET_FILE)"
	case http.StatusForbidden:
		msg += "; this client lacks the role for it"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		msg += "; try again"
	}
	return msg
}

// readRefusal reads the body of an answer other than 2xx: RFC 6749 section 5.2, or RFC 9457.
func readRefusal(c call, addr string, resp *http.Response) error {
	e := &apiError{what: c.what, addr: addr, status: resp.StatusCode, code: http.StatusText(resp.StatusCode)}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || (kind != "application/json" && kind != "application/problem+json") {
		return e // a proxy's page says nothing that belongs here
	}
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Title       string `json:"title"`
		Detail      string `json:"detail"`
	}
	if json.Unmarshal(b, &body) != nil {
		return e
	}
	e.code = printable(first(body.Error, body.Title, e.code))
	e.detail = unrepeated(e.code, printable(first(body.Description, body.Detail)))
	return e
}

// unrepeated returns detail without a beginning that only says code again: the title of a problem is often the
// text of the error that its detail begins with.
func unrepeated(code, detail string) string {
	if strings.EqualFold(detail, code) {
		return ""
	}
	if n := len(code); len(detail) > n+2 && strings.EqualFold(detail[:n+2], code+": ") {
		return detail[n+2:]
	}
	return detail
}

// printable returns s, shortened, with what could move a terminal's cursor replaced.
func printable(s string) string {
	const limit = 1000
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
