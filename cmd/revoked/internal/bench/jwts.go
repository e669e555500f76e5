package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
)

const (
	jwtCount   = 2000 // JWTs of each algorithm
	forgers    = 8    // connections that send forged JWTs
	cachedGoal = 0.97 // minimum rate of cached JWTs, as a fraction of the rate of opaque tokens
	floodGoal  = 0.9  // minimum rate with forged JWTs, as a fraction of the rate without them
)

// jwts compares introspections of JWTs that one follower has seen with those of opaque tokens. It
// also measures introspections of JWTs that the node sees for the first time, by algorithm.
// Finally, it measures the rate that a caller of opaque tokens keeps during a flood of forged JWTs.
func (r *run) jwts(ctx context.Context, m *report.Measure) error {
	node, err := r.cluster.follower(ctx)
	if err != nil {
		return err
	}
	signers, err := newJWTSigners()
	if err != nil {
		return err
	}
	iss := "https://" + r.tokens.run + ".example"
	if err := r.trust(ctx, "bench-"+r.tokens.run, iss, signers); err != nil {
		return err
	}
	opaque := r.reads(r.cluster.target(node, r.opts.lean()))
	opaque.Connections, opaque.Duration = r.opts.Connections, r.opts.Duration
	cached := opaque
	first := map[string]*load.Result{}
	for _, s := range signers {
		list, err := s.many(iss, r.tokens.issued)
		if err != nil {
			return err
		}
		once := opaque
		once.Bodies, once.Duration = eachOf(list), time.Minute
		got, err := r.side(ctx, m, once)
		if err != nil {
			return err
		}
		first[s.alg] = got
		r.say(m.Name, "%s, seen for the first time: %.0f/s", s.alg, got.Rate())
		cached.Bodies = anyText(list) // JWTs of the last algorithm: the cost of a cached JWT does not depend on it
	}
	if err := r.cachedTurns(ctx, m, cached, opaque); err != nil {
		return err
	}
	for alg, got := range first {
		m.SetDetail("first_seen_"+alg+"_per_second", got.Rate())
		if cachedCPU := m.Median(func(r report.Round) float64 { return r.SubjectCPUUS }); got.CPU > 0 {
			m.SetDetail("first_seen_"+alg+"_processor_us", got.CPU)
			m.SetDetail("first_seen_"+alg+"_share_of_verification", max(0, 1-cachedCPU/got.CPU))
		}
	}
	forged, err := r.floods(ctx, m, opaque, signers[0], iss)
	if err != nil {
		return err
	}
	m.SetGoal(fmt.Sprintf("ratio >= %v, with forged JWTs >= %v", cachedGoal, floodGoal),
		*m.Ratio >= cachedGoal && forged.left >= floodGoal && m.Failures == 0)
	return nil
}

// trust creates the issuer at the leader and waits until every node has it.
func (r *run) trust(ctx context.Context, name, iss string, signers []*jwtSigner) error {
	keys := make([]map[string]string, 0, len(signers))
	for _, s := range signers {
		keys = append(keys, s.jwk)
	}
	record, err := json.Marshal(map[string]any{
		"name": name, "issuer": iss, "require_audience": false, "jwks": map[string]any{"keys": keys},
	})
	if err != nil {
		return err
	}
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return err
	}
	if _, err := r.cluster.Client("admin", leader).CreateIssuer(ctx, record); err != nil {
		return err
	}
	return r.cluster.awaitIdle(ctx)
}

// side runs one load and counts its failures.
func (r *run) side(ctx context.Context, m *report.Measure, l load.Load) (*load.Result, error) {
	got, err := (&comparison{}).turn(ctx, l, r.cluster.pids())
	if err == nil {
		m.Tally.Add(got.Tally)
	}
	return got, err
}

// cachedTurns runs cached JWTs and opaque tokens alternately and fills in m. Each round begins with
// the side that ended the previous round, so that drift favors neither side.
func (r *run) cachedTurns(ctx context.Context, m *report.Measure, cached, opaque load.Load) error {
	var ratios []float64
	for round := range r.opts.Rounds {
		sides := []load.Load{opaque, cached}
		results := make([]*load.Result, len(sides))
		for i := range sides {
			side := (i + round) % len(sides)
			var err error
			if results[side], err = r.side(ctx, m, sides[side]); err != nil {
				return err
			}
		}
		base, got := results[0], results[1]
		ratio := got.Rate() / max(base.Rate(), 1)
		ratios = append(ratios, ratio)
		r.say(m.Name, "round %d: %.0f %s, opaque %.0f, ratio %.2f", round+1, got.Rate(), m.Unit, base.Rate(), ratio)
		m.Rounds = append(m.Rounds, report.Round{Subject: got.Rate(), Baseline: base.Rate(),
			Latency: report.LatencyOf(&got.Latency), SubjectCPUUS: got.CPU, BaselineCPUUS: base.CPU})
	}
	m.Value = m.Median(func(r report.Round) float64 { return r.Subject })
	m.Compare(m.Median(func(r report.Round) float64 { return r.Baseline }), report.Median(ratios))
	return nil
}

// A flood holds medians: the effect that introspections of one client have on another client.
type flood struct {
	left float64 // the rate that the other client keeps, as a fraction of its rate without the flood
	rate float64 // requests per second of the flood
	cpu  float64 // microseconds per request of the flood; 0 if the system does not report it
}

// floods measures a flood of forged JWTs through another client, and a flood of known tokens at the
// same rate. The second flood shows the minimum cost of any flood at that rate.
func (r *run) floods(
	ctx context.Context, m *report.Measure, opaque load.Load, s *jwtSigner, iss string,
) (forged flood, err error) {
	l := opaque
	l.Request, l.Connections = r.cluster.request("app", introspectPath, formType), forgers
	known := l
	token, err := s.token(iss, "forged", r.tokens.issued)
	if err != nil {
		return flood{}, err
	}
	l.Bodies = func(connection int) func() ([]byte, bool) {
		body := []byte("token=" + token)
		sig, n := body[len(body)-40:], uint64(connection)<<40
		return func() ([]byte, bool) {
			n++
			copy(sig, fmt.Sprintf("%016x", n))
			return body, true
		}
	}
	l.Good = func(status int, body []byte) bool {
		return isInactive(status, body) || status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
	}
	if forged, err = r.flood(ctx, m, opaque, l, "forged JWTs"); err != nil {
		return flood{}, err
	}
	known.PerSecond = max(forged.rate, 1)
	control, err := r.flood(ctx, m, opaque, known, "known tokens")
	if err != nil {
		return flood{}, err
	}
	m.SetDetail("beside_forged_jwts", forged.left)
	m.SetDetail("forged_jwts_per_second", forged.rate)
	m.SetDetail("beside_as_many_known_tokens", control.left)
	if forged.cpu > 0 && control.cpu > 0 {
		m.SetDetail("forged_jwt_processor_us", forged.cpu)
		m.SetDetail("known_token_processor_us", control.cpu)
	}
	return forged, nil
}

// flood runs opaque alternately alone and together with extra.
func (r *run) flood(ctx context.Context, m *report.Measure, opaque, extra load.Load, name string) (flood, error) {
	var left, rates, cpus []float64
	for range r.opts.Rounds {
		alone, err := r.side(ctx, m, opaque)
		if err != nil {
			return flood{}, err
		}
		running, err := extra.Start(ctx)
		if err != nil {
			return flood{}, err
		}
		beside, err := r.side(ctx, m, opaque)
		extras := running.Stop()
		if err != nil {
			return flood{}, err
		}
		m.Tally.Add(extras.Tally)
		left = append(left, beside.Rate()/max(alone.Rate(), 1))
		rates = append(rates, extras.Rate())
		cpus = append(cpus, max(0, (beside.CPU-alone.CPU)*beside.Rate()/max(extras.Rate(), 1)))
		r.say(m.Name, "with %.0f %s/s: %.0f %s, alone %.0f; processor us per request: %.0f, alone %.0f",
			extras.Rate(), name, beside.Rate(), m.Unit, alone.Rate(), beside.CPU, alone.CPU)
	}
	return flood{report.Median(left), report.Median(rates), report.Median(cpus)}, nil
}

// anyText returns the bodies of endless introspections of the tokens.
func anyText(list []string) func(int) func() ([]byte, bool) {
	numbers := anyOf(uint64(len(list)))
	return func(connection int) func() ([]byte, bool) {
		next := numbers(connection)
		var body []byte
		return func() ([]byte, bool) {
			n, ok := next()
			body = append(append(body[:0], "token="...), list[n]...)
			return body, ok
		}
	}
}

// eachOf returns the bodies of one introspection of each token.
func eachOf(list []string) func(int) func() ([]byte, bool) {
	var taken atomic.Int64
	return func(int) func() ([]byte, bool) {
		var body []byte
		return func() ([]byte, bool) {
			n := taken.Add(1) - 1
			if n >= int64(len(list)) {
				return nil, false
			}
			body = append(append(body[:0], "token="...), list[n]...)
			return body, true
		}
	}
}

// A jwtSigner signs JWTs by one algorithm (RFC 7515, 7518 and 8037).
type jwtSigner struct {
	alg  string
	jwk  map[string]string
	sign func(input []byte) ([]byte, error)
}

func newJWTSigners() ([]*jwtSigner, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	point, err := ecKey.PublicKey.Bytes() // the byte 4, then the coordinates x and y
	if err != nil {
		return nil, err
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return []*jwtSigner{
		{"RS256", map[string]string{"kid": "RS256", "kty": "RSA", "n": b64(rsaKey.N.Bytes()), "e": "AQAB"},
			func(input []byte) ([]byte, error) {
				d := sha256.Sum256(input)
				return rsa.SignPKCS1v15(nil, rsaKey, crypto.SHA256, d[:])
			}},
		{"ES256", map[string]string{"kid": "ES256", "kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
			func(input []byte) ([]byte, error) {
				d := sha256.Sum256(input)
				x, y, err := ecdsa.Sign(rand.Reader, ecKey, d[:])
				if err != nil {
					return nil, err
				}
				sig := make([]byte, 64)
				x.FillBytes(sig[:32])
				y.FillBytes(sig[32:])
				return sig, nil
			}},
		{"EdDSA", map[string]string{"kid": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": b64(edPublic)},
			func(input []byte) ([]byte, error) { return ed25519.Sign(edKey, input), nil }},
	}, nil
}

// many signs jwtCount tokens.
func (s *jwtSigner) many(iss string, issued int64) ([]string, error) {
	list := make([]string, jwtCount)
	for i := range list {
		var err error
		if list[i], err = s.token(iss, fmt.Sprint(s.alg, "-", i), issued); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// token signs one access token (RFC 9068) without an audience.
func (s *jwtSigner) token(iss, jti string, issued int64) (string, error) {
	var input strings.Builder
	for i, part := range []any{
		map[string]string{"alg": s.alg, "kid": s.alg, "typ": "at+jwt"},
		map[string]any{"iss": iss, "sub": "user-" + jti, "client_id": "bench", "jti": jti, "iat": issued,
			"exp": issued + int64(12*time.Hour/time.Second), "scope": "read write"},
	} {
		b, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		if i > 0 {
			input.WriteByte('.')
		}
		input.WriteString(base64.RawURLEncoding.EncodeToString(b))
	}
	sig, err := s.sign([]byte(input.String()))
	if err != nil {
		return "", err
	}
	return input.String() + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}
