package node

import (
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A simRaft stands between the shipped transport and Raft: what arrives goes on to Raft's main loop as
// it came, heartbeats too; now and then a request arrives once more, later, and an answer leaves late.
type simRaft struct {
	raft.Transport // of the node: dials, frames, ALPN, TLS are the shipped ones
	raft.WithPreVote
	raft.WithClose
	out  chan raft.RPC
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu     sync.Mutex
	rng    *rand.Rand
	past   []any // requests that came, to be repeated
	replay float64
	late   float64

	lateAnswers, replays atomic.Int64
	slow                 atomic.Int64 // how long each request waits for the main loop
	behind               atomic.Value // raft.ServerID of a follower that asks for ever older entries
}

// AppendEntries stands in for a follower that is far behind: Raft goes on sending to it, and does nothing
// else for it.
func (s *simRaft) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if s.behind.Load() != id || len(args.Entries) == 0 {
		return s.Transport.AppendEntries(id, target, args, resp)
	}
	time.Sleep(20 * time.Millisecond)
	*resp = raft.AppendEntriesResponse{Term: args.Term, LastLog: args.PrevLogEntry, NoRetryBackoff: true}
	return nil
}

// simCloser is what a node asks of Raft's transport.
type simCloser interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

func newSimRaft(t raft.Transport, seed uint64) *simRaft {
	inner := t.(simCloser)
	s := &simRaft{Transport: inner, WithPreVote: inner, WithClose: inner, out: make(chan raft.RPC), stop: make(chan struct{}),
		rng: rand.New(rand.NewPCG(seed, 7))}
	s.wg.Go(s.pump)
	return s
}

func (s *simRaft) Consumer() <-chan raft.RPC { return s.out }

func (s *simRaft) Close() error {
	s.once.Do(func() { close(s.stop) })
	err := s.WithClose.Close()
	s.wg.Wait()
	return err
}

func (s *simRaft) faults(replay, late float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replay, s.late = replay, late
}

func (s *simRaft) pump() {
	for {
		select {
		case rpc := <-s.Transport.Consumer():
			if d := s.slow.Load(); d > 0 {
				time.Sleep(time.Duration(d))
			}
			s.pass(rpc)
		case <-s.stop:
			return
		}
	}
}

func (s *simRaft) pass(rpc raft.RPC) {
	s.mu.Lock()
	late := s.rng.Float64() < s.late
	var again any
	if s.replay > 0 && rpc.Reader == nil {
		if len(s.past) < 64 {
			s.past = append(s.past, rpc.Command)
		} else {
			s.past[s.rng.IntN(len(s.past))] = rpc.Command
		}
		if s.rng.Float64() < s.replay {
			again = s.past[s.rng.IntN(len(s.past))]
		}
	}
	hold := time.Duration(s.rng.Int64N(int64(3 * time.Second)))
	s.mu.Unlock()
	if late {
		rpc = s.hold(rpc, hold)
	}
	if !s.send(rpc) {
		return
	}
	if again != nil {
		s.replays.Add(1)
		s.send(raft.RPC{Command: again, RespChan: make(chan raft.RPCResponse, 1)})
	}
}

func (s *simRaft) send(rpc raft.RPC) bool {
	select {
	case s.out <- rpc:
		return true
	case <-s.stop:
		return false
	}
}

// hold lets the request through and its answer leave later.
func (s *simRaft) hold(rpc raft.RPC, d time.Duration) raft.RPC {
	answer := make(chan raft.RPCResponse, 1)
	to := rpc.RespChan
	rpc.RespChan = answer
	s.wg.Go(func() {
		select {
		case a := <-answer:
			select {
			case <-time.After(d):
			case <-s.stop:
			}
			s.lateAnswers.Add(1)
			to <- a
		case <-s.stop:
		}
	})
	return rpc
}

var _ io.Closer = (*simRaft)(nil)
