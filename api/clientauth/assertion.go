package clientauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"revoked"
)

// A Presented is the assertion of one request. The request may authenticate with the assertion
// repeatedly, and ends the use with [Authenticator.End].
type Presented struct {
	request [16]byte
	key     revoked.Digest // zero until the assertion is verified
	client  string
}

// NewPresented returns the assertion of a new request.
func NewPresented() *Presented {
	p := new(Presented)
	rand.Read(p.request[:]) // never fails
	return p
}

// AuthenticateAssertion returns the caller whose key signed an assertion (private_key_jwt, RFC
// 7523). clientID is the client that the request names, or "". This node accepts an assertion for
// one request only, and for none if the replicated state contains a use of it. Operations carry the
// caller's Assertion, so that Apply can reject a second use.
//
// Errors are those of [Authenticator.Authenticate], and an [AssertionError] for an assertion that
// the client has signed. A client gets [revoked.ErrQuota] if too many of its used assertions have
// not expired.
func (a *Authenticator) AuthenticateAssertion(
	ctx context.Context, raw, clientID string, p *Presented, from netip.Addr,
) (*Caller, error) {
	t := Attempt{Method: revoked.AuthPrivateKey, From: from}
	var v revoked.VerifiedAssertion
	var problem string
	if a.cfg.Assertions != nil {
		id, verify := a.cfg.Assertions.ParseAssertion(raw, a.cfg.Audience)
		if id != "" && (clientID == "" || clientID == id) {
			t.Candidates = []Credential{{ID: id}}
			t.proof = onceForEach(func(c *revoked.Client) *Caller {
				var ok bool
				if v, problem, ok = verify(c); !ok {
					return nil
				}
				return &Caller{Client: c, Method: t.Method, key: v.Thumbprint}
			})
		}
	}
	caller, err := a.Authenticate(ctx, t)
	switch {
	case err != nil && problem != "" && errors.Is(err, ErrUnauthenticated):
		return nil, &AssertionError{problem}
	case err != nil:
		return nil, err
	}
	if !a.isUnused(&v, p) || !a.replays.begin(caller.Client.ID, &v, p, a.cfg.Now()) {
		return nil, a.failed(ctx, caller.Client.ID)
	}
	if a.replays.isFull(p) {
		return nil, fmt.Errorf("%w: client %q: too many used assertions that have not expired",
			revoked.ErrQuota, caller.Client.ID)
	}
	caller.Assertion = &revoked.AssertionUse{Key: v.Key, ExpiresAt: v.ExpiresAt, Request: p.request}
	return caller, nil
}

// isUnused reports whether the state contains no use of the assertion by another request.
func (a *Authenticator) isUnused(v *revoked.VerifiedAssertion, p *Presented) bool {
	request, used := a.cfg.Assertions.AssertionUse(v.Key)
	return !used || request == p.request
}

// failed charges a replay to the client as a failure. It takes as long as any other failure.
func (a *Authenticator) failed(ctx context.Context, id string) error {
	a.cfg.Failed.Inc()
	wait := a.failures.Take(id, a.cfg.Now())
	select {
	case <-time.After(time.Duration(a.secrets.typical.Load())):
	case <-ctx.Done():
	}
	if wait > 0 {
		a.cfg.Throttled.Inc()
		return &ThrottledError{wait, true}
	}
	return &AssertionError{Replayed}
}

// Replayed is the problem in the response to a client whose assertion another request has used.
const Replayed = "the assertion was used before; sign one for each request"

// onceForEach returns a function that calls verify, but calls it only once for consecutive calls
// with the same record. Verifying a signature is slow, and an attempt examines a record twice.
func onceForEach(verify func(*revoked.Client) *Caller) func(*revoked.Client) *Caller {
	var last *revoked.Client
	var result *Caller
	return func(c *revoked.Client) *Caller {
		if c != last {
			last, result = c, verify(c)
		}
		return result
	}
}

// End must be called when the request that presented p ends. Set again if the response is not
// final, for example a 503. The client may then retry with the same assertion. If the Raft log
// already contains the use of the assertion, Apply rejects the retry.
func (a *Authenticator) End(p *Presented, again bool) {
	if again && p != nil {
		a.replays.forget(p)
	}
}

// Bounds of the assertions that a node remembers until they expire. A node at a bound refuses new
// assertions, because forgetting one would allow a replay.
const (
	maxReplays       = 400_000
	maxClientReplays = 100_000
)

// replays holds the assertions that this node has seen. Methods may be called concurrently.
//
// It keeps only assertions with a valid signature, so a caller without a key cannot fill it. The
// field share limits the assertions of one client.
type replays struct {
	mu      sync.Mutex
	limit   int
	share   int // maximum number of assertions of one client
	seen    map[revoked.Digest]replay
	clients map[string]int
	due     map[int64][]revoked.Digest // keys by the minute after which they may be forgotten
	cleaned int64                      // minute in which removeExpired last removed some
}

type replay struct {
	request [16]byte
	client  string
	minute  int64
}

func newReplays() replays {
	return replays{limit: maxReplays, share: maxClientReplays, seen: map[revoked.Digest]replay{},
		clients: map[string]int{}, due: map[int64][]revoked.Digest{}}
}

// begin records the use of the assertion by the request of p. It returns false if another request
// has used it. At a bound it records nothing, and isFull(p) becomes true.
func (r *replays) begin(client string, v *revoked.VerifiedAssertion, p *Presented, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeExpired(now)
	if old, ok := r.seen[v.Key]; ok {
		p.key, p.client = v.Key, client
		return old.request == p.request
	}
	p.key = revoked.Digest{}
	if len(r.seen) >= r.limit || r.clients[client] >= r.share {
		return true
	}
	p.key, p.client = v.Key, client
	minute := v.ExpiresAt.Add(revoked.MaxAssertionSkew).Unix()/60 + 1
	r.seen[v.Key] = replay{p.request, client, minute}
	r.clients[client]++
	r.due[minute] = append(r.due[minute], v.Key)
	return true
}

// isFull reports whether the last call of begin for p recorded nothing because of a bound.
func (r *replays) isFull(p *Presented) bool { return p.key.IsZero() }

// forget removes the record that assertion p was used, unless another request made that record.
func (r *replays) forget(p *Presented) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.seen[p.key]; ok && old.request == p.request {
		r.drop(p.key)
	}
}

func (r *replays) drop(key revoked.Digest) {
	client := r.seen[key].client
	delete(r.seen, key)
	if r.clients[client]--; r.clients[client] <= 0 {
		delete(r.clients, client)
	}
}

// removeExpired forgets the assertions that every node now rejects as expired. It does so at most
// once a minute.
func (r *replays) removeExpired(now time.Time) {
	minute := now.Unix() / 60
	if minute == r.cleaned {
		return
	}
	r.cleaned = minute
	for m, keys := range r.due {
		if m > minute {
			continue
		}
		for _, key := range keys {
			if r.seen[key].minute == m {
				r.drop(key)
			}
		}
		delete(r.due, m)
	}
}
