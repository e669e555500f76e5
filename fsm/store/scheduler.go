package store

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A scheduler starts compactions like Pebble's own scheduler, but none before the store is open.
// pebble.Open waits for running compactions, and one may rewrite hundreds of megabytes. So a node
// that was killed during an import would otherwise start late.
type scheduler struct {
	db         pebble.DBForCompaction // set by Register
	wake       chan struct{}          // capacity one
	stop, done chan struct{}

	mu      sync.Mutex
	started bool // the store is open and not closed
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

// start allows compactions.
func (s *scheduler) start() {
	s.mu.Lock()
	s.started = true
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
	s.started = false
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
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		case <-s.wake:
		}
		for s.take() {
			if waits, _ := s.db.GetWaitingCompaction(); !waits || !s.db.Schedule(s) {
				s.giveBack()
				break
			}
		}
	}
}

// take reports whether one more compaction may run, and counts it.
func (s *scheduler) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.running >= s.db.GetAllowedWithoutPermission() {
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
