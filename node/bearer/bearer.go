// Package bearer decides whether the tokens that callers present are active. It knows registered
// tokens, and verifies JWTs of trusted issuers.
//
// A record or a tombstone with a token's digest takes precedence over the claims of the token. A
// verified JWT stays in the node's record cache until a change that may revoke it. Each call
// computes a new verdict.
//
// At most half of the processors verify signatures at the same time, and callers take turns. So a
// caller whose tokens do not verify cannot starve other callers. The package keeps no raw token.
package bearer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/internal/fair"
	"revoked/node/cache"
	"revoked/node/jwt"
)

// State is the part of *fsm.FSM that a Decider reads.
type State interface {
	// Issuer returns the record of the issuer with that iss, or nil. The issuer may be deleted. A
	// returned record never changes.
	Issuer(iss string) *revoked.Issuer
	// Decide decides about a registered token.
	Decide(r *revoked.Record, now revoked.Time) (revoked.Decision, error)
	// DecideJWT returns the input of the decision about a JWT, without Key and Denied.
	DecideJWT(j *revoked.JWT, now revoked.Time) revoked.DecideInput
	// Ending returns how and when the token with digest d ended. The token's status is st.
	Ending(st *revoked.TokenStatus, d revoked.Digest) (revoked.Ending, error)
}

// maxWait is the longest time that a caller waits for its turn to verify a token.
const maxWait = time.Second

// attempts is the maximum number of times that a token is verified again because the record of its
// issuer changed.
const attempts = 3

// A Decider decides about tokens. All methods may be called concurrently.
type Decider struct {
	Cache *cache.Cache
	// Refetch brings the keys of an issuer with a JWKSURI up to date in the state, for a token that
	// names an unknown key. It returns an error if the keys cannot be fetched. If Refetch is nil, no
	// keys are fetched.
	Refetch func(ctx context.Context, i *revoked.Issuer) error

	state State
	now   func() time.Time
	gate  *fair.Gate

	results map[string]prometheus.Counter // counters of JWTs by result
	cached  prometheus.Counter            // counter of resultCached in results

	mu        sync.Mutex
	verifiers map[string]verifier // by iss
}

// A verifier verifies tokens with one version of an issuer's record.
type verifier struct {
	issuer *revoked.Issuer
	*jwt.Verifier
}

// New returns a decider that reads tokens through the cache c. The function now is the node's
// clock. New registers the decider's metric in reg.
func New(c *cache.Cache, state State, now func() time.Time, reg prometheus.Registerer) *Decider {
	d := &Decider{
		Cache: c, state: state, now: now, gate: fair.NewGate(max(1, runtime.GOMAXPROCS(0)/2)),
		verifiers: map[string]verifier{}, results: map[string]prometheus.Counter{},
	}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "revoked_jwt_lookups_total",
		Help: "Lookups of presented JWTs that are not registered, by result."}, []string{"result"})
	for _, result := range []string{resultCached, resultVerified, resultOverloaded, resultUnavailable,
		string(revoked.RefusedFormat), string(revoked.RefusedIssuer), string(revoked.RefusedAlgorithm),
		string(revoked.RefusedKey), string(revoked.RefusedSignature), string(revoked.RefusedType),
		string(revoked.RefusedClaims)} {
		d.results[result] = lookups.WithLabelValues(result)
	}
	reg.MustRegister(lookups)
	d.cached = d.results[resultCached]
	return d
}

// Results in the metric besides the reasons why a JWT was refused.
const (
	resultCached      = "cached"
	resultVerified    = "verified"
	resultOverloaded  = "overloaded"
	resultUnavailable = "unavailable" // the keys cannot be fetched, or do not parse
)

// Status returns the status of a token in this node's copy of the state. Without p.JWT, it finds
// only registered tokens, even if the cache contains the JWT. It returns revoked.ErrOverloaded if
// the caller's turn to verify the token does not come in time.
func (d *Decider) Status(ctx context.Context, p *revoked.PresentedToken) (revoked.TokenStatus, error) {
	l := d.Look(p)
	return l.Status(ctx)
}

// A Lookup finds the status of one presented token. Status may be called repeatedly: the Lookup
// remembers the results that cannot change between calls. A refused token is verified again only if
// the record of its issuer has changed. A Lookup is not safe for concurrent use.
type Lookup struct {
	decider   *Decider
	presented revoked.PresentedToken
	token     *jwt.Token       // nil: not parsed yet
	why       revoked.Decision // decision about a token that did not verify
	malformed bool             // whether the token does not have the form of a JWT
	refused   *revoked.Issuer  // issuer record with which the token was refused
	counted   bool
}

// Look returns a lookup of a token. It copies p, so that neither p nor the lookup escapes to the
// heap.
func (d *Decider) Look(p *revoked.PresentedToken) Lookup { return Lookup{decider: d, presented: *p} }

// Status is like [Decider.Status].
func (l *Lookup) Status(ctx context.Context) (revoked.TokenStatus, error) {
	d, p := l.decider, &l.presented
	if p.JWT == nil {
		r, err := d.Cache.Lookup(p.Digest)
		if err != nil {
			return revoked.TokenStatus{}, err
		}
		return d.registered(r)
	}
	r, j, err := d.Cache.Find(p.Digest)
	hit := j != nil
	var unverified revoked.Decision
	if err == nil && j == nil && !r.Found {
		r, j, unverified, err = l.add(ctx)
	}
	for range attempts {
		switch {
		case err != nil:
			return revoked.TokenStatus{}, err
		case j == nil && r.Found:
			return d.registered(r)
		case j == nil:
			return revoked.TokenStatus{Decision: unverified}, nil
		}
		in := d.state.DecideJWT(&j.JWT, revoked.TimeOf(d.now()))
		if in.Issuer == j.Issuer {
			if hit && !l.counted {
				l.counted = true
				d.cached.Inc()
			}
			in.Key, in.Denied = j.Key, j.Denied
			return revoked.TokenStatus{
				Decision: revoked.Decide(r, in), Record: *r, JWT: &j.JWT, Foreign: !in.Issuer.OwnClients,
			}, nil
		}
		hit = false
		r, j, unverified, err = l.add(ctx)
	}
	return revoked.TokenStatus{}, fmt.Errorf("%w: issuer record changed during each of %d attempts",
		revoked.ErrNotCurrent, attempts)
}

// count counts the first result of the lookup.
func (l *Lookup) count(result string) {
	if !l.counted {
		l.counted = true
		l.decider.results[result].Inc()
	}
}

// registered returns the status of a registered token with the record r.
func (d *Decider) registered(r *revoked.Record) (revoked.TokenStatus, error) {
	decision, err := d.state.Decide(r, revoked.TimeOf(d.now()))
	return revoked.TokenStatus{Decision: decision, Record: *r}, err
}

// Explain adds to the status of the token p how and when the token ended, if the state still has
// that. The state may be newer than the status.
func (d *Decider) Explain(p *revoked.PresentedToken, st revoked.TokenStatus) (revoked.Explanation, error) {
	x := revoked.Explanation{TokenStatus: st}
	x.IsJWT = st.JWT != nil || st.Verdict == revoked.Unknown && st.Reason == revoked.ReasonIssuer
	var err error
	if x.Ending, err = d.state.Ending(&st, p.Digest); err != nil {
		return revoked.Explanation{}, err
	}
	if st.Verdict == revoked.Unknown && x.Revoked != nil {
		x.Reason, x.IssuerReason = revoked.ReasonDenied, ""
	}
	return x, nil
}

// add verifies a JWT and puts it into the cache. It returns the record made from the JWT's claims,
// or the registered record if one of the JWT's digests is registered. If neither exists, Found is
// false in the returned record, and the decision contains the reason.
func (l *Lookup) add(ctx context.Context) (*revoked.Record, *cache.JWT, revoked.Decision, error) {
	j, why, err := l.verify(ctx)
	if err != nil || j == nil {
		return &revoked.Record{}, nil, why, err
	}
	r, isJWT, err := l.decider.Cache.Add(j)
	if err != nil || !isJWT {
		return r, nil, why, err
	}
	return r, j, why, nil
}

// Verify verifies a JWT that is to be revoked. It also accepts an expired JWT, one signed by a
// retired or banned key, and one of a disabled issuer. It returns nil if no trusted issuer signed
// the token. Its errors are those of Status.
func (d *Decider) Verify(ctx context.Context, p *revoked.PresentedToken) (*revoked.JWT, error) {
	l := d.Look(p)
	j, _, err := l.verify(ctx)
	if err != nil || j == nil {
		return nil, err
	}
	return &j.JWT, nil
}

// verify verifies the token. If no trusted issuer signed it, verify returns nil and a decision with
// the reason.
func (l *Lookup) verify(ctx context.Context) (*cache.JWT, revoked.Decision, error) {
	d := l.decider
	if l.parse(); l.malformed {
		l.count(string(revoked.RefusedFormat))
		return nil, l.why, nil
	}
	issuer := d.state.Issuer(l.token.Issuer())
	switch {
	case issuer == nil:
		l.count(string(revoked.RefusedIssuer))
		return nil, unverified(revoked.RefusedIssuer), nil
	case issuer == l.refused:
		return nil, l.why, nil
	}
	res, err := d.check(ctx, issuer, l.token, l.presented.Caller)
	if err == nil && res.UnknownKey && issuer.JWKSURI != "" && issuer.DeletedAt == 0 && d.Refetch != nil {
		if err := d.Refetch(ctx, issuer); err != nil {
			l.count(resultUnavailable)
			return nil, revoked.Decision{}, err
		}
		if issuer = d.state.Issuer(l.token.Issuer()); issuer == nil {
			return nil, unverified(revoked.RefusedIssuer), nil
		}
		res, err = d.check(ctx, issuer, l.token, l.presented.Caller)
	}
	switch {
	case errors.Is(err, revoked.ErrOverloaded):
		l.count(resultOverloaded)
		return nil, revoked.Decision{}, err
	case err != nil:
		l.count(resultUnavailable)
		return nil, revoked.Decision{}, err
	case !res.Verified:
		l.count(string(res.Reason))
		l.refused, l.why = issuer, unverified(res.Reason)
		return nil, l.why, nil
	}
	l.count(resultVerified)
	j := &cache.JWT{JWT: res.JWT, Issuer: issuer}
	if k := issuer.Key(res.JWT.Thumbprint); k != nil {
		j.Key = k.State
	}
	return j, revoked.Decision{}, nil
}

// parse sets token, or malformed and why.
func (l *Lookup) parse() {
	if l.token != nil || l.malformed {
		return
	}
	raw, err := string(l.presented.JWT), error(nil)
	if l.token, err = jwt.Parse(raw); err == nil {
		return
	}
	l.malformed = true
	if l.why = unverified(revoked.RefusedFormat); !jwt.HasHeader(raw) { // an opaque token
		l.why = revoked.Decision{Verdict: revoked.Unknown, Reason: revoked.ReasonUnknown}
	}
}

// unverified returns the decision about a JWT that did not verify.
func unverified(why revoked.IssuerReason) revoked.Decision {
	return revoked.Decision{Verdict: revoked.Unknown, Reason: revoked.ReasonIssuer, IssuerReason: why}
}

// check waits until it is the caller's turn and then verifies the token.
func (d *Decider) check(
	ctx context.Context, issuer *revoked.Issuer, t *jwt.Token, caller string,
) (jwt.Result, error) {
	v, err := d.verifier(issuer)
	if err != nil {
		return jwt.Result{}, err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, maxWait, errBusy)
	defer cancel()
	if err := d.gate.Enter(waiting, nil, caller); err != nil {
		return jwt.Result{}, fmt.Errorf("%w: verify a token: %w", revoked.ErrOverloaded, err)
	}
	defer d.gate.Leave()
	return v.Verify(t, revoked.TimeOf(d.now())), nil
}

var errBusy = errors.New("too many tokens to verify")

// verifier returns the verifier of an issuer. It parses the keys once for each version of the
// issuer's record.
func (d *Decider) verifier(issuer *revoked.Issuer) (*jwt.Verifier, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.verifiers[issuer.Issuer]; v.issuer == issuer {
		return v.Verifier, nil
	}
	v, err := jwt.New(issuer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", revoked.ErrNotCurrent, err)
	}
	for iss := range d.verifiers {
		if d.state.Issuer(iss) == nil { // no longer in the state
			delete(d.verifiers, iss)
		}
	}
	d.verifiers[issuer.Issuer] = verifier{issuer, v}
	return v, nil
}
