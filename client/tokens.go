package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Revoke revokes a token and its whole grant (RFC 7009). On return of a nil error no node answers
// "active" for a token of the grant. hint may be empty.
func (c *Client) Revoke(ctx context.Context, token, hint string) (Answer[Revocation], error) {
	a, err := call[Revocation](ctx, c, formRequest("revoke the token", "/oauth2/revoke", tokenForm(token, hint)))
	a.Value.Outcome = a.Header.Get("Revoked-Outcome")
	return a, err
}

// Introspect introspects a token (RFC 7662). hint may be empty.
func (c *Client) Introspect(ctx context.Context, token, hint string) (Answer[Introspection], error) {
	return call[Introspection](ctx, c,
		formRequest("introspect the token", "/oauth2/introspect", tokenForm(token, hint)))
}

func tokenForm(token, hint string) url.Values {
	form := url.Values{"token": {token}}
	if hint != "" {
		form.Set("token_type_hint", hint)
	}
	return form
}

// Register registers the tokens of one grant (POST /v1/grants). body is a [Registration], or JSON
// as a [json.RawMessage]. It is idempotent: known tokens stay in their grant.
func (c *Client) Register(ctx context.Context, body any) (Answer[Registered], error) {
	r, err := jsonRequest("register the tokens", http.MethodPost, "/v1/grants", body)
	if raw, ok := body.(json.RawMessage); ok {
		r.body = raw // unchanged, with its white space
	}
	if err != nil {
		return Answer[Registered]{}, err
	}
	return call[Registered](ctx, c, r)
}

// RegisterStream registers many grants: lines has one JSON body per line. It calls result for each
// line of the response, with its bytes, and stops at the first error that result returns. There is
// no timeout. The response starts while lines is still being sent. With onlyErrors, the response
// has only failures and a summary. If the summary is missing, the response ended early.
func (c *Client) RegisterStream(
	ctx context.Context, lines io.Reader, onlyErrors bool, result func(RegisterLine, []byte) error,
) error {
	return streamLines(ctx, c, "register the tokens", "/v1/grants", lines, onlyErrors,
		func(l *RegisterLine) { l.Detail = trimCode(l.Error, l.Detail) }, result)
}

// RevokeJTIs imports a deny list (POST /v1/revocations): lines has one JSON body of a
// [JTIRevocation] per line. It calls result as RegisterStream does.
func (c *Client) RevokeJTIs(
	ctx context.Context, lines io.Reader, onlyErrors bool, result func(RevokeLine, []byte) error,
) error {
	return streamLines(ctx, c, "revoke the tokens", "/v1/revocations", lines, onlyErrors,
		func(l *RevokeLine) { l.Detail = trimCode(l.Error, l.Detail) }, result)
}

// streamLines posts lines and calls result for each line of the response, once trim has changed it.
func streamLines[T any](
	ctx context.Context, c *Client, name, path string, lines io.Reader, onlyErrors bool,
	trim func(*T), result func(T, []byte) error,
) error {
	const ndjson = "application/x-ndjson"
	ctx, cancel := context.WithCancel(ctx) // ends the request if result fails
	defer cancel()
	r := request{
		name: name, method: http.MethodPost, path: path,
		contentType: ndjson, accept: ndjson, stream: onlyReader{lines},
	}
	if onlyErrors {
		r.path += "?results=errors"
	}
	resp, addr, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := readLines(resp.Body, trim, result); err != nil {
		return fmt.Errorf("%s at %s: %w", r.name, addr, err)
	}
	return nil
}

func readLines[T any](body io.Reader, trim func(*T), result func(T, []byte) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var l T
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			return ErrAnswer
		}
		trim(&l)
		if err := result(l, lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// onlyReader hides Close, which the HTTP transport would call on the caller's reader.
type onlyReader struct{ io.Reader }

// RevokeAll creates a cut-off (POST /v1/revocations).
func (c *Client) RevokeAll(ctx context.Context, cut Cutoff) (Answer[CutoffResult], error) {
	r, err := jsonRequest("revoke all that match", http.MethodPost, "/v1/revocations", cut)
	if err != nil {
		return Answer[CutoffResult]{}, err
	}
	// After the cut-off nothing matches, so a retry would fail the expectation.
	r.once = cut.Expect != nil
	return call[CutoffResult](ctx, c, r)
}
