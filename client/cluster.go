package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Members lists the nodes of the cluster (GET /v1/members).
func (c *Client) Members(ctx context.Context) (Answer[Members], error) {
	return call[Members](ctx, c, get("list the members", "/v1/members"))
}

// Status returns the state of the called node (GET /v1/status).
func (c *Client) Status(ctx context.Context) (Answer[Status], error) {
	return call[Status](ctx, c, get("read the status", "/v1/status"))
}

// Join makes the called node join the cluster that it finds at one of the cluster addresses.
func (c *Client) Join(ctx context.Context, addresses []string) (Answer[Applied], error) {
	return c.change(ctx, "join the cluster", "/v1/cluster/join", map[string]any{"addresses": addresses},
		func(r *request) { r.local = true })
}

// Leave makes the called node leave its cluster permanently.
func (c *Client) Leave(ctx context.Context) (Answer[Applied], error) {
	return c.change(ctx, "leave the cluster", "/v1/cluster/leave", struct{}{},
		func(r *request) { r.local = true })
}

// Remove removes a lost node from the cluster.
func (c *Client) Remove(ctx context.Context, r Removal) (Answer[Applied], error) {
	return c.change(ctx, "remove node "+r.Node, "/v1/cluster/remove", r, func(*request) {})
}

// TransferLeader transfers leadership to the node, or to any follower if node is empty. The call is
// not retried: a second transfer would move leadership again.
func (c *Client) TransferLeader(ctx context.Context, node string) (Answer[Applied], error) {
	body := map[string]string{}
	if node != "" {
		body["node"] = node
	}
	a, err := c.change(ctx, "transfer leadership", "/v1/cluster/transfer-leader", body,
		func(r *request) { r.once = true })
	a.Value.Leader = a.Header.Get("Revoked-Leader")
	return a, err
}

// Promote makes a member a voter.
func (c *Client) Promote(ctx context.Context, node string) (Answer[Applied], error) {
	return c.change(ctx, "promote "+node, "/v1/cluster/promote", map[string]string{"node": node}, func(*request) {})
}

// Demote makes a member a non-voter until it is promoted.
func (c *Client) Demote(ctx context.Context, node string) (Answer[Applied], error) {
	return c.change(ctx, "demote "+node, "/v1/cluster/demote", map[string]string{"node": node}, func(*request) {})
}

// change posts body as JSON.
func (c *Client) change(
	ctx context.Context, name, path string, body any, adjust func(*request),
) (Answer[Applied], error) {
	r, err := jsonRequest(name, http.MethodPost, path, body)
	if err != nil {
		return Answer[Applied]{}, err
	}
	adjust(&r)
	return call[Applied](ctx, c, r)
}

// Snapshot starts a backup (GET /v1/snapshot). It returns the stream, which the caller verifies and
// closes, and the node's address. Read does not report that a stream ended early; only
// the verification detects that.
func (c *Client) Snapshot(ctx context.Context) (io.ReadCloser, string, error) {
	r := get("fetch a snapshot", "/v1/snapshot")
	r.accept = "application/octet-stream"
	resp, addr, err := c.open(ctx, r)
	if err != nil {
		return nil, "", err
	}
	return resp.Body, addr, nil
}

// Debug reads a page of the called node that explains its state (GET /v1/debug/...): log, config,
// metrics, goroutines or heap.
func (c *Client) Debug(ctx context.Context, page string) ([]byte, error) {
	r := get("read the "+page, "/v1/debug/"+url.PathEscape(page))
	r.accept, r.local = "*/*", true
	body, _, err := c.do(ctx, r)
	return body, err
}

// Ready queries the readiness of the node at addr through rt, without credentials. If revoke is
// set, the node must also have a leader. If the node is not ready, the error contains its response.
func Ready(ctx context.Context, rt http.RoundTripper, addr string, revoke bool) error {
	target := addr + "/readyz?verbose"
	if revoke {
		target += "&revoke"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("not ready (%d): %s", resp.StatusCode, strings.TrimSpace(string(text)))
	}
	return err
}
