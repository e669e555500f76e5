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
	"revoked/fsm/command"
	"revoked/internal/retry"
	"revoked/node/datadir"
	"revoked/node/internal/simkit"
	"revoked/node/lease"
	"revoked/node/lease/leasecheck"
	"revoked/node/raftstore"
	"revoked/transport/pki"
)

// A sim is one simulated cluster: whole nodes in one bubble of testing/synctest, with a network and
// disks in memory and their own clocks. A seed determines the schedule. The runtime decides
// which goroutine runs first, so a failure may take several runs of its seed.
type sim struct {
	t       *testing.T
	seed    uint64
	dir     string
	began   time.Time
	net     *simkit.Network
	ca      *pki.CA
	nodes   []*simNode
	outside *simNode // the outsider
	o       *simOracle
	nemesis *simNemesis
	wg      sync.WaitGroup
	// timeout is Raft's heartbeat timeout of a node whose timers fire in time.
	timeout  time.Duration
	settings revoked.Settings
	over     atomic.Bool // see end

	mu  sync.Mutex
	rng *rand.Rand // for everything but the nemesis
}

// A simNode is a node over all its processes.
type simNode struct {
	s     *sim
	k     int
	id    string
	addr  string
	certs *pki.Certs
	// timeout is Raft's heartbeat timeout. One node of some clusters has a long one. It represents a
	// process whose timers fire late: it detects that it was deposed only from messages.
	timeout          time.Duration
	disk             *simkit.Disk
	clock            *simClock
	lives, instances int
	folder           string   // prefix of its data directories
	twin             *simNode // a second machine with this node's certificate; nil for a twin
	image            *simImage
	rolled           raft.ServerID // the instance that runs on an older image of its disk

	mu      sync.Mutex
	life    *simLife // nil while it is down
	turning bool     // it is starting or stopping
	gone    bool     // removed, or lost its disk: it returns with an empty one
}

// A simLife is one process of a node.
type simLife struct {
	of    *simNode
	n     *Node
	host  *simkit.Host
	gate  *simkit.Gate
	raft  *simRaft
	dir   string
	dead  atomic.Bool
	fresh bool
	self  raft.ServerID
	// rolled reports that the process runs on an older image of its disk.
	rolled bool

	frozen atomic.Pointer[chan struct{}] // closed when it thaws
	pauses atomic.Pointer[time.Duration] // pause of the next read before its lease check

	// The oracle's lock guards these.
	life                 *leasecheck.Life
	applied, lastCommand uint64
}

// A simClock has the clocks of one machine. The wall clock is exact except for an offset. The boot
// clock has its own rate.
type simClock struct {
	mu   sync.Mutex
	base time.Time
	boot lease.Instant
	rate float64
	wall atomic.Int64 // offset
	// jumps is odd during a jump, and counts two for each.
	jumps atomic.Int64
}

// jump moves the wall clock.
func (c *simClock) jump(d time.Duration) {
	c.jumps.Add(1)
	c.wall.Add(int64(d))
	c.jumps.Add(1)
}

func (c *simClock) Boot() lease.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot.Add(time.Duration(float64(time.Since(c.base)) * c.rate))
}

func (c *simClock) pace() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rate
}

// turn changes the rate of the boot clock.
func (c *simClock) turn(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot, c.base, c.rate = c.boot.Add(time.Duration(float64(time.Since(c.base))*c.rate)), time.Now(), rate
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
	s := &sim{t: t, seed: seed, dir: dir, began: time.Now(), rng: rand.New(rand.NewPCG(seed, 3)),
		timeout: simTimeout, settings: revoked.DefaultSettings()}
	s.settings.LeaseDuration = simLease
	s.net = simkit.NewNetwork(rand.New(rand.NewPCG(seed, 2)))
	s.o = newSimOracle(s, count)
	var err error
	if s.ca, err = pki.NewCA("sim", 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	return s
}

// The faults are spaced for these values. The nemesis changes the length of the lease.
const (
	simTimeout = 600 * time.Millisecond
	simLease   = 2 * time.Second
)

// simVoters is the number of initial members.
const simVoters = 3

func (s *sim) add() *simNode {
	k := len(s.nodes)
	m := &simNode{s: s, k: k, id: fmt.Sprintf("n%d", k+1), addr: fmt.Sprintf("10.0.0.%d:7000", k+1)}
	m.clock = &simClock{base: s.began, boot: lease.Instant(time.Hour) * lease.Instant(1+k),
		rate: 1 + lease.RateBound*float64(s.intn(3)-1)}
	m.certs = s.issue(m)
	m.timeout = s.timeout
	if k == int(s.seed%7) {
		m.timeout = 4 * time.Second
	}
	m.folder = m.id
	m.twin = &simNode{s: s, k: 100 + k, id: m.id, folder: m.id + "-twin", addr: fmt.Sprintf("10.0.1.%d:7000", k+1),
		certs: m.certs, timeout: s.timeout,
		clock: &simClock{base: s.began, boot: lease.Instant(time.Minute) * lease.Instant(1+k), rate: 1}}
	s.nodes = append(s.nodes, m)
	return m
}

func (s *sim) issue(m *simNode) *pki.Certs {
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
	certs, err := pki.LoadCerts(path("ca.pem"), path("cert.pem"), path("key.pem"), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return certs
}

var simClients = []revoked.Client{
	{ID: "admin", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleAdmin},
		AuthMethods: []string{revoked.AuthBasic}},
	{ID: "issuer", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleIssuer},
		AuthMethods: []string{revoked.AuthBasic}},
	{ID: "app", Type: revoked.Confidential, AuthMethods: []string{revoked.AuthBasic}},
	{ID: "as", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleIssuer}, Issuers: simIssuerNames(),
		AuthMethods: []string{revoked.AuthBasic}},
}

// start starts a process on the node's disk, or on an empty one if fresh is set.
func (m *simNode) start(fresh bool) {
	s := m.s
	m.lives++
	fresh = fresh || m.lives == 1 || m.left()
	if fresh {
		m.instances++
		m.disk = simkit.NewDisk()
	}
	taken := m.takeImage(fresh)
	dir := m.dataDir()
	if err := m.prepare(dir, fresh); err != nil {
		s.t.Fatal(err)
	}
	l := &simLife{of: m, dir: dir, fresh: fresh}
	l.life = &leasecheck.Life{Clock: func() int64 { return int64(m.clock.Boot()) }, Wall: m.clock.wall.Load,
		Rate:    m.clock.pace,
		Applied: func() uint64 { return l.n.fsm.Applied() }, Last: func() uint64 { return l.n.raft.LastIndex() }}
	l.host = s.net.Listen(m.k, m.addr)
	l.gate = &simkit.Gate{RNG: rand.New(rand.NewPCG(s.number(), 4)), Latency: 300 * time.Microsecond,
		Stored: func(e *raft.Log) { s.o.stored(l, e) }}
	conf := Config{
		NodeID: m.id, Region: "r", DataDir: dir, API: "https://" + m.id, Version: "sim",
		Listener: l.host, Certs: m.certs, BootstrapClients: simClients,
		Defaults:         s.settings,
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
	conf.hooks = hooks{
		dial: l.host.Dial, store: m.disk.Hooks(l.gate),
		transport:   func(t raft.Transport) raft.Transport { l.raft = newSimRaft(t, seed); return l.raft },
		fetchKeys:   s.fetchKeys,
		observation: s.o.observation(l),
		fs: simkit.FS{FS: m.disk.State, Current: filepath.Join(dir, "state", "CURRENT"), Delay: func() time.Duration {
			return time.Duration(s.intn(int(100 * time.Millisecond)))
		}},
	}
	n, err := Open(context.Background(), conf)
	if err != nil {
		s.o.fail("start", "%s: start failed: %v", m.id, err)
		if l.raft != nil {
			l.raft.Close()
		}
		return
	}
	m.mu.Lock()
	if taken != nil {
		taken.self, taken.end, taken.voters = n.id.Server, n.store.EndAtStart(), votersOf(n)
	}
	l.rolled = m.rolled == n.id.Server
	m.mu.Unlock()
	s.o.born(l, n)
	s.o.watchElections(l)
	m.mu.Lock()
	m.life = l
	m.mu.Unlock()
	s.wg.Go(func() {
		select {
		case <-n.Done():
			s.o.ended(l, n.Err())
		case <-n.life.ctx.Done():
		}
	})
	if s.over.Load() { // end did not find it
		m.crash(false)
	}
}

// votersOf returns the number of voters in the newest configuration of n's log.
func votersOf(n *Node) int {
	voters := 0
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters
}

// addOutsider adds a node that is not admitted.
func (s *sim) addOutsider() {
	m := &simNode{s: s, k: 99, id: "outsider", folder: "outsider", addr: "10.0.2.1:7000", timeout: simTimeout,
		clock: &simClock{base: s.began, boot: lease.Instant(time.Minute), rate: 1}}
	m.certs = s.issue(m)
	s.outside = m
	m.start(true)
}

// operate acts as an operator: it admits the nodes that are not members, until ctx ends.
func (s *sim) operate(ctx context.Context) {
	for ctx.Err() == nil && !s.o.failed() {
		s.admitAll(ctx)
		retry.Sleep(ctx, time.Second)
	}
}

// admitAll admits the running nodes that are not members, and those that a removal has barred
// without removing them. Their next instance could not replace them.
func (s *sim) admitAll(ctx context.Context) {
	for _, m := range s.nodes {
		l := m.now()
		if l == nil || l.n.roster.IsMember(m.id) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		for _, o := range s.nodes {
			by := o.now()
			if by == nil || !by.n.roster.IsMember(o.id) || by.n.roster.IsMember(m.id) && !by.bars(m.id) {
				continue
			}
			op := command.AdmitNodeOp(by.actor("admin"), m.id, false, time.Hour)
			if _, err := by.n.propose.Commit(ctx, op); err == nil {
				s.o.count.add("operator: admissions")
				break
			}
		}
		cancel()
	}
}

// dataDir returns the data directory of the newest instance.
func (m *simNode) dataDir() string {
	return filepath.Join(m.s.dir, fmt.Sprintf("%s-%d", m.folder, m.instances))
}

// left reports whether the data directory is marked as that of a node that left.
func (m *simNode) left() bool { return m.identity().Left }

// instance returns the instance whose data directory it is, as Raft names it.
func (m *simNode) instance() raft.ServerID {
	id := m.identity()
	return raft.ServerID(id.NodeID + "/" + id.Instance)
}

// identity returns the identity in the data directory, or the zero value if it has none.
func (m *simNode) identity() *datadir.Identity {
	id := new(datadir.Identity)
	b, err := os.ReadFile(filepath.Join(m.dataDir(), "identity.json"))
	if err != nil || json.Unmarshal(b, id) != nil {
		return new(datadir.Identity)
	}
	return id
}

// ends is called when a process crashes itself, which only a hanging disk may cause.
func (s *sim) ends(l *simLife, err error) {
	if !strings.Contains(err.Error(), "hangs") {
		s.o.fail("store", "%s: %v", l.self, err)
		return
	}
	s.o.count.add("nemesis: leaders whose disk hangs exit")
	s.wg.Go(func() {
		l.of.crash(false)
		s.nemesis.later(time.Second, func() { s.nemesis.revive(l.of) })
	})
}

// prepare creates the directory of a process. The identity and the marker files that a node checks
// are real files. All else is on the simulated disk, under the same path.
func (m *simNode) prepare(dir string, fresh bool) error {
	if fresh {
		return errors.Join(os.MkdirAll(dir, 0o700), m.disk.Mkdir(filepath.Join(dir, "state")))
	}
	err := os.Remove(filepath.Join(dir, "LOCK")) // the old process may still hold it
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return err
	}
	return errors.Join(err,
		os.WriteFile(filepath.Join(dir, raftstore.LogFile), []byte("simulated"), 0o600),
		os.WriteFile(filepath.Join(dir, "state", "CURRENT"), []byte("simulated"), 0o600),
	)
}

func (m *simNode) now() *simLife {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// crash ends a process immediately, like kill -9 or, with machine, a power cut.
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
	m.s.net.Kill(l.host, machine)
	m.disk = m.disk.Crash(l.gate, rand.New(rand.NewPCG(m.s.number(), 5)))
	m.s.wg.Go(func() {
		l.n.life.close()
		answerTransfers(l.n.raft)
	})
}

// answerTransfers completes transfer requests that a stopped Raft left without a response. No
// goroutine of a bubble may wait forever.
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

// stop stops the process cleanly.
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
	m.s.net.Kill(l.host, false)
	m.mu.Lock()
	m.turning = false
	m.mu.Unlock()
}

// end stops all processes, including one that is just being started.
func (s *sim) end() {
	s.over.Store(true)
	for _, m := range s.nodes {
		m.crash(false)
		m.twin.crash(false)
	}
	if s.outside != nil {
		s.outside.crash(false)
	}
	s.wg.Wait()
}

// begin starts the initial members and returns once every node holds a lease.
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

// holders returns the number of nodes that hold a lease.
func (s *sim) holders() (n int) {
	for _, m := range s.nodes {
		if l := m.now(); l != nil && l.n.leases.valid() {
			n++
		}
	}
	return n
}

func (s *sim) allHold() bool { return s.holders() == len(s.nodes) }

// until waits until ok returns true, and fails the schedule after d.
func (s *sim) until(what string, d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.o.fail("progress", "got no success after %v, want: %s", d, what)
			return false
		}
		if s.o.failed() {
			return false
		}
	}
	return true
}

// A simLogHandler keeps the newest log lines of all nodes for the report of a failure.
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
