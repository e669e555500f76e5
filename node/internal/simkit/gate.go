package simkit

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A Gate controls the stores of one process. It delays writes, and blocks them while the node is
// frozen or its disk hangs. At a crash it decides whether the write in progress becomes durable.
type Gate struct {
	RNG     *rand.Rand
	Latency time.Duration   // average latency of a write
	Stored  func(*raft.Log) // called for each entry written to the log

	mu      sync.Mutex
	shut    chan struct{} // closed when the gate opens; nil: the gate is open
	dead    bool
	pending func() error // write in progress
}

// Close blocks writes until open is called. It has no effect on a closed or dead gate, so faults
// may overlap.
func (g *Gate) Close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil || g.dead {
		return func() {}
	}
	shut := make(chan struct{})
	g.shut = shut
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.shut == shut {
			g.shut = nil
			close(shut)
		}
	}
}

// crash drops the write in progress or makes it durable, at random. Raft cannot distinguish the
// two, just as after a real crash.
func (g *Gate) crash() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dead = true
	if g.pending != nil && g.RNG.IntN(2) == 0 {
		_ = g.pending()
	}
	g.pending = nil
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// crashed reports whether the process has crashed. The goroutines of a crashed process may continue
// for an instant.
func (g *Gate) crashed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

// write waits until the gate is open and for the latency of the disk, and then does the write. A
// write of a crashed process has no effect.
func (g *Gate) write(do func() error) error {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			break
		}
		g.mu.Unlock()
		<-shut
	}
	if g.dead { // Raft would panic on an error; the process has crashed anyway
		g.mu.Unlock()
		return nil
	}
	g.pending = do
	wait := g.Latency/2 + time.Duration(g.RNG.Int64N(int64(g.Latency)+1))
	g.mu.Unlock()
	time.Sleep(wait)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return nil
	}
	g.pending = nil
	return do()
}

// A gatedLog is the log of one process, behind its gate.
type gatedLog struct {
	raft.LogStore
	g *Gate

	// lost contains the entries that Raft stored after its process crashed. Raft reads them again and
	// panics if they are missing.
	mu   sync.Mutex
	lost map[uint64]*raft.Log
}

// GetLog implements raft.LogStore. Reads do not wait: they come from the page cache.
func (l *gatedLog) GetLog(index uint64, out *raft.Log) error {
	err := l.LogStore.GetLog(index, out)
	if !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.lost[index]; e != nil {
		*out = *e
		return nil
	}
	return err
}

// StoreLog implements raft.LogStore.
func (l *gatedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore. The entries of a call become durable together or not at all.
func (l *gatedLog) StoreLogs(entries []*raft.Log) error {
	err := l.g.write(func() error {
		for _, e := range entries {
			l.g.Stored(e)
		}
		return l.LogStore.StoreLogs(entries)
	})
	if l.g.crashed() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range entries {
			l.lost[e.Index] = e
		}
	}
	return err
}

// A gatedStable is the store of the votes of one process, behind its gate.
type gatedStable struct {
	raft.StableStore
	g *Gate
}

// Set implements raft.StableStore.
func (s *gatedStable) Set(k, v []byte) error {
	return s.g.write(func() error { return s.StableStore.Set(k, v) })
}

// SetUint64 implements raft.StableStore.
func (s *gatedStable) SetUint64(k []byte, v uint64) error {
	if string(k) == "LastVoteTerm" { // the product stores it with the candidate
		return s.StableStore.SetUint64(k, v)
	}
	return s.g.write(func() error { return s.StableStore.SetUint64(k, v) })
}
