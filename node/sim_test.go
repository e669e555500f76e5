package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What a run is, from the environment: SIM_MINUTES is how many simulated minutes at least (2), SIM_WALL
// for how long to run instead ("5m"), SIM_SEED the seed of the first schedule (a new one), SIM_LOG=1
// prints the log of every schedule, SIM_DEMAND=1 fails a run in which too little has happened.
type simRun struct {
	minutes float64
	wall    time.Duration
	seed    uint64
	log     bool
	demand  bool
}

func simRunOf(t *testing.T) simRun {
	r := simRun{minutes: 2, seed: uint64(time.Now().UnixNano()) % 1e9, log: os.Getenv("SIM_LOG") != "", demand: os.Getenv("SIM_DEMAND") != ""}
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
	set("SIM_SEED", func(v string) { r.seed, err = strconv.ParseUint(v, 10, 64) })
	return r
}

// simSchedule is how long one schedule is.
const simSchedule = 2 * time.Minute

func TestSim(t *testing.T) {
	run := simRunOf(t)
	seed := run.seed
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	count, began := newSimCounts(), time.Now()
	var next, simulated atomic.Int64
	done := func() bool {
		if t.Failed() {
			return true
		}
		if run.wall > 0 {
			return time.Since(began) > run.wall
		}
		return time.Duration(next.Load())*simSchedule >= time.Duration(run.minutes*float64(time.Minute))
	}
	t.Run("schedules", func(t *testing.T) {
		for k := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(k), func(t *testing.T) {
				t.Parallel()
				for !done() {
					n := uint64(next.Add(1) - 1)
					simulated.Add(int64(runSchedule(t, seed+n, run.log, count)))
				}
			})
		}
	})
	t.Logf("seed %d, %.1f simulated minutes in %v\n%s", seed, time.Duration(simulated.Load()).Minutes(), time.Since(began).Round(time.Millisecond), count)
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
	s.load(ctx)
	m := &simNemesis{s: s, rng: rand.New(rand.NewPCG(s.seed, 6)), ctx: ctx}
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
