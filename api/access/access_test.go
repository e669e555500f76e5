package access_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api/access"
	"revoked/api/request"
)

// A node is a Backend without clients, outside a cluster.
type node struct{}

func (node) Client(string) (*revoked.Client, bool)         { return nil, false }
func (node) Current(context.Context) error                 { return nil }
func (node) ClientsCurrent() bool                          { return true }
func (node) NodeStatus(context.Context) revoked.NodeStatus { return revoked.NodeStatus{} }

func (node) AssertionUse(revoked.Digest) ([16]byte, bool) { return [16]byte{}, false }
func (node) ParseAssertion(string, string) (string, func(*revoked.Client) (revoked.VerifiedAssertion, string, bool)) {
	return "", nil
}

func newControl(maxRequests int) *access.Control {
	counter := func(name, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: name}, []string{label})
	}
	return access.New(access.Config{
		Backend: node{}, Now: time.Now, FailuresPerMinute: 60, MaxWait: time.Second, MaxRequests: maxRequests,
		Failures: counter("failures", "kind"), Throttled: counter("throttled", "budget"),
	})
}

func TestAdmit_BeyondLimit_Is429UntilLeave(t *testing.T) {
	c := newControl(2)
	a, b := &revoked.Client{ID: "a"}, &revoked.Client{ID: "b"}
	first, second, third, other := &request.Request{}, &request.Request{}, &request.Request{}, &request.Request{}
	for _, r := range []*request.Request{first, second} {
		if err := c.Admit(r, a); err != nil {
			t.Fatalf("within the limit: got %v", err)
		}
	}
	var f *request.Failure
	if err := c.Admit(third, a); !errors.As(err, &f) || f.Status != 429 {
		t.Errorf("beyond the limit: got %v, want 429", err)
	}
	if third.Client != a {
		t.Error("beyond the limit: got no caller, want it for the log")
	}
	c.Leave(third) // Admit refused third and did not count it
	if err := c.Admit(third, a); err == nil {
		t.Error("after Leave of a refused request: got no error, want 429")
	}
	if err := c.Admit(other, b); err != nil {
		t.Errorf("another client: got %v", err)
	}
	c.Leave(first)
	c.Leave(first) // a second call does nothing
	if err := c.Admit(third, a); err != nil {
		t.Errorf("after Leave: got %v", err)
	}
	if err := c.Admit(first, a); err == nil {
		t.Error("after a repeated Leave: got no error, want 429")
	}
}

// A request may authenticate again, even as another client: the credentials of HTTP Basic have two
// decodings.
func TestAdmit_SameRequestAgain_CountsOnce(t *testing.T) {
	c := newControl(1)
	a, b := &revoked.Client{ID: "a"}, &revoked.Client{ID: "b"}
	r := &request.Request{}
	for _, client := range []*revoked.Client{a, a, b} {
		if err := c.Admit(r, client); err != nil {
			t.Fatalf("%s: got %v", client.ID, err)
		}
	}
	if err := c.Admit(&request.Request{}, a); err != nil {
		t.Errorf("the client before: got %v, want its slot free", err)
	}
	if err := c.Admit(&request.Request{}, b); err == nil {
		t.Error("the client now: got no error, want 429")
	}
}
