package store

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A scheduler starts compactions like Pebble's own scheduler, with two differences.
//
// It starts none before the store is open, because pebble.Open waits for running compactions, and
// one may rewrite hundreds of megabytes. So a node that was killed during an import would otherwise
// start late.
//
// And it delays the compactions of level 0 while the store is busy: see gate.
type scheduler struct {
	db         pebble.DBForCompaction // set by Register
	wake       chan struct{}          // capacity one
	stop, done chan struct{}

	mu      sync.Mutex
	src     source // nil before the store is open, and after it is closed
	open    bool   // the gate allows the compaction that waits
	running int
}

var (
	_ pebble.CompactionScheduler   = (*scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*scheduler)(nil)
)

// pollTime is the interval at which the scheduler polls how many compactions may run. Pebble
// signals an increase only in some cases, through UpdateGetAllowedWithoutPermission.
const pollTime = 100 * time.Millisecond

func newScheduler() *scheduler {
	return &scheduler{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// A source has the figures by which the gate decides. Store implements it.
type source interface {
	bytesWritten() uint64 // since the store was opened
	metrics() *pebble.Metrics
}

// start allows compactions.
func (s *scheduler) start(src source) {
	s.mu.Lock()
	s.src = src
	s.mu.Unlock()
	s.UpdateGetAllowedWithoutPermission()
}

// Register implements pebble.CompactionScheduler.
func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.db = db
	go s.run()
}

// Unregister implements pebble.CompactionScheduler.
func (s *scheduler) Unregister() {
	s.mu.Lock()
	s.src = nil
	s.mu.Unlock()
	close(s.stop)
	<-s.done
}

// TrySchedule implements pebble.CompactionScheduler.
func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !s.take() {
		return false, nil
	}
	return true, s
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (s *scheduler) UpdateGetAllowedWithoutPermission() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Done implements pebble.CompactionGrantHandle: a compaction has ended.
func (s *scheduler) Done() {
	s.giveBack()
	s.UpdateGetAllowedWithoutPermission()
}

// Started, MeasureCPU and CumulativeStats implement pebble.CompactionGrantHandle.

func (*scheduler) Started()                                          {}
func (*scheduler) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (*scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// run starts waiting compactions. It returns when the store closes.
func (s *scheduler) run() {
	defer close(s.done)
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for g := newGate(time.Now()); ; {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		case <-s.wake:
		}
		s.update(g)
		for s.take() {
			if waits, _ := s.db.GetWaitingCompaction(); !waits || !s.db.Schedule(s) {
				s.giveBack()
				break
			}
		}
	}
}

// update records whether the compaction that Pebble picked, if any, may start.
func (s *scheduler) update(g *gate) {
	s.mu.Lock()
	src := s.src
	s.mu.Unlock()
	if src == nil {
		return
	}
	now := time.Now()
	g.observe(now, src.bytesWritten())
	open, _ := s.db.GetWaitingCompaction()
	open = open && g.allows(now, src.metrics())
	s.mu.Lock()
	s.open = open
	s.mu.Unlock()
}

// take reports whether one more compaction may run, and counts it.
func (s *scheduler) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.src == nil || !s.open || s.running >= s.db.GetAllowedWithoutPermission() {
		return false
	}
	s.running++
	return true
}

func (s *scheduler) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}
