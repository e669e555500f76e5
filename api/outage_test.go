package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"revoked"
)

// Without a quorum, only callers of /v1 get the names of the missing voters. The log has one line
// in two seconds.
func TestOutage_Answers_NameMissingVoters(t *testing.T) {
	b := newBench(t)
	at := time.Unix(1_790_000_000, 0)
	outage := &revoked.OutageError{Since: at, Voters: 3, Reachable: 1, RetryAfter: 6500 * time.Millisecond,
		Silent: []revoked.SilentVoter{{NodeID: "node1", Since: at}, {NodeID: "node3", Since: at}}}
	b.node.fail = func(method string) error {
		if method == "Register" || method == "Revoke" {
			return fmt.Errorf("propose: %w", outage)
		}
		return nil
	}
	revocation := call{path: pathRevoke, auth: as("c1"), body: "token=AT1"}
	registration := call{path: "/v1/grants", auth: as("iss"), contentType: "application/json",
		body: `{"client_id":"c1","access_token":{"token":"new"}}`}
	for _, tt := range []struct {
		call call
		want string
	}{
		{revocation, `"error":"temporarily_unavailable","error_description":"no leader: 1 of 3 voters reachable, 2 needed"}`},
		{registration, `"title":"no leader","status":503,"detail":"1 of 3 voters reachable, 2 needed; ` +
			`node1 and node3 silent since 2026-09-21T14:13:20Z"}`},
	} {
		w := b.do(tt.call)
		if w.Code != 503 || !strings.Contains(w.Body.String(), tt.want) || w.Header().Get("Retry-After") != "7" {
			t.Errorf("got %d %s, Retry-After %s, want 503 %s, 7", w.Code, w.Body, w.Header().Get("Retry-After"), tt.want)
		}
	}
	lines := func() int { return strings.Count(b.log.String(), `"outcome":"no_leader"`) }
	if n := lines(); n != 1 {
		t.Errorf("log of two requests in one second: got %d lines, want 1:\n%s", n, b.log)
	}
	for range 2 {
		b.now = b.now.Add(time.Second)
		b.do(revocation)
		b.do(revocation)
	}
	if n := lines(); n != 2 || !strings.Contains(b.log.String(), `"suppressed":3`) {
		t.Errorf("log two seconds later: got %d lines, want 2 that count the suppressed ones:\n%s", n, b.log)
	}
	if !strings.Contains(b.log.String(), "node1 and node3 silent since") {
		t.Errorf("log: got %s, want the names of the silent nodes", b.log)
	}
}
