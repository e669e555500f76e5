package roster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/node/lease"
	"revoked/node/nodepb"
	"revoked/transport"
)

// A reportStream is the member's end of the stream to one leader. send and read run concurrently.
type reportStream struct {
	*reporter
	addr   raft.ServerAddress
	stream *transport.Stream
	term   atomic.Uint64 // the leader's term; 0 before its first reply
	wake   chan struct{} // makes send report now
	replan chan struct{} // notifies send that the time of the next renewal has changed

	schedule schedule
}

func newReportStream(r *reporter, addr raft.ServerAddress, stream *transport.Stream) *reportStream {
	return &reportStream{
		reporter: r, addr: addr, stream: stream,
		wake: make(chan struct{}, 1), replan: make(chan struct{}, 1),
	}
}

// send sends a report whenever the node has applied an entry, a renewal is due, or ReportInterval
// has passed.
func (s *reportStream) send(ctx context.Context, ended chan error) error {
	var requested time.Time
	for first := true; ; first = false {
		advanced := s.FSM.AppliedChan() // obtained before the index is read, so that no advance is missed
		changed := s.LeaderChanged()
		rep := s.newReport()
		switch {
		case first:
			rep = s.firstReport()
			rep.AdoptedTerm, rep.DroppedNonce = s.Holder.Adopted()
		case s.returning.Load():
			s.Holder.Drop()
			rep.GiveBack = true
			rep.AdoptedTerm, rep.DroppedNonce = s.Holder.Adopted()
		case s.untilRenewal(requested) <= 0:
			q := s.Holder.Request()
			rep.Nonce, rep.AdoptedTerm, rep.DroppedNonce = q.Nonce, q.Adopted, q.Dropped
			requested = time.Now()
			s.schedule.requested()
		default:
			rep.AdoptedTerm, rep.DroppedNonce = s.Holder.Adopted()
		}
		if err := sendMessage(s.stream, rep); err != nil {
			return err
		}
		if addr, _ := s.leader(); addr != s.addr {
			return nil
		}
		if err := s.waitDue(ctx, requested, advanced, changed, ended); err != nil {
			return err
		}
	}
}

// waitDue waits until the next report is due.
func (s *reportStream) waitDue(
	ctx context.Context, requested time.Time, advanced, changed <-chan struct{}, ended chan error,
) error {
	tick := time.NewTimer(ReportInterval)
	defer tick.Stop()
	for {
		tick.Reset(min(ReportInterval, max(0, s.untilRenewal(requested))))
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

// untilRenewal returns the time until the next lease request. It returns an hour, which means
// never, if the leader's term is unknown, the state diverged, or the lease is being returned.
func (s *reportStream) untilRenewal(requested time.Time) time.Duration {
	if s.term.Load() == 0 || s.diverged.Load() || s.returning.Load() {
		return time.Hour
	}
	return time.Until(s.schedule.next(requested, s.Holder.RenewEvery()))
}

// read handles the leader's replies until the stream ends.
func (s *reportStream) read() error {
	for {
		var reply nodepb.ReportReply
		if err := receive(s.stream, &reply); err != nil {
			return err
		}
		if err := s.handle(&reply); err != nil {
			return err
		}
	}
}

// handle handles one reply. An error ends the stream.
func (s *reportStream) handle(reply *nodepb.ReportReply) error {
	if reply.Diverged != "" && !s.diverged.Swap(true) {
		s.Log.Error("state diverged from the leader",
			"detail", reply.Diverged)
		s.Holder.Drop()
	}
	if reply.Refused != "" {
		s.Holder.Refused(reply.Refused)
		s.answered(0)
	}
	switch {
	case reply.RolledBack != "":
		s.endRolledBack(reply.RolledBack)
		return revoked.ErrConflict
	case reply.NotMember:
		s.removed(reply.Ended)
		return fmt.Errorf("%w: this node is not a member of the cluster", revoked.ErrForbidden)
	case reply.GivenBack:
		notify(s.returned)
	case reply.Nonce != 0:
		s.Holder.Take(lease.Reply{
			Term: reply.Term, Nonce: reply.Nonce, Boot: string(reply.BootId), Length: time.Duration(reply.Length),
		})
		s.answered(time.Duration(reply.RenewIn))
	case reply.Term != 0:
		s.Holder.Adopt(reply.Term)
		s.term.Store(reply.Term)
		s.wakeUp()
	}
	return nil
}

// answered reschedules the next renewal and wakes send.
func (s *reportStream) answered(renewIn time.Duration) {
	s.schedule.answered(renewIn)
	notify(s.replan)
}

func (s *reportStream) wakeUp() { notify(s.wake) }

// notify sends on ch, which has capacity one, unless a value is pending.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// A schedule decides when to request the next lease. The zero value is ready.
type schedule struct {
	mu      sync.Mutex
	open    bool      // whether the newest request has not been answered
	renewAt time.Time // time planned by the leader; zero: not planned
}

// requested records that a request was sent.
func (s *schedule) requested() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.renewAt = true, time.Time{}
}

// answered records the answer to a request; an answer to an older request is harmless. renewIn is
// the delay that the leader planned, or 0.
func (s *schedule) answered(renewIn time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	if renewIn > 0 {
		s.renewAt = time.Now().Add(renewIn)
	}
}

// next returns the time of the next request: the leader's planned time, or one interval after the
// last request. The planned time counts only if it is between 1/8 of an interval and two intervals
// after the last request. A leader's own interval is at least 3/5 of the member's. It plans at
// least half of that ahead, less the time that the messages take. While a request is open, the next
// one is due after two intervals. A new request would invalidate the open one, so an answer that
// takes longer than one interval would never be accepted.
func (s *schedule) next(requested time.Time, interval time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open:
		return requested.Add(2 * interval)
	case s.renewAt.After(requested.Add(interval/8)) && s.renewAt.Before(requested.Add(2*interval)):
		return s.renewAt
	}
	return requested.Add(interval)
}
