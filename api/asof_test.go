package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// past calls GET /v1/audit/token about a token at a given time.
func (b *bench) past(t testing.TB, who, token, at string) (status int, doc map[string]any) {
	t.Helper()
	path := "/v1/audit/token?digest=" + revoked.DigestToken(token).String()
	if at != "" {
		path += "&at=" + url.QueryEscape(at)
	}
	w := b.do(call{method: http.MethodGet, path: path, auth: as(who)})
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("got %d %s: %v", w.Code, w.Body, err)
	}
	return w.Code, doc
}

// Contract 6: the answer in each state has these members, for each caller with the right.
func TestAsOf_EachState_HasItsMembers(t *testing.T) {
	b := newBench(t)
	b.node.applyOps(command.AcknowledgeOp(nil))
	b.registerMore(t, "past", revoked.TokenRegistration{Digest: revoked.DigestToken("PT1"), Kind: revoked.AccessToken,
		IssuedAt: revoked.TimeOf(b.now), ExpiresAt: revoked.TimeOf(b.now.Add(time.Hour))})
	registered := b.node.fsm.Applied()
	began := b.now
	b.now = b.now.Add(10 * time.Second)
	b.revokeRaw(t, "c1", "PT1")
	revokedAt, index := b.now, b.node.fsm.Applied()
	after := func(d time.Duration) revoked.Time { return revoked.TimeOf(revokedAt.Add(d)) }
	b.node.applyOps(command.AcknowledgeOp([]revoked.Acknowledgement{{Index: index,
		AppliedAt: after(2 * time.Millisecond), At: after(5 * time.Millisecond), WaitedFor: []string{"node2", "node3"}}}))
	b.now = b.now.Add(10 * time.Second)
	b.revokeRaw(t, "c1", "never registered")
	tombstone := b.node.fsm.Applied()
	b.now = b.now.Add(10 * time.Second)
	unix := func(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }
	final := map[string]any{"state": "inactive", "reason": "revoked", "since": unix(revokedAt), "index": float64(index),
		"applied_at": unix(revokedAt.Add(2 * time.Millisecond)), "acknowledged_at": unix(revokedAt.Add(5 * time.Millisecond)),
		"waited_for": []any{"node2", "node3"}}
	for _, tt := range []struct {
		name, token, at string
		want            map[string]any // the answer without digest; at is b.now if absent
	}{
		{"before the history", "PT1", "1", map[string]any{"at": 1.0, "state": "not_held"}},
		{"before its registration", "never", fmt.Sprint(began.Unix() + 5),
			map[string]any{"at": unix(began) + 5, "state": "unknown"}},
		{"while it was active, in seconds", "PT1", fmt.Sprintf("%d.5", began.Unix()+5), map[string]any{
			"at": unix(began) + 5.5, "state": "active", "reason": "active", "since": unix(began), "until": unix(revokedAt),
			"index": float64(registered)}},
		{"while it was active, as a date", "PT1", began.Add(5 * time.Second).UTC().Format(time.RFC3339), map[string]any{
			"at": unix(began) + 5, "state": "active", "reason": "active", "since": unix(began), "until": unix(revokedAt),
			"index": float64(registered)}},
		{"now", "PT1", "", final},
		{"revoked without a registration", "never registered", "", map[string]any{"state": "inactive",
			"reason": "denied", "since": unix(revokedAt) + 10, "index": float64(tombstone)}},
	} {
		for _, who := range []string{"admin", "aud"} {
			status, got := b.past(t, who, tt.token, tt.at)
			want := map[string]any{"digest": revoked.DigestToken(tt.token).String(), "at": unix(b.now)}
			for k, v := range tt.want {
				want[k] = v
			}
			if status != http.StatusOK || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, by %s: got %d %v, want 200 %v", tt.name, who, status, got, want)
			}
		}
	}
}

func TestAsOf_MalformedQuery_Gets400(t *testing.T) {
	b := newBench(t)
	good := revoked.DigestToken("PT1").String()
	for query, want := range map[string]int{
		"digest=" + good: 200, "digest=" + good + "&at=": 200, "digest=" + good + fmt.Sprintf("&at=%d", b.now.Unix()): 200,
		"": 400, "digest=": 400, "digest=AT1": 400, "digest=" + good + "=": 400, "digest=" + good[:42] + "%20": 400,
		"digest=" + good + "&digest=" + good: 400,
		"digest=" + good + "&at=yesterday":   400, "digest=" + good + "&at=-5": 400, "digest=" + good + "&at=0": 400,
		"digest=" + good + "&at=1e9": 400, "digest=" + good + "&at=5.": 400, "digest=" + good + "&at=5.1234567": 400,
		"digest=" + good + "&at=99999999999999999999": 400, "digest=" + good + "&at=1960-01-01T00:00:00Z": 400,
		"digest=" + good + fmt.Sprintf("&at=%d", b.now.Unix()+1): 400, // a time in the future
	} {
		w := b.do(call{method: http.MethodGet, path: "/v1/audit/token?" + query, auth: as("admin")})
		if w.Code != want {
			t.Errorf("%q: got %d %s, want %d", query, w.Code, w.Body, want)
		}
	}
}

func TestAsOf_NodeNotCurrent_Gets503(t *testing.T) {
	b := newBench(t)
	b.node.fail = func(method string) error {
		if method == "AsOf" {
			return revoked.ErrNotCurrent
		}
		return nil
	}
	if status, doc := b.past(t, "admin", "PT1", ""); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %v, want 503", status, doc)
	}
}
