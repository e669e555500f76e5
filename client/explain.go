package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// An Explanation is the response to POST /v1/explain. Members that do not apply are zero. Times are
// Unix seconds.
type Explanation struct {
	Active       bool            `json:"active"`
	Reason       string          `json:"reason"` // the rule that decided
	Kind         string          `json:"kind"`   // registered, jwt or unknown
	GrantID      string          `json:"grant_id"`
	ClientID     string          `json:"client_id"`
	Subject      string          `json:"subject"`
	Session      string          `json:"session"`
	Issuer       string          `json:"issuer"`
	JTI          string          `json:"jti"`
	IssuedAt     json.RawMessage `json:"issued_at"`
	ExpiresAt    json.RawMessage `json:"expires_at"`
	Audience     []string        `json:"audience"`
	Scope        string          `json:"scope"`
	Revoked      *Ending         `json:"revoked"` // nil: not known
	Cutoff       *CutoffEnding   `json:"cutoff"`  // nil: not known
	IssuerReason string          `json:"issuer_reason"`
	Node         string          `json:"node"`
	AppliedIndex uint64          `json:"applied_index"`
	LeaseLeftMS  int64           `json:"lease_left_ms"`
}

// An Ending is the revocation, denial or tombstone that ended a token.
type Ending struct {
	At     int64  `json:"at"` // Unix seconds
	By     string `json:"by"`
	Reason string `json:"reason"`
	Index  uint64 `json:"index"`
}

// A CutoffEnding is a cut-off that covers a token.
type CutoffEnding struct {
	Ending
	Selector     json.RawMessage `json:"selector"`
	Withheld     bool            `json:"withheld"`      // Selector lacks conditions that only administrators see
	IssuedBefore int64           `json:"issued_before"` // Unix seconds
}

// Explain returns why a token is active or inactive for the client whose id is the argument as
// (POST /v1/explain). If as is empty, the explanation is for a caller that may see every token.
// Only administrators learn the subject and the session.
func (c *Client) Explain(ctx context.Context, token, as string) (Answer[Explanation], error) {
	body := map[string]string{"token": token}
	if as != "" {
		body["as"] = as
	}
	r, err := jsonRequest("explain the token", http.MethodPost, "/v1/explain", body)
	if err != nil {
		return Answer[Explanation]{}, err
	}
	return call[Explanation](ctx, c, r)
}

// A GrantQuery selects grants. At least one of the first four fields must be set; all that are set
// must match.
type GrantQuery struct {
	ClientID, Subject, Session, Issuer string
	State                              string // active, revoked or expired; empty: any
	After                              string // Next of the page before
	Limit                              int    // 1 to 1000; 0: 100
}

// A GrantPage is the response to GET /v1/grants. A page may have fewer grants than the limit, or
// none, although more follow.
type GrantPage struct {
	Grants []Grant `json:"grants"`
	Next   string  `json:"next"` // empty: the last page
}

// A Grant is one grant of a list. Times are Unix seconds.
type Grant struct {
	GrantID    string          `json:"grant_id"`
	State      string          `json:"state"`
	ClientID   string          `json:"client_id"`
	Subject    string          `json:"subject"`
	Session    string          `json:"session"`
	Issuer     string          `json:"issuer"`
	CreatedAt  json.RawMessage `json:"created_at"`
	ExpiresAt  json.RawMessage `json:"expires_at"` // null: never
	TokenCount int             `json:"token_count"`
	Revoked    *Ending         `json:"revoked"`
}

// Grants returns one page of the grants that match.
func (c *Client) Grants(ctx context.Context, q GrantQuery) (Answer[GrantPage], error) {
	values := url.Values{}
	for name, value := range map[string]string{"client_id": q.ClientID, "subject": q.Subject, "session": q.Session,
		"issuer": q.Issuer, "state": q.State, "after": q.After} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[GrantPage](ctx, c, get("list the grants", "/v1/grants?"+values.Encode()))
}
