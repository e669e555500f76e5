package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"revoked/internal/retry"
)

// simRun is the configuration of a run. The environment sets it:
//
//   - SIM_MINUTES: simulated minutes, at least (default 2)
//   - SIM_WALL: wall time instead, such as "5m"
//   - SIM_DEMAND: simulated minutes that SIM_WALL must be enough for
//   - SIM_SEED: seed of the first schedule (default: random)
//   - SIM_LOG=1: print the log of every schedule
type simRun struct {
	minutes float64
	wall    time.Duration
	seed    uint64
	log     bool
	demand  float64
}

func simRunOf(t *testing.T) simRun {
	r := simRun{minutes: 2, seed: uint64(time.Now().UnixNano()) % 1e9, log: os.Getenv("SIM_LOG") != ""}
	var err error
	set := func(name string, parse func(string)) {
		if v := os.Getenv(name); v != "" {
			if parse(v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	set("SIM_MINUTES", func(v string) { r.minutes, err = strconv.ParseFloat(v, 64) })
	set("SIM_WALL", func(v string) { r.wall, err = time.ParseDuration(v) })
	set("SIM_DEMAND", func(v string) { r.demand, err = strconv.ParseFloat(v, 64) })
	set("SIM_SEED", func(v string) { r.seed, err = strconv.ParseUint(v, 10, 64) })
	return r
}

// simSchedule is the simulated length of one schedule.
const simSchedule = 2 * time.Minute

// simRates are events that must each happen at least once in two simulated minutes on average. The
// check applies to runs of at least 20 simulated minutes. An idle cluster would test nothing.
var simRates = []string{"nemesis: leader changes", "nemesis: crashes", "nemesis: cuts"}

// simRaces are the races that a schedule can hit. A run of at least 1,000 simulated minutes must
// hit each once in 100 minutes on average.
var simRaces = []string{
	"race: deposed leader gets a lease request",
	"race: deposed leader serves itself",
	"race: Raft response of an earlier round",
	"race: admitted, acknowledged, then granted",
	"race: new leader with old leases in force",
	"race: the wait for old leases began before the term",
	"race: new leader's state behind its log",
	"race: member added during an ack wait",
	"race: member removed during an ack wait",
	"race: snapshot installed on a follower",
	"race: acknowledged between read and lease check",
	"race: lease check after the lease ended",
	"race: read during its own revocation",
	"race: new process reports while the old one is reserved",
	"race: new process reports during an ack wait",
	"race: slow clock holds a lease of a fast leader",
	"race: ack waits for a reservation to expire",
	"race: reply arrives after its lease ended",
	"race: leadership transfer",
	"race: revocations follow each other behind a slow holder",
	"race: a second directory replaced its node",
	"race: a rolled-back disk is noticed",
	"race: a notice of an earlier term",
	"race: JWT read during its own revocation",
	"race: JWT revoked while it was cached",
	"race: key banned while its JWT was cached",
	"race: jti revoked before its JWT is presented",
	"race: jti of a registered token revoked",
	"race: JWT revoked before its key was known",
	"race: retired or banned key verifies a revocation",
	"race: JWT active by a key that was just fetched",
	"race: key retired by two fetches",
	"race: a banned key is fetched again",
	"race: denial expired before the JWT did by a node's clock",
	"race: JWT read after the claims that ended it had changed",
}

// TestSim runs schedules of increasing seeds in parallel, for the length in simRun.
func TestSim(t *testing.T) {
	run := simRunOf(t)
	count, began := newSimCounts(), time.Now()
	var next, simulated atomic.Int64
	failures := make([]string, runtime.GOMAXPROCS(0)) // one goroutine writes to each
	done := func() bool {
		if t.Failed() {
			return true
		}
		if run.wall > 0 { // other load on the machine makes it slower
			took := time.Since(began)
			return took > run.wall && (time.Duration(simulated.Load()).Minutes() >= run.demand || took > 2*run.wall)
		}
		return time.Duration(next.Load())*simSchedule >= time.Duration(run.minutes*float64(time.Minute))
	}
	t.Run("schedules", func(t *testing.T) {
		for k := range failures {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				for !done() && !t.Failed() {
					n := uint64(next.Add(1) - 1)
					var took time.Duration
					took, failures[k] = runSchedule(t, run.seed+n, run.log, count)
					simulated.Add(int64(took))
				}
			})
		}
	})
	minutes := time.Duration(simulated.Load()).Minutes()
	t.Logf("%d schedules from seed %d, %.0f simulated minutes in %v\n%s", next.Load(), run.seed, minutes,
		time.Since(began).Round(time.Second), count)
	for _, f := range failures { // again: the end of a long log is what is read, and kept
		if f != "" {
			t.Error(f)
		}
	}
	if !t.Failed() {
		enough(t, count, minutes, run.demand)
	}
}

// enough fails a run with too few events.
func enough(t *testing.T, count *simCounts, minutes, demand float64) {
	if minutes < demand {
		t.Errorf("got %.0f simulated minutes, want at least %.0f", minutes, demand)
	}
	for _, what := range simRates {
		if !observed && what == "nemesis: leader changes" {
			continue
		}
		if n := count.of(what); minutes >= 20 && 2*float64(n) < minutes {
			t.Errorf("%s: got %d in %.0f simulated minutes, want one in two minutes", what, n, minutes)
		}
	}
	for _, what := range simRaces {
		switch n := count.of(what); {
		case observed && minutes >= 1000 && float64(n) < minutes/100:
			t.Errorf("%s: got %d in %.0f simulated minutes, want one in 100 minutes", what, n, minutes)
		case n == 0:
			t.Logf("%s: not hit", what)
		}
	}
}

// runSchedule runs one schedule and returns its simulated length, and the violation, if any.
func runSchedule(t *testing.T, seed uint64, log bool, count *simCounts) (took time.Duration, failure string) {
	dir, err := os.MkdirTemp(simDir(), "sim")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, seed, dir, count)
		s.schedule()
		took = time.Since(s.began)
		if s.o.failed() {
			path := filepath.Join(os.TempDir(), fmt.Sprintf("sim-%d.log", seed))
			os.WriteFile(path, []byte(s.o.lastNotes()), 0o600)
			failure = fmt.Sprintf("seed %d, after %v: %s\nlog: %s; repeat: SIM_SEED=%d go test ./node -run 'TestSim$'",
				seed, took, s.o.err, path, seed)
			t.Error(failure)
		}
		if log {
			fmt.Println(s.o.lastNotes())
		}
	})
	return took, failure
}

// simDir returns the directory for identities and certificates. It is in memory, if the machine has
// such a directory.
func simDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// schedule runs one cluster under the nemesis.
func (s *sim) schedule() {
	defer s.end()
	for range simVoters + s.intn(3) {
		s.add()
	}
	for _, m := range s.nodes {
		m.start(false)
	}
	s.addOutsider()
	operating, stopOperator := context.WithCancel(context.Background())
	defer stopOperator()
	s.wg.Go(func() { s.operate(operating) })
	ready := func() bool {
		for _, m := range s.nodes {
			if l := m.now(); l == nil || !l.n.Readiness(context.Background()).CanAnswer {
				return false
			}
		}
		return true
	}
	if !s.until("every node holds a lease", time.Minute, ready) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), simSchedule)
	defer cancel()
	m := &simNemesis{s: s, rng: rand.New(rand.NewPCG(s.seed, 6)), ctx: ctx}
	s.nemesis = m
	s.load(ctx)
	s.trustLoad(ctx)
	s.wg.Go(m.run)
	for ctx.Err() == nil && !s.o.failed() {
		retry.Sleep(ctx, 100*time.Millisecond)
		s.o.check()
	}
	cancel()
	time.Sleep(time.Second) // all faults heal
	for _, n := range s.nodes {
		m.revive(n)
	}
	if !m.endTwins() {
		return
	}
	for range 3 {
		time.Sleep(5 * time.Second)
		m.strays()
	}
	if !s.until("every node holds a lease again", time.Minute, ready) {
		return
	}
	s.o.check()
	for _, n := range s.nodes {
		if l := n.now(); l != nil {
			s.o.durable(l)
		}
	}
	s.presentNewest(context.Background(), 10)
}
