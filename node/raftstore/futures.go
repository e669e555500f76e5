package raftstore

import (
	"time"

	"github.com/hashicorp/raft"
)

// Futures makes futures of one Raft end when this Raft has stopped.
//
// Raft queues a committed entry for the state machine, which answers the future. When Raft shuts
// down, runFSM (hashicorp/raft fsm.go) may return with entries in its queue, and nothing ever
// answers their futures. All methods may be called concurrently.
type Futures struct {
	stopped chan struct{}
}

// NewFutures returns the futures of a Raft that has not stopped.
func NewFutures() *Futures { return &Futures{make(chan struct{})} }

// End ends the futures that Raft has not answered. Call it once, after all of Raft's goroutines
// have ended.
func (s *Futures) End() { close(s.stopped) }

// Index returns f with an Error that returns raft.ErrRaftShutdown if Raft stops without an answer.
// It is then unknown whether the entry is applied.
func (s *Futures) Index(f raft.IndexFuture) raft.IndexFuture { return indexFuture{f, s} }

// Log returns r with an Apply whose futures end like those of Index.
func (s *Futures) Log(r *raft.Raft) Log { return Log{r, s} }

// A Log is Raft with futures that end when it has stopped. Create it with Futures.Log.
type Log struct {
	*raft.Raft
	futures *Futures
}

// Apply is like Apply of raft.Raft.
func (l Log) Apply(data []byte, timeout time.Duration) raft.ApplyFuture {
	return applyFuture{l.Raft.Apply(data, timeout), l.futures}
}

type applyFuture struct {
	raft.ApplyFuture
	futures *Futures
}

func (f applyFuture) Error() error { return f.futures.wait(f.ApplyFuture) }

type indexFuture struct {
	raft.IndexFuture
	futures *Futures
}

func (f indexFuture) Error() error { return f.futures.wait(f.IndexFuture) }

// wait returns the answer to f, or raft.ErrRaftShutdown once Raft has stopped. If Raft never
// answers f, one goroutine remains.
func (s *Futures) wait(f raft.Future) error {
	answer := make(chan error, 1)
	go func() { answer <- f.Error() }()
	select {
	case err := <-answer:
		return err
	case <-s.stopped:
		return raft.ErrRaftShutdown
	}
}
