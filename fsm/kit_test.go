package fsm_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
)

// start is the moment at which every test begins.
const start = revoked.Time(1_790_000_000 * 1e6)

// A machine is a state machine with the log that made it.
type machine struct {
	t       testing.TB
	f       *fsm.FSM
	dir     string
	log     []*raft.Log
	now     revoked.Time
	changes *changes
	mu      sync.Mutex
	fatal   []error
	cache   int64 // 0: the default
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

// empty opens a state machine with nothing in it.
func empty(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), now: start}
	m.open()
	t.Cleanup(func() { m.f.Close() })
	return m
}

func (m *machine) open() {
	m.t.Helper()
	m.changes = &changes{tokens: map[revoked.Digest]int{}, grants: map[string]int{}}
	f, err := fsm.Open(fsm.Config{Dir: m.dir, CacheBytes: m.cache, Changes: m.changes, Fatal: m.onFatal})
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

// newMachine opens one with a cluster id and the clients of the contract.
func newMachine(t testing.TB) *machine {
	t.Helper()
	m := empty(t)
	m.apply(fsm.TypeBootstrap, &fsm.Bootstrap{
		ClusterId: "c-1", Settings: fsm.SettingsMessage(revoked.DefaultSettings()), Clients: clientRecords(),
	})
	return m
}

func clientRecords() []*fsm.ClientRecord {
	var recs []*fsm.ClientRecord
	for _, c := range []struct {
		id    string
		roles []revoked.Role
	}{
		{"admin", []revoked.Role{revoked.RoleAdmin}}, {"issuer", []revoked.Role{revoked.RoleIssuer}},
		{"issuer2", []revoked.Role{revoked.RoleIssuer}}, {"rs", []revoked.Role{revoked.RoleResourceServer}},
		{"app", nil}, {"other", nil},
	} {
		recs = append(recs, fsm.ClientMessage(confidential(c.id, c.roles...)))
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

// entry appends a command to the log and does not apply it.
func (m *machine) entry(typ fsm.Type, msg proto.Message) *raft.Log {
	m.t.Helper()
	switch c := msg.(type) {
	case *fsm.Batch:
		c.Stamp = int64(m.now)
	case *fsm.Bootstrap:
		c.Stamp = int64(m.now)
	case *fsm.Tick:
		c.Stamp = int64(m.now)
	case *fsm.Epoch:
		c.Stamp = int64(m.now)
	case *fsm.Expire:
		c.Stamp = int64(m.now)
	case *fsm.Reap:
		c.Stamp = int64(m.now)
	}
	b, err := fsm.Encode(typ, msg)
	if err != nil {
		m.t.Fatalf("encode: %v", err)
	}
	l := &raft.Log{Index: uint64(len(m.log) + 1), Term: 1, Type: raft.LogCommand, Data: b}
	m.log = append(m.log, l)
	return l
}

func (m *machine) apply(typ fsm.Type, msg proto.Message) *fsm.Outcome {
	m.t.Helper()
	l := m.entry(typ, msg)
	out, ok := m.f.Apply(l).(*fsm.Outcome)
	if !ok || out.Index != l.Index {
		m.t.Fatalf("apply %s at %d: got %v, fatal %v", typ, l.Index, out, m.fatal)
	}
	return out
}

// do applies operations in one entry.
func (m *machine) do(ops ...*fsm.Op) []fsm.Result {
	m.t.Helper()
	return m.apply(fsm.TypeBatch, &fsm.Batch{Ops: ops}).Results
}

// must applies one operation that has to succeed.
func (m *machine) must(op *fsm.Op) fsm.Result {
	m.t.Helper()
	r := m.do(op)[0]
	if r.Err != nil {
		m.t.Fatalf("got %v, want success", r.Err)
	}
	return r
}

func (m *machine) later(d time.Duration) { m.now = m.now.Add(d); m.apply(fsm.TypeTick, &fsm.Tick{}) }

// by returns a client as it is now.
func (m *machine) by(id string) revoked.Actor {
	m.t.Helper()
	c, ok := m.f.Client(id)
	if !ok {
		m.t.Fatalf("no client %q", id)
	}
	return revoked.ActorOf(c)
}

func digest(name string) revoked.Digest { return revoked.DigestToken(name) }

// pair is a registration of an access token "a-"+name and a refresh token "r-"+name in grant "g-"+name.
func pair(name string) revoked.Registration {
	return revoked.Registration{
		GrantID: "g-" + name, ClientID: "app", Subject: "alice", Session: "s-1", Username: "alice@example.org",
		Issuer: "https://as.example", Scope: "read write", Audience: []string{"rs"},
		Tokens: []revoked.TokenRegistration{access("a-"+name, start, time.Hour), refresh("r-"+name, start, 24*time.Hour)},
	}
}

func access(name string, iat revoked.Time, life time.Duration) revoked.TokenRegistration {
	t := revoked.TokenRegistration{Digest: digest(name), Kind: revoked.AccessToken, IssuedAt: iat, JTI: "jti-" + name, NotBefore: iat}
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
	return m.must(fsm.RegisterOp(m.by("issuer"), r)).Register
}

func (m *machine) revoke(client, token string) fsm.Result {
	m.t.Helper()
	return m.do(fsm.RevokeOp(m.by(client), digest(token), "test"))[0]
}

// verdict decides as a node does, with a clock that agrees with the log.
func (m *machine) verdict(token string) revoked.Verdict {
	m.t.Helper()
	r, err := m.f.Lookup(digest(token))
	if err != nil {
		m.t.Fatalf("lookup %s: %v", token, err)
	}
	return revoked.Decide(&r, m.f.Circumstances(r.Grant.ClientID, m.now))
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

// drain applies the background commands that are due until none is.
func (m *machine) drain() {
	m.t.Helper()
	for range 10_000 {
		typ, msg, ok := m.f.Backlog(m.now)
		if !ok {
			return
		}
		m.apply(typ, msg)
	}
	m.t.Fatal("the backlog never ends")
}

// replayed opens another state machine and applies the whole log to it, in batches of n entries.
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
		m.t.Errorf("states differ: index %d and %d, log %x and %x, state %x and %x", i1, i2, l1[:4], l2[:4], s1[:4], s2[:4])
	}
}

// crash copies the directory as a crash now would leave it, and opens the copy.
func (m *machine) crash() *machine {
	m.t.Helper()
	r := &machine{t: m.t, dir: m.moment(), now: m.now, log: append([]*raft.Log(nil), m.log...)}
	r.open()
	m.t.Cleanup(func() { r.f.Close() })
	return r
}

// moment copies the directory as it is at one moment: a flush in the background may add and remove files
// during a copy, which then is thrown away.
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

// files tells the names and sizes of all files.
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

func TestRevocationEndsBothTokens(t *testing.T) {
	m := newMachine(t)
	got := m.register(pair("1"))
	if !got.Created || got.Revoked || got.GrantID != "g-1" {
		t.Fatalf("register: got %+v", got)
	}
	m.want("a-1", revoked.Active)
	m.want("r-1", revoked.Active)
	if r := m.revoke("app", "r-1"); r.Err != nil || r.Index != 3 {
		t.Fatalf("revoke: got %+v", r)
	}
	m.want("a-1", revoked.Dead)
	m.want("r-1", revoked.Dead)
	if m.changes.grants["g-1"] == 0 || m.changes.tokens[digest("a-1")] == 0 {
		t.Errorf("changes were not told: %v %v", m.changes.grants, m.changes.tokens)
	}
	m.sameAs(m.replayed(2))
	if got := fmt.Sprint(m.fatal); got != "[]" {
		t.Errorf("fatal: %s", got)
	}
}
