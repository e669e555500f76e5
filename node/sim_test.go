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
)

// What a run is, from the environment: SIM_MINUTES is how many simulated minutes at least (2), SIM_WALL
// for how long to run instead ("5m"), SIM_SEED the seed of the first schedule (a new one), SIM_LOG=1
// prints the log of every schedule, SIM_DEMAND how many simulated minutes the wall time must have sufficed for.
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

// simSchedule is how long one schedule is.
const simSchedule = 2 * time.Minute

// simRates are what must happen, on average, in two simulated minutes: an idle cluster proves nothing.
var simRates = []string{"nemesis: leader changes", "nemesis: crashes", "nemesis: cuts"}

// simRaces are the races that a schedule can hit. A run of 1,000 simulated minutes and more has to hit each
// once in a hundred of them.
var simRaces = []string{
	"race: a deposed leader is asked to grant",
	"race: a deposed leader serves itself",
	"race: an answer of Raft of an earlier round",
	"race: admitted, then acknowledged, then granted",
	"race: fresh leader with old leases alive",
	"race: fresh leader's state behind its log",
	"race: member added during an ack wait",
	"race: member removed during an ack wait",
	"race: snapshot installed on a follower",
	"race: acknowledged between a read and its look at the lease",
	"race: resumed after the end of the lease",
	"race: read while its revocation is under way",
	"race: a new life reports while the old one is booked",
	"race: and an acknowledgement waits",
	"race: a slow clock holds, a fast clock leads",
	"race: an acknowledgement waits for a booking to run out",
	"race: a grant is delayed past its end",
	"race: leadership transfer",
	"race: a stream of revocations behind a slow holder",
}

// TestSim is the simulation: seed after seed, as long as it is told to.
func TestSim(t *testing.T) {
	run := simRunOf(t)
	count, began := newSimCounts(), time.Now()
	var next, simulated atomic.Int64
	done := func() bool {
		if t.Failed() {
			return true
		}
		if run.wall > 0 { // beside other load it takes longer to be enough
			took := time.Since(began)
			return took > run.wall && (time.Duration(simulated.Load()).Minutes() >= run.demand || took > 2*run.wall)
		}
		return time.Duration(next.Load())*simSchedule >= time.Duration(run.minutes*float64(time.Minute))
	}
	t.Run("schedules", func(t *testing.T) {
		for k := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				for !done() && !t.Failed() {
					n := uint64(next.Add(1) - 1)
					simulated.Add(int64(runSchedule(t, run.seed+n, run.log, count)))
				}
			})
		}
	})
	minutes := time.Duration(simulated.Load()).Minutes()
	t.Logf("%d schedules from seed %d, %.0f simulated minutes in %v\n%s", next.Load(), run.seed, minutes, time.Since(began).Round(time.Second), count)
	if !t.Failed() {
		enough(t, count, minutes, run.demand)
	}
}

// enough fails a run in which too little has happened.
func enough(t *testing.T, count *simCounts, minutes, demand float64) {
	if minutes < demand {
		t.Errorf("%.0f simulated minutes, at least %.0f were asked for", minutes, demand)
	}
	for _, what := range simRates {
		if n := count.of(what); minutes >= 20 && 2*float64(n) < minutes {
			t.Errorf("%s: %d in %.0f simulated minutes: the cluster was too idle to prove anything", what, n, minutes)
		}
	}
	for _, what := range simRaces {
		switch n := count.of(what); {
		case minutes >= 1000 && float64(n) < minutes/100:
			t.Errorf("%s: hit %d times in %.0f simulated minutes", what, n, minutes)
		case n == 0:
			t.Logf("%s: not hit", what)
		}
	}
}

func runSchedule(t *testing.T, seed uint64, log bool, count *simCounts) (took time.Duration) {
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
			os.WriteFile(path, []byte(s.o.told()), 0o600)
			t.Errorf("seed %d, after %v: %s\nwhat came before is in %s; again with: SIM_SEED=%d go test ./node -run 'TestSim$'", seed, took, s.o.err, path, seed)
		}
		if log {
			fmt.Println(s.o.told())
		}
	})
	return took
}

// simDir is where identities and certificates are kept: in memory, where there is such a place.
func simDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// schedule runs one cluster through its harm.
func (s *sim) schedule() {
	defer s.end()
	for range simVoters + s.intn(3) {
		s.add()
	}
	for _, m := range s.nodes {
		m.start(false)
	}
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
	s.wg.Go(m.run)
	for ctx.Err() == nil && !s.o.failed() {
		pause(ctx, 100*time.Millisecond)
		s.o.check()
	}
	cancel()
	time.Sleep(time.Second) // everything heals
	for _, n := range s.nodes {
		m.revive(n)
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
}
