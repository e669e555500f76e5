package client

import (
	"context"
	"net/http"
	"net/url"
)

// An Admission is the body of POST /v1/cluster/admit, and of POST /v1/cluster/join-tokens, where an
// empty Node means any node. TTL is a duration such as "1h"; empty: the server's default.
type Admission struct {
	Node     string `json:"node,omitempty"`
	NonVoter bool   `json:"non_voter,omitempty"`
	TTL      string `json:"ttl,omitempty"`
}

// An AdmittedNode is one node of GET /v1/cluster/admitted.
type AdmittedNode struct {
	Node      string   `json:"node"`
	NonVoter  bool     `json:"non_voter"`
	State     string   `json:"state"`      // admitted, member or barred
	ExpiresAt *float64 `json:"expires_at"` // Unix seconds; nil: does not expire
	By        string   `json:"by"`
}

// AdmittedNodes is the response to GET /v1/cluster/admitted.
type AdmittedNodes struct {
	Nodes []AdmittedNode `json:"nodes"`
}

// A NewJoinToken is the response to POST /v1/cluster/join-tokens, the only one with the token.
type NewJoinToken struct {
	ID        string  `json:"id"`
	Token     string  `json:"token"`
	ExpiresAt float64 `json:"expires_at"` // Unix seconds
}

// A JoinToken is one token of GET /v1/cluster/join-tokens. Times are Unix seconds.
type JoinToken struct {
	ID        string   `json:"id"`
	State     string   `json:"state"` // open, used or expired
	Node      string   `json:"node"`  // empty: any
	NonVoter  bool     `json:"non_voter"`
	CreatedAt float64  `json:"created_at"`
	ExpiresAt float64  `json:"expires_at"`
	By        string   `json:"by"`
	UsedBy    string   `json:"used_by"`
	UsedAt    *float64 `json:"used_at"` // nil: not used
}

// JoinTokens is the response to GET /v1/cluster/join-tokens.
type JoinTokens struct {
	JoinTokens []JoinToken `json:"join_tokens"`
}

// Admit allows a node to join the cluster for a time.
func (c *Client) Admit(ctx context.Context, a Admission) (Answer[Applied], error) {
	return c.change(ctx, "admit "+a.Node, "/v1/cluster/admit", a, func(*request) {})
}

// WithdrawAdmission ends the admission of a node that is not a member.
func (c *Client) WithdrawAdmission(ctx context.Context, node string) (Answer[Applied], error) {
	return call[Applied](ctx, c, request{
		name: "withdraw the admission of " + node, method: http.MethodDelete,
		path: "/v1/cluster/admit/" + url.PathEscape(node),
	})
}

// Admitted lists the nodes that may join, that are members, or that are barred.
func (c *Client) Admitted(ctx context.Context) (Answer[AdmittedNodes], error) {
	return call[AdmittedNodes](ctx, c, get("list the admitted nodes", "/v1/cluster/admitted"))
}

// CreateJoinToken creates a join token. The response contains the token, which the server does not
// keep. The call is not retried: each call creates another token.
func (c *Client) CreateJoinToken(ctx context.Context, a Admission) (Answer[NewJoinToken], error) {
	r, err := jsonRequest("create a join token", http.MethodPost, "/v1/cluster/join-tokens", a)
	if err != nil {
		return Answer[NewJoinToken]{}, err
	}
	r.once = true
	return call[NewJoinToken](ctx, c, r)
}

// JoinTokens lists the join tokens, without the tokens themselves.
func (c *Client) JoinTokens(ctx context.Context) (Answer[JoinTokens], error) {
	return call[JoinTokens](ctx, c, get("list the join tokens", "/v1/cluster/join-tokens"))
}

// DeleteJoinToken deletes a join token.
func (c *Client) DeleteJoinToken(ctx context.Context, id string) (Answer[Applied], error) {
	return call[Applied](ctx, c, request{
		name: "delete join token " + id, method: http.MethodDelete,
		path: "/v1/cluster/join-tokens/" + url.PathEscape(id),
	})
}
