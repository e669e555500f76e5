package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/transport"
)

// A sim is one simulated cluster: whole nodes in one bubble of testing/synctest, on a network and on
// disks in memory, each with clocks of its own. One seed gives the schedule; what goroutine runs first
// is the runtime's choice, so a seed may have to be run more than once.
type sim struct {
	t       *testing.T
	seed    uint64
	dir     string
	began   time.Time
	net     *simNet
	ca      *transport.Authority
	nodes   []*simNode
	o       *simOracle
	nemesis *simNemesis
	wg      sync.WaitGroup

	mu  sync.Mutex
	rng *rand.Rand // of whoever needs chance outside of the nemesis
}

// A simNode is a node through its lives.
type simNode struct {
	s     *sim
	k     int
	id    string
	addr  string
	certs *transport.Certs
	// timeout is that of Raft. One node of some clusters has a long one: it stands for a process whose
	// timers run late, which learns of its deposition by messages only.
	timeout          time.Duration
	disk             *simDisk
	clock            *simClock
	lives, instances int

	mu      sync.Mutex
	life    *simLife // nil while it is down
	turning bool     // it is being stopped in order, or started: nobody else starts it
	gone    bool     // it was removed, or has lost its disk: it comes back with an empty one
}

// A simLife is one process.
type simLife struct {
	of    *simNode
	n     *Node
	host  *simHost
	gate  *simGate
	raft  *simRaft
	dir   string
	dead  atomic.Bool
	fresh bool
	self  raft.ServerID

	frozen atomic.Pointer[chan struct{}] // closed when it thaws
	pauses atomic.Pointer[time.Duration] // of the next read, between the copy and the lease

	// Guarded by the oracle.
	spec                 *specLife
	applied, lastCommand uint64
}

// A simClock is the clocks of one machine. Its wall clock is disciplined: right but for an offset. Its
// boot clock has a rate of its own.
type simClock struct {
	mu   sync.Mutex
	base time.Time
	boot instant
	rate float64
	wall atomic.Int64 // offset
}

func (c *simClock) Boot() instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot.add(time.Duration(float64(time.Since(c.base)) * c.rate))
}

func (c *simClock) pace() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rate
}

// turn makes the clock go on at another rate.
func (c *simClock) turn(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot, c.base, c.rate = c.boot.add(time.Duration(float64(time.Since(c.base))*c.rate)), time.Now(), rate
}

func (c *simClock) Wall() time.Time {
	return time.Now().Add(time.Duration(c.wall.Load()))
}

func (s *sim) intn(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

func (s *sim) number() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Uint64()
}

func newSim(t *testing.T, seed uint64, dir string, count *simCounts) *sim {
	s := &sim{t: t, seed: seed, dir: dir, began: time.Now(), rng: rand.New(rand.NewPCG(seed, 3))}
	s.net = newSimNet(rand.New(rand.NewPCG(seed, 2)))
	s.o = newSimOracle(s, count)
	var err error
	if s.ca, err = transport.NewAuthority("sim", 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	return s
}

// simTimeout is Raft's, of a node whose timers run in time.
const simTimeout = 600 * time.Millisecond

// simVoters is how many nodes found the cluster.
const simVoters = 3

func (s *sim) add() *simNode {
	k := len(s.nodes)
	m := &simNode{s: s, k: k, id: fmt.Sprintf("n%d", k+1), addr: fmt.Sprintf("10.0.0.%d:7000", k+1)}
	m.clock = &simClock{base: s.began, boot: instant(time.Hour) * instant(1+k), rate: 1 + rateBound*float64(s.intn(3)-1)}
	m.certs = s.issue(m)
	m.timeout = simTimeout
	if k == int(s.seed%7) {
		m.timeout = 4 * time.Second
	}
	s.nodes = append(s.nodes, m)
	return m
}

func (s *sim) issue(m *simNode) *transport.Certs {
	cert, key, err := s.ca.IssueNode(m.id, []string{"10.0.0.1"}, 24*time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(s.dir, m.id+"-"+name) }
	for name, b := range map[string][]byte{"ca.pem": s.ca.CertPEM(), "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(path(name), b, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	certs, err := transport.LoadCerts(path("ca.pem"), path("cert.pem"), path("key.pem"), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return certs
}

var simClients = []revoked.Client{
	{ID: "admin", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleAdmin}},
	{ID: "issuer", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleIssuer}},
	{ID: "app", Type: revoked.Confidential},
}

// start begins a new life on the disk as the last one left it; fresh begins with an empty one.
func (m *simNode) start(fresh bool) {
	s := m.s
	m.lives++
	fresh = fresh || m.lives == 1 || m.left()
	if fresh {
		m.instances++
		m.disk = newSimDisk()
	}
	dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", m.id, m.instances))
	if err := m.prepare(dir, fresh); err != nil {
		s.t.Fatal(err)
	}
	l := &simLife{of: m, dir: dir, fresh: fresh}
	l.spec = &specLife{clock: m.clock.Boot, wall: m.clock.wall.Load, rate: m.clock.pace,
		applied: func() uint64 { return l.n.fsm.Applied() }, last: func() uint64 { return l.n.raft.LastIndex() }}
	l.host = s.net.listen(m.k, m.addr)
	l.gate = &simGate{rng: rand.New(rand.NewPCG(s.number(), 4)), latency: 300 * time.Microsecond, stored: func(e *raft.Log) { s.o.stored(l, e) }}
	conf := Config{
		NodeID: m.id, Region: "r", DataDir: dir, API: "https://" + m.id, Version: "sim",
		Listener: l.host, Certs: m.certs, BootstrapClients: simClients,
		HeartbeatTimeout: m.timeout, ElectionTimeout: m.timeout, StableTime: 500 * time.Millisecond,
		RequestTimeout: 5 * time.Second,
		CacheSize:      1 << 20, StoreCacheSize: 1 << 20,
		Log: slog.New(&simLogHandler{o: s.o, node: m.id}), Now: m.clock.Wall, BootClock: m.clock.Boot,
		Crash: func(err error) { s.ends(l, err) },
	}
	for _, o := range s.nodes[:min(simVoters, len(s.nodes))] {
		conf.Join = append(conf.Join, o.addr)
	}
	if m.k < simVoters && m.lives == 1 {
		conf.BootstrapExpect = simVoters
	}
	seed := s.number()
	conf.seams = seams{
		dial: l.host.dial, stores: m.disk.open(l.gate), snapshots: m.disk.snaps.open,
		transport:     func(t raft.Transport) raft.Transport { l.raft = newSimRaft(t, seed); return l.raft },
		commitTimeout: 150 * time.Millisecond,
		trace:         func(e traceEvent) { s.o.trace(l, e) },
		fs: simFS{m.disk.state, filepath.Join(dir, "state", "CURRENT"), func() time.Duration {
			return time.Duration(s.intn(int(100 * time.Millisecond)))
		}},
	}
	n, err := Open(context.Background(), conf)
	if err != nil {
		s.o.fail("start", "%s does not start: %v", m.id, err)
		if l.raft != nil {
			l.raft.Close()
		}
		return
	}
	s.o.born(l, n)
	m.mu.Lock()
	m.life = l
	m.mu.Unlock()
	s.wg.Go(func() {
		select {
		case <-n.Done():
			s.o.ended(l, n.Err())
		case <-n.ctx.Done():
		}
	})
}

// left reports whether the node has noted that it is a member no more: it may have died with the word.
func (m *simNode) left() bool {
	b, err := os.ReadFile(filepath.Join(m.s.dir, fmt.Sprintf("%s-%d", m.id, m.instances), "identity.json"))
	var id identity
	return err == nil && json.Unmarshal(b, &id) == nil && id.Left
}

// ends hears that a life ends itself at once: right only where its disk hangs.
func (s *sim) ends(l *simLife, err error) {
	if !strings.Contains(err.Error(), "hangs") {
		s.o.fail("store", "%s: %v", l.self, err)
		return
	}
	s.o.count.add("nemesis: leaders whose disk hangs end themselves")
	s.wg.Go(func() {
		l.of.crash(false)
		s.nemesis.later(time.Second, func() { s.nemesis.revive(l.of) })
	})
}

// prepare makes the directory of a life. The identity is a file, and so are marks of what the node looks
// for beside it; the rest is on the simulated disk, under the same path.
func (m *simNode) prepare(dir string, fresh bool) error {
	if fresh {
		return errors.Join(os.MkdirAll(dir, 0o700), m.disk.mkdir(filepath.Join(dir, "state")))
	}
	err := os.Remove(filepath.Join(dir, "LOCK")) // the old life may hold it for a moment still
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return err
	}
	return errors.Join(err,
		os.WriteFile(filepath.Join(dir, raftFile), []byte("simulated"), 0o600),
		os.WriteFile(filepath.Join(dir, "state", "CURRENT"), []byte("simulated"), 0o600),
	)
}

func (m *simNode) now() *simLife {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// crash ends the life of a node at once, as kill -9 does, or a power cut of its machine.
func (m *simNode) crash(machine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.life
	if l == nil {
		return
	}
	m.life = nil
	l.dead.Store(true)
	m.s.o.died(l)
	m.s.net.kill(l.host, machine)
	m.disk = m.disk.crash(l.gate, rand.New(rand.NewPCG(m.s.number(), 5)))
	m.s.wg.Go(func() {
		l.n.release()
		answerTransfers(l.n.raft)
	})
}

// answerTransfers answers the hand-overs that a Raft which has ended did not come to: it leaves them
// without an answer, and in a bubble no goroutine may be left that waits for one.
func answerTransfers(r *raft.Raft) {
	inner := func(v reflect.Value, name string) reflect.Value {
		f := v.Elem().FieldByName(name)
		return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
	}
	for ch := inner(reflect.ValueOf(r), "leadershipTransferCh"); ; {
		future, ok := ch.TryRecv()
		if !ok {
			return
		}
		inner(future, "errCh").Send(reflect.ValueOf(raft.ErrRaftShutdown))
	}
}

// stop ends it in order.
func (m *simNode) stop() {
	m.mu.Lock()
	l := m.life
	if l == nil || m.turning {
		m.mu.Unlock()
		return
	}
	m.life, m.turning = nil, true
	m.mu.Unlock()
	l.n.Close(context.Background())
	answerTransfers(l.n.raft)
	l.dead.Store(true)
	m.s.o.died(l)
	m.s.net.kill(l.host, false)
	m.mu.Lock()
	m.turning = false
	m.mu.Unlock()
}

// end stops everything.
func (s *sim) end() {
	for _, m := range s.nodes {
		m.crash(false)
	}
	s.wg.Wait()
}

// begin starts the founders, and returns when every node holds a lease.
func (s *sim) begin() {
	for range simVoters {
		s.add()
	}
	for _, m := range s.nodes {
		m.start(false)
	}
	if !s.until("every node holds a lease", time.Minute, s.allHold) {
		s.t.Fatal(s.o.err)
	}
}

// holders is how many nodes hold a lease.
func (s *sim) holders() (n int) {
	for _, m := range s.nodes {
		if l := m.now(); l != nil && l.n.leases.valid() {
			n++
		}
	}
	return n
}

func (s *sim) allHold() bool { return s.holders() == len(s.nodes) }

// until waits for something that must come.
func (s *sim) until(what string, d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.o.fail("progress", "waited %v in vain until %s", d, what)
			return false
		}
		if s.o.failed() {
			return false
		}
	}
	return true
}

// A simLogHandler keeps the newest lines of all nodes, for the report of a failure.
type simLogHandler struct {
	o    *simOracle
	node string
}

func (h *simLogHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h *simLogHandler) WithGroup(string) slog.Handler                { return h }
func (h *simLogHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return h
}
func (h *simLogHandler) Handle(_ context.Context, r slog.Record) error {
	h.o.note(func() string {
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s %s %s", h.node, r.Level, r.Message)
		r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true })
		return b.String()
	})
	return nil
}
