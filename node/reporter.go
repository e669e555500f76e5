package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/transport"
)

// A reporter keeps a stream of reports to whoever leads: what this node has applied, its hashes and
// its clock, and its asks for a read lease. Acknowledgements of revocations rest on it.
type reporter struct {
	n *Node

	giving atomic.Bool   // the lease goes back: nothing is asked any more
	given  chan struct{} // a leader has taken it off the books

	mu      sync.Mutex
	current *reportStream // nil: none is open
}

func newReporter(n *Node) *reporter { return &reporter{n: n, given: make(chan struct{}, 1)} }

// A reportStream is the stream to one leader.
type reportStream struct {
	n      *Node
	addr   raft.ServerAddress
	stream *transport.Stream
	term   atomic.Uint64 // the leader's, once it has said it
	wake   chan struct{} // something is to be said at once

	mu     sync.Mutex
	open   bool          // the newest ask has not been answered
	askAt  time.Time     // when the leader wants the next ask; zero: it has not said
	replan chan struct{} // that has changed
}

const reportInterval = 200 * time.Millisecond

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) {
	n := r.n
	pause := retryPause
	inquired, turn := time.Now(), 0
	for ctx.Err() == nil {
		changed := n.leaderChange.wait()
		addr := n.leaderAddress()
		if addr != "" && n.leaderID() != n.self {
			started := time.Now()
			err := r.reportTo(ctx, addr)
			if err != nil && ctx.Err() == nil {
				n.log.Debug("report stream ended", "leader", addr, "error", err)
			}
			if time.Since(started) > time.Second {
				pause = retryPause
			} else {
				pause = min(2*pause, 500*time.Millisecond)
			}
		} else {
			pause = 500 * time.Millisecond
			if addr == "" && time.Since(inquired) >= inquiryInterval {
				r.inquire(ctx, turn)
				inquired, turn = time.Now(), turn+1
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
			pause = retryPause
		case <-time.After(pause):
		}
	}
}

// reportTo sends reports to one leader until it is another's turn.
func (r *reporter) reportTo(ctx context.Context, addr raft.ServerAddress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name, host, err := transport.SplitAddress(addr)
	if err != nil {
		return err
	}
	stream, err := r.n.trans.Stream(ctx, host, name, pathReports)
	if err != nil {
		return err
	}
	s := &reportStream{n: r.n, addr: addr, stream: stream, wake: make(chan struct{}, 1), replan: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- s.read() }()
	defer func() {
		stream.Close()
		cancel()
		<-ended
	}()
	r.mu.Lock()
	r.current = s
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.current = nil
		r.mu.Unlock()
	}()
	return s.send(ctx, ended)
}

// send sends a report whenever the node has applied something, an ask is due, or a while has passed.
func (s *reportStream) send(ctx context.Context, ended chan error) error {
	n := s.n
	var asked time.Time
	for first := true; ; first = false {
		advanced := n.fsm.AppliedChan() // taken before the index is read: no advance is missed
		changed := n.leaderChange.wait()
		rep := n.newReport()
		rep.AdoptedTerm, rep.DroppedNonce = n.leases.adopted()
		switch {
		case first:
			rep.Who, rep.BootId = n.hello(), n.boot
		case n.reporter.giving.Load():
			n.leases.drop()
			rep.GiveBack = true
			_, rep.DroppedNonce = n.leases.adopted()
		case s.untilAsk(asked) <= 0:
			a := n.leases.ask()
			rep.Nonce, rep.AdoptedTerm, rep.DroppedNonce = a.nonce, a.adopted, a.dropped
			asked = time.Now()
			s.asks()
		}
		b, err := proto.Marshal(rep)
		if err != nil {
			return err
		}
		if err := s.stream.Send(b); err != nil {
			return err
		}
		if n.leaderAddress() != s.addr {
			return nil
		}
		if err := s.rest(ctx, asked, advanced, changed, ended); err != nil {
			return err
		}
	}
}

// rest waits until there is something to say.
func (s *reportStream) rest(ctx context.Context, asked time.Time, advanced, changed <-chan struct{}, ended chan error) error {
	tick := time.NewTimer(reportInterval)
	defer tick.Stop()
	for {
		tick.Reset(min(reportInterval, max(0, s.untilAsk(asked))))
		select {
		case <-s.replan:
			continue
		case <-advanced:
		case <-tick.C:
		case <-s.wake:
		case <-changed:
		case err := <-ended:
			ended <- err
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	}
}

// untilAsk is how long it is until the next ask: an interval after the last one, or when the leader has
// said, unless that makes no sense. An ask that is not answered yet is given twice as long: a new one would
// make its grant worthless, and an answer that takes longer than an interval would never be in time. Nobody
// asks whom it does not know to lead, with a state that differs, or while its lease goes back.
func (s *reportStream) untilAsk(asked time.Time) time.Duration {
	n := s.n
	if s.term.Load() == 0 || n.diverged.Load() || n.reporter.giving.Load() {
		return time.Hour
	}
	return time.Until(s.due(asked, n.renewEvery()))
}

// due is when the next ask is, every being the interval between asks.
func (s *reportStream) due(asked time.Time, every time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open:
		return asked.Add(2 * every)
	case s.askAt.After(asked.Add(every/2)) && s.askAt.Before(asked.Add(2*every)):
		return s.askAt
	}
	return asked.Add(every)
}

// asks notes that an ask goes out.
func (s *reportStream) asks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.askAt = true, time.Time{}
}

// answered notes that the newest ask has been answered, or an older one, which does no harm. The leader wants
// the next one in so long, when in is not 0.
func (s *reportStream) answered(in time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	if in > 0 {
		s.askAt = time.Now().Add(in)
	}
	select {
	case s.replan <- struct{}{}:
	default:
	}
}

// newReport reads applied before the hashes, so that it never claims more than the state holds.
func (n *Node) newReport() *Report {
	rep := &Report{Applied: n.fsm.Applied(), Wall: int64(revoked.TimeOf(n.cfg.Now())), LastIndex: n.lastIndex(), LastTerm: n.raft.CurrentTerm(),
		BootClock: int64(n.cfg.BootClock())}
	index, log, state := n.fsm.Hashes()
	rep.HashIndex, rep.LogHash, rep.StateHash = index, log[:], state[:]
	return rep
}

// lastIndex is where the log ends, or as far as a streamed state reaches.
func (n *Node) lastIndex() uint64 {
	return max(n.raft.LastIndex(), min(n.install.index.Load(), n.fsm.Applied()))
}

func (s *reportStream) read() error {
	for {
		b, err := s.stream.Recv()
		if err != nil {
			return err
		}
		var reply ReportReply
		if err := proto.Unmarshal(b, &reply); err != nil {
			return err
		}
		if err := s.hear(&reply); err != nil {
			return err
		}
	}
}

// hear takes one reply of the leader.
func (s *reportStream) hear(reply *ReportReply) error {
	n := s.n
	if reply.Diverged != "" && !n.diverged.Swap(true) {
		n.log.Error("this node's state differs from the leader's: it answers no more and must be replaced with an empty data directory", "detail", reply.Diverged)
		n.leases.drop()
	}
	if reply.Refused != "" {
		n.leases.refused(reply.Refused)
		s.answered(0)
	}
	switch {
	case reply.RolledBack != "":
		n.fatal(fmt.Errorf("%w: this data directory was rolled back to an older image (%s): move it away and let the node join as a new instance", revoked.ErrConflict, reply.RolledBack))
		return revoked.ErrConflict
	case reply.NotMember:
		n.removed()
		return fmt.Errorf("%w: not a member", revoked.ErrForbidden)
	case reply.GivenBack:
		select {
		case n.reporter.given <- struct{}{}:
		default:
		}
	case reply.Nonce != 0:
		n.leases.take(leaseGrant{term: reply.Term, nonce: reply.Nonce, boot: string(reply.BootId), length: time.Duration(reply.Length)})
		s.answered(time.Duration(reply.AskIn))
	case reply.Term != 0:
		n.leases.adopt(reply.Term)
		s.term.Store(reply.Term)
		s.nudge()
	}
	return nil
}

func (s *reportStream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// giveBack ends this node's lease for good and waits, until ctx ends, until the leader, perhaps one
// that is just being elected, has taken it off the books: then nobody waits for this node after it
// has stopped.
func (r *reporter) giveBack(ctx context.Context) {
	r.giving.Store(true)
	r.n.leases.drop()
	r.mu.Lock()
	if r.current != nil {
		r.current.nudge()
	}
	r.mu.Unlock()
	select {
	case <-r.given:
	case <-ctx.Done():
	}
}

// resume asks for leases again, after a giveBack that led to nothing.
func (r *reporter) resume() { r.giving.Store(false) }
