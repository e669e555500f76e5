package clientauth

import (
	"fmt"
	"testing"
	"time"

	"revoked"
)

func verified(client, jti string, expires time.Time) *revoked.VerifiedAssertion {
	return &revoked.VerifiedAssertion{Key: revoked.AssertionKey(client, jti), ExpiresAt: revoked.TimeOf(expires)}
}

// A node at a bound refuses new assertions. It does not forget an assertion that could be replayed,
// and a client cannot take the share of other clients.
func TestReplays_Flood_KeepsUnexpiredAssertions(t *testing.T) {
	r := newReplays()
	r.limit, r.share = 6, 4
	now := time.Unix(1_790_000_000, 0)
	first, expires := NewPresented(), now.Add(time.Minute)
	if !r.begin("a", verified("a", "0", expires), first, now) || r.isFull(first) {
		t.Fatal("first: got a refusal")
	}
	for i := range 20 {
		p := NewPresented()
		if ok := r.begin("a", verified("a", fmt.Sprint(i), expires), p, now); ok != (i > 0) {
			t.Errorf("assertion %d: got %v", i, ok)
		}
		if full := r.isFull(p); full != (i >= 4) {
			t.Errorf("assertion %d: got full %v", i, full)
		}
	}
	for i, want := range []bool{false, false, true} {
		p := NewPresented()
		if !r.begin("b", verified("b", fmt.Sprint(i), expires), p, now) || r.isFull(p) != want {
			t.Errorf("assertion %d of another client: got full %v, want %v", i, !want, want)
		}
	}
	for at, want := range map[time.Duration]bool{time.Minute + revoked.MaxAssertionSkew: false, 8 * time.Minute: true} {
		if got := r.begin("a", verified("a", "0", expires), NewPresented(), now.Add(at)); got != want {
			t.Errorf("replay after %v: got accepted %v, want %v", at, got, want)
		}
	}
	if len(r.seen) != 1 || r.clients["b"] != 0 || r.clients["a"] != 1 {
		t.Errorf("after all have expired: got %d uses, by client %v, want one", len(r.seen), r.clients)
	}
}

// The end of a request without a final answer removes the record that its assertion was used. It
// does not remove the record of another request.
func TestReplays_Forget_KeepsUseOfOtherRequest(t *testing.T) {
	r := newReplays()
	now := time.Unix(1_790_000_000, 0)
	v := verified("a", "0", now.Add(time.Minute))
	first, second := NewPresented(), NewPresented()
	for range 2 {
		if !r.begin("a", v, first, now) {
			t.Fatal("the first request: refused")
		}
	}
	if r.begin("a", v, second, now) {
		t.Fatal("the second request: accepted")
	}
	r.forget(second)
	if r.begin("a", v, second, now) {
		t.Error("after the end of a replay: accepted")
	}
	r.forget(first)
	if !r.begin("a", v, second, now) || len(r.seen) != 1 || r.clients["a"] != 1 {
		t.Errorf("after the end of the first: refused, or got %d uses", len(r.seen))
	}
}
