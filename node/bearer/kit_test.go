package bearer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/bearer"
	"revoked/node/cache"
)

const (
	start = revoked.Time(1_790_000_000 * 1e6)
	iss   = "https://as.example"
)

// A signer is a key of the issuer.
type signer struct {
	alg, kid string
	key      crypto.Signer
}

// signers returns one key for each signature algorithm that the tests use.
var signers = sync.OnceValue(func() []signer {
	must := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return []signer{
		{"RS256", "rsa", must(rsa.GenerateKey(rand.Reader, 2048))},
		{"ES256", "ec", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))},
		{"EdDSA", "ed", must(ed, err)},
	}
})

func (s signer) record() revoked.IssuerKey {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(der)
	return revoked.IssuerKey{
		KeyID: s.kid, Thumbprint: base64.RawURLEncoding.EncodeToString(sum[:]), Algorithm: s.alg, Public: der,
		State: revoked.KeyActive,
	}
}

func issuerKeys() (keys []revoked.IssuerKey) {
	for _, s := range signers() {
		keys = append(keys, s.record())
	}
	slices.SortFunc(keys, func(a, b revoked.IssuerKey) int { return strings.Compare(a.Thumbprint, b.Thumbprint) })
	return keys
}

// sign returns a token with the claims of RFC 9068, modified by changes. A change to nil removes a
// claim.
func (s signer) sign(changes map[string]any) string {
	claims := map[string]any{
		"iss": iss, "sub": "alice", "aud": "rs", "client_id": "app", "jti": "j1", "sid": "s-1", "gid": "g-1",
		"iat": start.Unix() - 60, "exp": start.Unix() + 3600, "scope": "read",
	}
	for name, v := range changes {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	input := enc(fmt.Appendf(nil, `{"typ":"at+jwt","alg":%q,"kid":%q}`, s.alg, s.kid)) + "." + enc(payload)
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	switch k := s.key.(type) {
	case *ecdsa.PrivateKey:
		r, n, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			panic(err)
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		n.FillBytes(sig[32:])
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	default:
		if sig, err = k.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
			panic(err)
		}
	}
	return input + "." + enc(sig)
}

// A machine is a decider that reads from a real state machine.
type machine struct {
	*fsm.FSM
	*bearer.Decider
	t     testing.TB
	reg   *prometheus.Registry
	index uint64
	now   revoked.Time
}

func newMachine(t testing.TB, change func(*revoked.Issuer)) *machine {
	t.Helper()
	epochs := cache.NewEpochs()
	f, err := fsm.Open(fsm.Config{
		Dir: t.TempDir(), Changes: epochs, Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	records, err := cache.New(1<<20, epochs, f, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(records.Close)
	m := &machine{FSM: f, t: t, reg: prometheus.NewRegistry(), now: start}
	m.Decider = bearer.New(records, f, func() time.Time { return m.now.Std() }, m.reg)
	client := func(id string, roles ...revoked.Role) *command.ClientRecord {
		return command.ClientMessage(&revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles,
			AuthMethods: []string{revoked.AuthBasic},
			Secrets:     []revoked.SecretHash{{Kind: revoked.HashSHA256, Salt: make([]byte, 16), Hash: make([]byte, 32)}}})
	}
	m.apply(&command.Bootstrap{ClusterId: "c", Stamp: int64(m.now), Clients: []*command.ClientRecord{
		client("admin", revoked.RoleAdmin), client("issuer", revoked.RoleIssuer), client("app"),
	}})
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer, i.Keys = "as1", iss, issuerKeys()
	if change != nil {
		change(&i)
	}
	m.must(command.PutIssuerOp(m.by("admin"), &i, 0))
	return m
}

func (m *machine) apply(c command.Command) *fsm.Outcome {
	m.t.Helper()
	b, err := command.Encode(c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.index++
	return m.Apply(&raft.Log{Index: m.index, Term: 1, Type: raft.LogCommand, Data: b}).(*fsm.Outcome)
}

func (m *machine) must(op *command.Op) {
	m.t.Helper()
	out := m.apply(&command.Batch{Stamp: int64(m.now), Rules: command.Rules, Ops: []*command.Op{op}})
	if err := out.Results[0].Err; err != nil {
		m.t.Fatalf("%s: %v", command.KindOf(op), err)
	}
}

func (m *machine) by(id string) revoked.Actor {
	m.t.Helper()
	c, ok := m.Client(id)
	if !ok {
		m.t.Fatalf("no client %s", id)
	}
	return revoked.ActorOf(c)
}

func (m *machine) change(change func(*revoked.Issuer)) {
	m.t.Helper()
	i := *m.Issuer(iss)
	change(&i)
	m.must(command.PutIssuerOp(m.by("admin"), &i, i.Version))
}

func present(token string) *revoked.PresentedToken {
	p := &revoked.PresentedToken{Digest: revoked.DigestToken(token), Caller: "rs"}
	if revoked.HasThreeParts([]byte(token)) {
		p.JWT = []byte(token)
	}
	return p
}

func (m *machine) status(token string) revoked.TokenStatus {
	m.t.Helper()
	st, err := m.Status(m.t.Context(), present(token))
	if err != nil {
		m.t.Fatal(err)
	}
	return st
}

func (m *machine) want(name, token string, want revoked.Verdict) {
	m.t.Helper()
	if got := m.status(token).Verdict; got != want {
		m.t.Errorf("%s: got verdict %v, want %v", name, got, want)
	}
}

// awaitCached looks up an active JWT until the cache has its record, because the cache may store a
// record late or drop it. Without the wait, a lookup after a change of the state might verify the
// JWT again.
func (m *machine) awaitCached(token string) {
	m.t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; runtime.Gosched() {
		before := m.counted()["cached"]
		m.want("until it is cached", token, revoked.Active)
		if m.counted()["cached"] > before {
			return
		}
	}
	m.t.Fatal("got no cache hit in a minute, want one")
}

// verified returns the verified JWT of a token, in the form in which a node puts it into an
// operation.
func (m *machine) verified(token string) *revoked.JWT {
	m.t.Helper()
	j, err := m.Verify(m.t.Context(), present(token))
	if err != nil {
		m.t.Fatal(err)
	}
	if j == nil {
		m.t.Fatal(errors.New("got an unverified token, want it verified"))
	}
	return j
}
