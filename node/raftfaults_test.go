package node

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A simRaft is between the product's transport and Raft. It passes requests, including heartbeats,
// to Raft's main loop unchanged. Sometimes a request is repeated later, or a response is delayed.
type simRaft struct {
	raft.Transport // the product's: dialing, frames, ALPN, TLS
	raft.WithPreVote
	raft.WithClose
	out  chan raft.RPC
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu     sync.Mutex
	rng    *rand.Rand
	past   []any // received requests, for repetition
	replay float64
	late   float64

	lateAnswers, replays atomic.Int64
	notices              simNotices
	slow                 atomic.Int64 // delay of each request before the main loop
	behind               atomic.Value // raft.ServerID of a follower that requests ever older entries
}

// AppendEntries simulates a follower that is far behind: Raft only keeps sending to it.
func (s *simRaft) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	if s.behind.Load() != id || len(args.Entries) == 0 {
		return s.Transport.AppendEntries(id, target, args, resp)
	}
	time.Sleep(20 * time.Millisecond)
	*resp = raft.AppendEntriesResponse{Term: args.Term, LastLog: args.PrevLogEntry, NoRetryBackoff: true}
	return nil
}

// simCloser is Raft's transport as a node needs it.
type simCloser interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

func newSimRaft(t raft.Transport, seed uint64) *simRaft {
	inner := t.(simCloser)
	s := &simRaft{Transport: inner, WithPreVote: inner, WithClose: inner, out: make(chan raft.RPC),
		stop: make(chan struct{}),
		rng:  rand.New(rand.NewPCG(seed, 7))}
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
			if !s.disturb(rpc) {
				s.pass(rpc)
			}
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

// simNotices are the faults of notices of a commit, and of the same messages of Raft itself.
type simNotices struct {
	rate atomic.Int64 // percent of them that are lost, late or repeated
	lose atomic.Int64 // number of notices to lose next
	term uint64       // highest term in a request; guarded by simRaft.mu

	lost, late, repeated, ofPastTerm atomic.Int64
}

var errSimLost = errors.New("simulated: message lost")

// isNotice reports whether a request announces a commit and has no entries.
func isNotice(command any) bool {
	req, ok := command.(*raft.AppendEntriesRequest)
	return ok && len(req.Entries) == 0 && req.LeaderCommitIndex > 0
}

// followTerm counts the notices of an earlier term than that of another request.
func (s *simRaft) followTerm(command any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		s.notices.term = max(s.notices.term, req.Term)
		if isNotice(req) && req.Term < s.notices.term {
			s.notices.ofPastTerm.Add(1)
		}
	case *raft.RequestVoteRequest:
		s.notices.term = max(s.notices.term, req.Term)
	}
}

// disturb loses a notice, delays it behind later requests, or repeats it. It reports whether pass
// must not get it.
func (s *simRaft) disturb(rpc raft.RPC) bool {
	if !isNotice(rpc.Command) {
		return false
	}
	if s.notices.lose.Add(-1) >= 0 {
		rpc.Respond(nil, errSimLost)
		return true
	}
	s.notices.lose.Store(0)
	s.mu.Lock()
	hit := s.rng.Int64N(100) < s.notices.rate.Load()
	kind, wait := s.rng.IntN(3), time.Duration(s.rng.Int64N(int64(3*time.Second)))
	s.mu.Unlock()
	if !hit {
		return false
	}
	switch kind {
	case 0:
		s.notices.lost.Add(1)
		rpc.Respond(nil, errSimLost)
		return true
	case 1:
		s.notices.late.Add(1)
	case 2:
		s.notices.repeated.Add(1)
		rpc.RespChan = make(chan raft.RPCResponse, 1)
	}
	s.wg.Go(func() {
		select {
		case <-time.After(wait):
			s.send(rpc)
		case <-s.stop:
		}
	})
	return kind == 1
}

func (s *simRaft) send(rpc raft.RPC) bool {
	s.followTerm(rpc.Command)
	select {
	case s.out <- rpc:
		return true
	case <-s.stop:
		return false
	}
}

// hold passes the request on and delays the response.
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
