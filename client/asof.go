package client

import (
	"context"
	"encoding/json"
	"net/url"
)

// A PastAnswer is the response to GET /v1/audit/token. Members that do not apply are zero. Times
// are Unix seconds with a fraction.
type PastAnswer struct {
	Digest string          `json:"digest"`
	At     json.RawMessage `json:"at"`
	State  string          `json:"state"` // active, inactive, unknown or not_held
	Since  json.RawMessage `json:"since"`
	Until  json.RawMessage `json:"until"`
	Reason string          `json:"reason"` // why the token became active or inactive
	Index  uint64          `json:"index"`  // log index of the entry that led to the state
	// AppliedAt is the time by which the leader had applied Index. Before it, any node may have
	// answered from the older state. From AppliedAt to AcknowledgedAt, only the nodes in WaitedFor
	// may still have done so.
	AppliedAt      json.RawMessage `json:"applied_at"`
	AcknowledgedAt json.RawMessage `json:"acknowledged_at"`
	// AcknowledgedBefore is an upper bound. It is set if AcknowledgedAt was not recorded.
	AcknowledgedBefore json.RawMessage `json:"acknowledged_before"`
	WaitedFor          []string        `json:"waited_for"`
}

// AsOf returns whether a token was active at a given time. digest is the base64url form of its
// SHA-256, without padding. at is in Unix seconds or RFC 3339; empty means now.
func (c *Client) AsOf(ctx context.Context, digest, at string) (Answer[PastAnswer], error) {
	values := url.Values{"digest": {digest}}
	if at != "" {
		values.Set("at", at)
	}
	return call[PastAnswer](ctx, c, get("ask about the token", "/v1/audit/token?"+values.Encode()))
}
