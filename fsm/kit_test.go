package fsm_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// start is the time at which every test starts.
const start = revoked.Time(1_790_000_000 * 1e6)

// A machine is a state machine with its log.
type machine struct {
	t       testing.TB
	f       *fsm.FSM
	dir     string
	log     []*raft.Log
	now     revoked.Time
	rules   uint32 // rules of the batches
	audited bool   // the batches leave audit entries
	changes *changes
	mu      sync.Mutex
	fatal   []error
	logger  *slog.Logger // nil: none
}

type changes struct {
	mu     sync.Mutex
	tokens map[revoked.Digest]int
	grants map[string]int
	all    int
}

func (c *changes) TokenChanged(d revoked.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[d]++
}

func (c *changes) GrantChanged(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grants[id]++
}

func (c *changes) AllChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
}

// empty opens an empty state machine.
func empty(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), now: start, rules: command.Rules}
	m.open()
	t.Cleanup(func() { m.f.Close() })
	return m
}

func (m *machine) open() {
	m.t.Helper()
	m.changes = &changes{tokens: map[revoked.Digest]int{}, grants: map[string]int{}}
	f, err := fsm.Open(fsm.Config{Dir: m.dir, Log: m.logger, Changes: m.changes, Fatal: m.onFatal})
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	m.f = f
}

func (m *machine) onFatal(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fatal = append(m.fatal, err)
}

// newMachine opens a state machine with a cluster id and clients. Its entries have the given rules,
// or the newest ones.
func newMachine(t testing.TB, rules ...uint32) *machine {
	t.Helper()
	m := empty(t)
	for _, r := range rules {
		m.rules = r
	}
	m.apply(&command.Bootstrap{
		ClusterId: "c-1", Settings: command.SettingsMessage(testSettings()), Clients: clientRecords(),
	})
	return m
}

func clientRecords() []*command.ClientRecord {
	var recs []*command.ClientRecord
	for _, c := range []struct {
		id    string
		roles []revoked.Role
	}{
		{"admin", []revoked.Role{revoked.RoleAdmin}}, {"issuer", []revoked.Role{revoked.RoleIssuer}},
		{"issuer2", []revoked.Role{revoked.RoleIssuer}}, {"rs", []revoked.Role{revoked.RoleResourceServer}},
		{"app", nil}, {"other", nil},
	} {
		recs = append(recs, command.ClientMessage(confidential(c.id, c.roles...)))
	}
	return recs
}

func confidential(id string, roles ...revoked.Role) *revoked.Client {
	hash := sha256.Sum256([]byte("secret of " + id))
	return &revoked.Client{
		ID: id, Type: revoked.Confidential, Roles: roles, AuthMethods: []string{revoked.AuthBasic},
		Secrets: []revoked.SecretHash{{Kind: revoked.HashSHA256, Salt: []byte("salt"), Hash: hash[:]}},
	}
}

// entry appends a command with the stamp m.now to the log, without applying it.
func (m *machine) entry(c command.Command) *raft.Log {
	m.t.Helper()
	r := c.ProtoReflect()
	r.Set(r.Descriptor().Fields().ByName("stamp"), protoreflect.ValueOfInt64(int64(m.now)))
	b, err := command.Encode(c)
	if err != nil {
		m.t.Fatalf("encode: %v", err)
	}
	l := &raft.Log{Index: uint64(len(m.log) + 1), Term: 1, Type: raft.LogCommand, Data: b}
	m.log = append(m.log, l)
	return l
}

func (m *machine) apply(c command.Command) *fsm.Outcome {
	m.t.Helper()
	l := m.entry(c)
	out, ok := m.f.Apply(l).(*fsm.Outcome)
	if !ok || out.Index != l.Index {
		m.t.Fatalf("apply %v at index %d: got %v, fatal %v", c, l.Index, out, m.fatal)
	}
	return out
}

// do applies operations in one entry.
func (m *machine) do(ops ...*command.Op) []fsm.Result {
	m.t.Helper()
	return m.apply(&command.Batch{Ops: ops, Rules: m.rules, Audited: m.audited}).Results
}

// must applies one operation and fails the test unless it succeeds.
func (m *machine) must(op *command.Op) fsm.Result {
	m.t.Helper()
	r := m.do(op)[0]
	if r.Err != nil {
		m.t.Fatalf("got %v, want success", r.Err)
	}
	return r
}

func (m *machine) later(d time.Duration) { m.now = m.now.Add(d); m.apply(&command.Tick{}) }

// by returns a client, in its current version, as an actor.
func (m *machine) by(id string) revoked.Actor {
	m.t.Helper()
	c, ok := m.f.Client(id)
	if !ok {
		m.t.Fatalf("client %q: got no record, want one", id)
	}
	return revoked.ActorOf(c)
}

func digest(name string) revoked.Digest { return revoked.DigestToken(name) }

// pair returns a registration of access token "a-"+name and refresh token "r-"+name in grant
// "g-"+name.
func pair(name string) revoked.Registration {
	return revoked.Registration{
		GrantID: "g-" + name, ClientID: "app", Subject: "alice", Session: "s-1", Username: "alice@example.org",
		Issuer: "https://as.example", Scope: "read write", Audience: []string{"rs"},
		Tokens: []revoked.TokenRegistration{access("a-"+name, start, time.Hour),
			refresh("r-"+name, start, 24*time.Hour)},
	}
}

func access(name string, iat revoked.Time, life time.Duration) revoked.TokenRegistration {
	t := revoked.TokenRegistration{Digest: digest(name), Kind: revoked.AccessToken, IssuedAt: iat,
		JTI: "jti-" + name, NotBefore: iat}
	if life > 0 {
		t.ExpiresAt = iat.Add(life)
	}
	return t
}

func refresh(name string, iat revoked.Time, life time.Duration) revoked.TokenRegistration {
	t := access(name, iat, life)
	t.Kind, t.JTI, t.NotBefore = revoked.RefreshToken, "", 0
	return t
}

func (m *machine) register(r revoked.Registration) revoked.RegisterResult {
	m.t.Helper()
	return m.must(command.RegisterOp(m.by("issuer"), r)).Register
}

func (m *machine) revoke(client, token string) fsm.Result {
	m.t.Helper()
	return m.do(command.RevokeOp(m.by(client), digest(token), "test"))[0]
}

// lookup reads a token and its grant as a node does. If the grant is dropped between the two reads,
// the token counts as not found.
func lookup(f *fsm.FSM, d revoked.Digest) (r revoked.Record, err error) {
	if r.Token, r.Found, err = f.LookupToken(d); err == nil && r.Found {
		r.Grant, r.Found, err = f.LookupGrant(r.Token.GrantID)
	}
	return r, err
}

// verdict returns the verdict of a node whose clock shows the stamp of the log.
func (m *machine) verdict(token string) revoked.Verdict {
	m.t.Helper()
	r, err := lookup(m.f, digest(token))
	if err != nil {
		m.t.Fatalf("lookup %s: %v", token, err)
	}
	v, err := m.f.Decide(&r, m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	return v.Verdict
}

func (m *machine) want(token string, want revoked.Verdict) {
	m.t.Helper()
	if got := m.verdict(token); got != want {
		m.t.Errorf("verdict of %s: got %v, want %v", token, got, want)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

// drain applies background commands until none is due.
func (m *machine) drain() {
	m.t.Helper()
	for range 10_000 {
		c := m.f.Backlog(m.now, atMost)
		if c == nil {
			return
		}
		m.apply(c)
	}
	m.t.Fatal("backlog: got 10,000 commands, want fewer")
}

// replayed applies the whole log to another state machine, in batches of n entries.
func (m *machine) replayed(n int) *machine {
	m.t.Helper()
	r := empty(m.t)
	for i := 0; i < len(m.log); i += n {
		r.f.ApplyBatch(m.log[i:min(i+n, len(m.log))])
	}
	r.log, r.now = append(r.log, m.log...), m.now
	return r
}

func (m *machine) sameAs(other *machine) {
	m.t.Helper()
	i1, l1, s1 := m.f.Hashes()
	i2, l2, s2 := other.f.Hashes()
	if i1 != i2 || l1 != l2 || s1 != s2 {
		m.t.Errorf("states differ: index %d and %d, log %x and %x, state %x and %x", i1, i2, l1[:4], l2[:4], s1[:4],
			s2[:4])
	}
}

// crash opens a copy of the directory in the state after a crash at this moment.
func (m *machine) crash() *machine {
	m.t.Helper()
	r := &machine{t: m.t, dir: m.moment(), now: m.now, rules: m.rules, log: append([]*raft.Log(nil), m.log...)}
	r.open()
	m.t.Cleanup(func() { r.f.Close() })
	return r
}

// moment copies the directory as it is at one moment. A background flush may change files during a
// copy: moment discards that copy and tries again.
func (m *machine) moment() string {
	m.t.Helper()
	for {
		dir := filepath.Join(m.t.TempDir(), "x")
		before := m.files()
		err := os.CopyFS(dir, os.DirFS(m.dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.t.Fatal(err)
		}
		if err == nil && slices.Equal(before, m.files()) {
			return dir
		}
	}
}

// files returns the names and sizes of all files.
func (m *machine) files() (list []string) {
	m.t.Helper()
	err := filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, info.Size()))
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return list
}

// atMost gives background commands their largest limit.
func atMost(limit int) int { return limit }

// testSettings returns the settings of the golden files.
func testSettings() revoked.Settings {
	s := revoked.DefaultSettings()
	s.LeaseDuration = 2 * time.Second
	return s
}
