package clientauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
)

// ErrUnauthenticated is returned if none of the candidates is correct. An unknown client and a
// wrong secret have the same error.
var ErrUnauthenticated = errors.New("client authentication failed")

// An AssertionError is returned if an assertion is refused although a key of the client has signed
// it. Only a holder of the key can get this error, so it may contain the reason. It matches
// [ErrUnauthenticated].
type AssertionError struct{ Problem string }

func (e *AssertionError) Error() string { return ErrUnauthenticated.Error() + ": " + e.Problem }

// Is implements the protocol of [errors.Is].
func (e *AssertionError) Is(target error) bool { return target == ErrUnauthenticated }

// A ThrottledError is returned to a caller that is over its budget. It matches [revoked.ErrQuota].
type ThrottledError struct {
	RetryAfter time.Duration
	Verified   bool // the candidates were verified and are wrong; false: no turn to verify came in time
}

func (e *ThrottledError) Error() string { return "too many failures" }

// Is implements the protocol of [errors.Is].
func (e *ThrottledError) Is(target error) bool { return target == revoked.ErrQuota }

// Clients holds the client records of a node. Methods must allow concurrent calls.
type Clients interface {
	// Client returns this node's copy. The caller must not change it.
	Client(id string) (*revoked.Client, bool)
	// Current blocks until the copy holds everything that was acknowledged before the call.
	Current(ctx context.Context) error
	// ClientsCurrent reports whether the copy has been current at least once since the process
	// started.
	ClientsCurrent() bool
}

// Assertions verifies assertions for a node. Methods must allow concurrent calls.
type Assertions interface {
	// ParseAssertion returns the client that an assertion claims to be from, and a function that
	// verifies it with the keys of a client. audience is the only audience that the assertion may
	// name. The id is "" for a text that is not an assertion. If a key of the client has signed an
	// assertion that is refused, problem gives the reason for the client. It contains nothing from
	// the assertion.
	ParseAssertion(raw, audience string) (
		id string, verify func(*revoked.Client) (v revoked.VerifiedAssertion, problem string, ok bool))
	// AssertionUse returns the request that used an assertion. used is false if this node's copy of
	// the state does not contain a use of it.
	AssertionUse(key revoked.Digest) (request [16]byte, used bool)
}

// Config configures an [Authenticator]. Without Assertions it rejects private_key_jwt; without
// ClientCAs, tls_client_auth. All other fields are required.
type Config struct {
	Clients           Clients
	Assertions        Assertions
	Audience          string                // audience of assertions: the issuer identifier of the cluster
	ClientCAs         func() *x509.CertPool // CAs that issue certificates of callers; nil: none
	Now               func() time.Time
	FailuresPerMinute int                // failures per client id
	MaxWait           time.Duration      // longest wait for the turn to verify a secret
	Failed            prometheus.Counter // requests that failed to authenticate
	Throttled         prometheus.Counter // the failed requests over the budget of their client id
}

// An Authenticator verifies credentials. Methods may be called concurrently.
type Authenticator struct {
	cfg      Config
	failures *Limiter // budget of failures, by client id
	turns    turns    // turns to run argon2id, by client id
	paced    turns    // turns of attempts over the budget, by client id
	secrets  *verifier
	replays  replays
	chains   chains
}

// New returns an authenticator.
func New(cfg Config) *Authenticator {
	return &Authenticator{
		cfg:      cfg,
		failures: NewLimiter(float64(cfg.FailuresPerMinute)/60, cfg.FailuresPerMinute),
		turns:    turns{queues: map[string]*queue{}},
		paced:    turns{queues: map[string]*queue{}},
		secrets:  newVerifier(),
		replays:  newReplays(),
	}
}

// pace is the pause after a failure over the budget, before the next request at the same client id
// has its turn. It allows four guesses a second.
const pace = 250 * time.Millisecond

// An Attempt is a caller's attempt to authenticate.
type Attempt struct {
	Candidates []Credential // candidates of one id are adjacent; none means malformed credentials
	Method     string       // one of the methods of package revoked
	From       netip.Addr   // address of the caller; zero if it is unknown

	// proof, if set, is used instead of the candidates' secrets. It returns the caller if it proves
	// that the caller is the given client, else nil.
	proof func(*revoked.Client) *Caller
}

// Authenticate returns the caller if a candidate has the correct secret of its client, and this
// client is confidential, enabled and allowed to use the method.
//
// A strong secret, and a weak one that this address used before, passes immediately, however many
// guesses others make. Any other attempt is charged as a failure first, and gets the charge back if
// the secret is correct. A weak secret waits for its turn at the client, and so does every attempt
// over the budget. Failures take about as long as one argon2id computation, so their duration does
// not reveal whether the client exists.
//
// It returns [ErrUnauthenticated] or a [ThrottledError] on failure. It returns
// [revoked.ErrNotCurrent] if the attempt may be correct but this node's copy may be too old. It
// returns [revoked.ErrOverloaded] if no argon2id slot is free in time.
func (a *Authenticator) Authenticate(ctx context.Context, t Attempt) (*Caller, error) {
	begin := time.Now()
	for i := range t.Candidates {
		cr := &t.Candidates[i]
		client, _ := a.cfg.Clients.Client(cr.ID)
		known := a.failures.Empty(cr.ID, a.cfg.Now())
		if c, _ := a.recall(client, cr, &t, known); c != nil {
			return c, nil
		}
	}
	caller, wait, current, err := a.charged(ctx, &t)
	if caller != nil || err != nil {
		return caller, err
	}
	a.cfg.Failed.Inc()
	select {
	case <-time.After(time.Until(begin.Add(time.Duration(a.secrets.typical.Load())))):
	case <-ctx.Done():
	}
	switch {
	case wait > 0:
		a.cfg.Throttled.Inc()
		return nil, &ThrottledError{wait, true}
	case len(t.Candidates) > 0 && !current && !a.cfg.Clients.ClientsCurrent():
		return nil, fmt.Errorf("%w: this node may not know the client yet", revoked.ErrNotCurrent)
	}
	return nil, ErrUnauthenticated
}

// charged verifies an attempt and charges a failure to each of its client ids. wait is positive if
// one of these ids was over its budget. current is true if this node caught up for all of them.
func (a *Authenticator) charged(ctx context.Context, t *Attempt) (
	caller *Caller, wait time.Duration, current bool, err error,
) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.MaxWait)
	defer cancel()
	current = true
	var paid []string
	for rest := t.Candidates; len(rest) > 0; {
		id := rest[0].ID
		n := slices.IndexFunc(rest, func(c Credential) bool { return c.ID != id })
		if n < 0 {
			n = len(rest)
		}
		over := a.failures.Take(id, a.cfg.Now())
		if wait = max(wait, over); over == 0 {
			paid = append(paid, id)
		}
		c, caughtUp, err := a.inTurn(ctx, rest[:n], t, over > 0)
		if err != nil {
			return nil, wait, false, err
		}
		if c != nil {
			for _, id := range paid {
				a.failures.Return(id, a.cfg.Now())
			}
			return c, 0, true, nil
		}
		if over > 0 {
			a.failures.Drain(id, a.cfg.Now())
		}
		current = current && caughtUp
		rest = rest[n:]
	}
	return nil, wait, current, nil
}

// inTurn verifies the candidates of one client id. Over the budget it first waits for a turn, and a
// failure delays the next turn. A second queue limits argon2id to one run at a time.
func (a *Authenticator) inTurn(ctx context.Context, list []Credential, t *Attempt, over bool) (
	caller *Caller, current bool, err error,
) {
	id := list[0].ID
	if over {
		if !a.paced.take(ctx, id, t.From) {
			return nil, false, a.noTurn()
		}
		defer func() {
			pause := pace
			if caller != nil {
				pause = 0
			}
			a.paced.release(id, pause)
		}()
	}
	current = a.CatchUp(ctx) == nil
	client, _ := a.cfg.Clients.Client(id)
	for i := range list {
		c, costly := a.recall(client, &list[i], t, false)
		if c == nil && costly {
			if c, err = a.compute(ctx, client, &list[i], t, over); err != nil {
				return nil, false, err
			}
		}
		if caller == nil {
			caller = c
		}
	}
	return caller, current, nil
}

// compute verifies one candidate with argon2id in the turn of its client.
func (a *Authenticator) compute(
	ctx context.Context, client *revoked.Client, cr *Credential, t *Attempt, over bool,
) (*Caller, error) {
	if !a.turns.take(ctx, cr.ID, t.From) {
		return nil, a.noTurn()
	}
	defer a.turns.release(cr.ID, 0)
	slots := a.secrets.fresh
	if over || a.failures.Failed(cr.ID, a.cfg.Now()) {
		slots = a.secrets.suspect
	}
	secret, err := a.secrets.verify(ctx, client, cr.Secret, a.cfg.Now(), t.From, slots)
	switch {
	case err != nil && over:
		return nil, a.noTurn()
	case err != nil:
		return nil, err
	}
	return callerOf(client, secret, t.Method), nil
}

// noTurn counts an attempt that was not verified in time, and returns its error.
func (a *Authenticator) noTurn() error {
	a.cfg.Failed.Inc()
	a.cfg.Throttled.Inc()
	return &ThrottledError{RetryAfter: time.Second}
}

// recall verifies one candidate without argon2id; see [verifier.recall]. client is nil for an
// unknown id.
func (a *Authenticator) recall(client *revoked.Client, cr *Credential, t *Attempt, known bool) (*Caller, bool) {
	switch {
	case client == nil:
		return nil, false
	case t.proof != nil:
		if !usable(client, t.Method) {
			return nil, false
		}
		return t.proof(client), false
	}
	secret, costly := a.secrets.recall(client, cr.Secret, a.cfg.Now(), t.From, known)
	return callerOf(client, secret, t.Method), costly
}

// callerOf returns the caller that presented a secret of client. It returns nil if secret is nil,
// or if client may not authenticate by method now.
func callerOf(client *revoked.Client, secret *revoked.SecretHash, method string) *Caller {
	if secret == nil || !usable(client, method) {
		return nil
	}
	return &Caller{Client: client, Method: method, Secret: secret}
}

// usable reports whether client may authenticate by method now.
func usable(client *revoked.Client, method string) bool {
	return !client.Disabled && client.Type == revoked.Confidential && client.MayUse(method)
}

// PublicClient returns the enabled public client with this id if it may revoke without a secret,
// else nil. Like Authenticate it may block to catch up. It returns [revoked.ErrNotCurrent] if the
// client may exist but this node's copy may be too old.
func (a *Authenticator) PublicClient(ctx context.Context, id string) (*revoked.Client, error) {
	client, _ := a.cfg.Clients.Client(id)
	if mayRevoke(client) {
		return client, nil
	}
	current := !a.failures.Empty(id, a.cfg.Now()) && a.CatchUp(ctx) == nil
	if client, _ = a.cfg.Clients.Client(id); mayRevoke(client) {
		return client, nil
	}
	if !current && !a.cfg.Clients.ClientsCurrent() {
		return nil, fmt.Errorf("%w: this node may not know the client yet", revoked.ErrNotCurrent)
	}
	return nil, nil
}

func mayRevoke(c *revoked.Client) bool {
	return c != nil && c.Type == revoked.Public && c.AllowPublicRevocation && !c.Disabled
}

// catchUpTimeout is short because bad credentials get 401 even without a leader.
const catchUpTimeout = time.Second

// CatchUp blocks until this node's records are current, for at most a second.
func (a *Authenticator) CatchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	return a.cfg.Clients.Current(ctx)
}
