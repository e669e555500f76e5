package roster

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/node/lease"
	"revoked/node/nodepb"
	"revoked/transport"
)

// A session is the leader's end of one member's report stream.
type session struct {
	*local
	marks  *marks
	term   uint64
	stream *transport.Stream
	number uint64 // number of the stream; only reports of the newest stream count
	id     raft.ServerID
	boot   string

	mu sync.Mutex // serializes replies
	wg sync.WaitGroup

	paceMu   sync.Mutex
	expected time.Time     // arrival of the next request; zero: unknown
	late     time.Duration // delay of requests after their planned time, about a round trip
}

// ServeReports handles the report stream of a member. It blocks until the stream breaks, the term
// ends, or the node is not a member.
func (r *Roster) ServeReports(w http.ResponseWriter, req *http.Request) {
	peer := transport.PeerNode(req)
	stream, err := transport.ServeStream(w, req)
	if err != nil {
		r.Log.Warn("cannot open report stream", "peer", peer, "error", err)
		return
	}
	defer stream.Close()
	term := r.Leader.Term()
	if term == 0 {
		return
	}
	s := &session{local: r.local, marks: r.marks, term: term, stream: stream, number: r.streams.Add(1)}
	ctx, cancel := context.WithCancel(req.Context())
	defer s.wg.Wait()
	defer cancel()
	if !s.open(ctx, peer) {
		return
	}
	defer s.peers.close(s.id, s.number)
	for {
		var rep nodepb.Report
		if receive(stream, &rep) != nil || s.Leader.Term() != term {
			return
		}
		if !s.peers.isMember(s.id) {
			s.refuse(ctx)
			return
		}
		s.handle(ctx, &rep)
	}
}

// open reads the first report, which names the member, and replies with the term. It reports
// whether the stream may continue.
func (s *session) open(ctx context.Context, peer string) bool {
	var rep nodepb.Report
	if receive(s.stream, &rep) != nil {
		return false
	}
	if rep.Hello.GetNodeId() != peer {
		s.Log.Warn("report and certificate name different nodes", "peer", peer)
		return false
	}
	s.id, s.boot = serverOf(rep.Hello), string(rep.BootId)
	if !s.peers.isMember(s.id) {
		s.refuse(ctx)
		return false
	}
	atStart := cmp.Or(rep.EndAtStart, rep.LastIndex) // version 0.3 does not send it
	if detail := rolledBack(s.marks.of(s.id), s.boot, atStart, rep.LastIndex); detail != "" {
		s.Log.Error("member restarted with an older data directory", "server", s.id, "detail", detail)
		s.reply(&nodepb.ReportReply{RolledBack: detail})
		return false
	}
	s.peers.open(s.id, s.number, time.Now(), rep.Hello, s.boot)
	s.handle(ctx, &rep)
	return s.reply(&nodepb.ReportReply{Term: s.term})
}

// reply sends a reply and reports whether it was sent. It may be called concurrently.
func (s *session) reply(r *nodepb.ReportReply) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sendMessage(s.stream, r) == nil
}

// refuse replies that the node is not a member, if the configuration does not contain it. The read
// barrier ensures that this configuration is not older than this node's leadership.
func (s *session) refuse(ctx context.Context) {
	if s.ReadBarrier(ctx) != nil {
		return
	}
	if conf, err := s.Configuration(); err == nil && !inConfiguration(conf, s.id) && s.Leader.Term() == s.term {
		s.Log.Info("rejecting report of a removed node", "server", s.id)
		s.reply(&nodepb.ReportReply{NotMember: true, Ended: endOf(nodeOf(s.id), conf)})
	}
}

// handle handles one report. It records the applied index before it answers a lease request.
func (s *session) handle(ctx context.Context, rep *nodepb.Report) {
	s.Clock.Observe(string(s.id), revoked.Time(rep.Wall))
	s.watchRate(rep)
	diverged := s.compareHashes(rep)
	s.peers.observe(s.id, s.number, time.Now(), rep, diverged)
	s.Leader.Report(s.id, s.boot, rep.Applied, rep.AdoptedTerm)
	switch {
	case diverged != "":
		s.reply(&nodepb.ReportReply{Diverged: diverged, Refused: string(lease.RefusedDiverged)})
	case rep.GiveBack:
		s.Leader.GiveBack(s.id, s.boot, rep.DroppedNonce)
		s.reply(&nodepb.ReportReply{GivenBack: true})
	case rep.Nonce != 0:
		s.measureDelay()
		arrived := time.Now()
		s.wg.Go(func() { s.answer(ctx, rep, arrived) })
	}
}

// watchRate compares the rates of the member's and this node's boot clocks. It logs each change of
// the verdict.
func (s *session) watchRate(rep *nodepb.Report) {
	if rep.BootClock == 0 {
		return
	}
	wrong, changed, drift := s.peers.watchRate(s.id, s.number, s.BootClock(), lease.Instant(rep.BootClock))
	apart := fmt.Sprintf("%.1f %%", 100*max(drift, -drift))
	switch {
	case changed && wrong:
		s.Log.Error("clock rates differ between member and leader: member gets no read lease",
			"server", s.id, "difference", apart)
	case changed:
		s.Log.Info("clock rates of member and leader agree again", "server", s.id, "difference", apart)
	}
}

// answer replies to a lease request with a lease or with the reason for the refusal.
func (s *session) answer(ctx context.Context, rep *nodepb.Report, arrived time.Time) {
	granted, refusal := s.request(ctx, rep)
	if refusal != lease.Admitted {
		s.Leader.CountRefusal(refusal)
		s.reply(&nodepb.ReportReply{Refused: string(refusal)})
		return
	}
	s.reply(&nodepb.ReportReply{
		Term: granted.Term, Nonce: granted.Nonce, BootId: []byte(granted.Boot),
		Length: int64(granted.Length), RenewIn: int64(s.renewIn(arrived)),
	})
}

// request checks the clocks and the hashes of the member before it requests a lease for it.
func (s *session) request(ctx context.Context, rep *nodepb.Report) (lease.Reply, lease.Refusal) {
	switch {
	case s.clockError(rep) > s.Leader.Settings().MaxClockSkew:
		return lease.Reply{}, lease.RefusedClock
	case s.peers.rateWrong(s.id):
		return lease.Reply{}, lease.RefusedRate
	case s.catchUp(ctx, rep.HashIndex) != nil:
		return lease.Reply{}, lease.RefusedSilent
	case s.compareHashes(rep) != "":
		return lease.Reply{}, lease.RefusedDiverged
	}
	return s.Leader.Grant(ctx, s.term, lease.Request{
		Server: string(s.id), Boot: s.boot, Nonce: rep.Nonce,
		Applied: rep.Applied, Adopted: rep.AdoptedTerm, Dropped: rep.DroppedNonce,
	})
}

// measureDelay updates late with the delay of a request that has just arrived. A request that is
// off by more than half an interval did not follow the plan, so it does not count.
func (s *session) measureDelay() {
	s.paceMu.Lock()
	defer s.paceMu.Unlock()
	limit := s.Holder.RenewEvery() / 2
	if off := time.Since(s.expected); !s.expected.IsZero() && off.Abs() <= limit {
		s.late = min(max(0, s.late+off), limit)
	}
	s.expected = time.Time{}
}

// renewIn returns how long the member should wait before its next request. The parameter arrived is
// the arrival time of the newest request.
func (s *session) renewIn(arrived time.Time) time.Duration {
	s.paceMu.Lock()
	defer s.paceMu.Unlock()
	d := s.Leader.NextRenewal(s.late, arrived)
	if d > 0 {
		s.expected = time.Now().Add(d + s.late)
	}
	return d
}

// catchUp waits for at most one interval until this node has applied index, so that the hashes at
// index can be compared.
func (s *session) catchUp(ctx context.Context, index uint64) error {
	if index <= s.FSM.Applied() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.Holder.RenewEvery())
	defer cancel()
	return s.FSM.Wait(ctx, index)
}

// clockError returns how far a member's wall clock is from the cluster's clock, or 0 while the
// cluster's clock does not advance.
func (s *session) clockError(rep *nodepb.Report) time.Duration {
	if !s.Clock.HasMajority() {
		return 0
	}
	return revoked.Time(rep.Wall).Sub(s.Clock.Stamp()).Abs()
}

// compareHashes describes how the hashes at the report's index differ. It returns "" if they agree
// or this node does not have the hashes of that index.
func (s *session) compareHashes(rep *nodepb.Report) string {
	log, state, ok := s.FSM.HashesAt(rep.HashIndex)
	switch {
	case !ok || len(rep.LogHash) == 0:
	case string(log[:]) != string(rep.LogHash):
		return fmt.Sprintf("log hash differs at index %d", rep.HashIndex)
	case string(state[:]) != string(rep.StateHash):
		return fmt.Sprintf("state hash differs at index %d", rep.HashIndex)
	}
	return ""
}
