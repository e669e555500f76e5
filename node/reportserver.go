package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/transport"
)

// A reportSession is the leader's half of one member's report stream.
type reportSession struct {
	n      *Node
	p      *proposer
	stream *transport.Stream
	number uint64 // of the stream: a newer one speaks for the member
	id     raft.ServerID
	boot   string

	mu sync.Mutex // replies are sent by the reader and by grants
	wg sync.WaitGroup

	pace     sync.Mutex    // guards the next two
	expected time.Time     // the next ask, as the member was told
	late     time.Duration // by how much its asks miss that: about a round trip
}

// serveReports takes the reports of a member for as long as this node leads, and answers its asks for
// a read lease.
func (n *Node) serveReports(w http.ResponseWriter, r *http.Request) {
	peer := transport.PeerNode(r)
	stream, err := transport.ServeStream(w, r)
	if err != nil {
		n.log.Warn("report stream refused", "peer", peer, "error", err)
		return
	}
	defer stream.Close()
	p := n.proposer.Load()
	if p == nil {
		return
	}
	s := &reportSession{n: n, p: p, stream: stream, number: n.streams.Add(1)}
	ctx, cancel := context.WithCancel(r.Context())
	defer s.wg.Wait()
	defer cancel()
	if !s.open(ctx, peer) {
		return
	}
	defer n.peers.close(s.id, s.number)
	for {
		frame, err := stream.Recv()
		if err != nil || n.proposer.Load() != p {
			return
		}
		var rep Report
		if err := proto.Unmarshal(frame, &rep); err != nil {
			n.log.Warn("report cannot be read", "peer", peer, "error", err)
			return
		}
		if !n.peers.isMember(s.id) {
			s.refuse(ctx)
			return
		}
		s.take(ctx, &rep)
	}
}

// open reads the first report, which says who speaks, and answers with the term.
func (s *reportSession) open(ctx context.Context, peer string) bool {
	frame, err := s.stream.Recv()
	if err != nil {
		return false
	}
	var rep Report
	if err := proto.Unmarshal(frame, &rep); err != nil || rep.Who.GetNodeId() != peer {
		s.n.log.Warn("report does not name the node of its certificate", "peer", peer)
		return false
	}
	s.id, s.boot = serverIDOf(rep.Who), string(rep.BootId)
	if !s.n.peers.isMember(s.id) {
		s.refuse(ctx)
		return false
	}
	if had, back := s.n.peers.rolledBack(s.id, rep.LastIndex); back {
		s.n.log.Error("a member came back with an older data directory", "server", s.id, "had_applied", had, "log_ends", rep.LastIndex)
		s.reply(&ReportReply{RolledBack: fmt.Sprintf("it had applied index %d, its log ends at %d", had, rep.LastIndex)})
		return false
	}
	s.n.peers.open(s.id, s.number, rep.Who, s.boot)
	s.take(ctx, &rep)
	return s.reply(&ReportReply{Term: s.p.term})
}

func (s *reportSession) reply(r *ReportReply) bool {
	b, err := proto.Marshal(r)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(b) == nil
}

// take notes one report. Order matters: what was applied, then what was asked.
func (s *reportSession) take(ctx context.Context, rep *Report) {
	n := s.n
	n.stamps.observe(string(s.id), revoked.Time(rep.Wall))
	s.watchRate(rep)
	diverged := n.compareHashes(rep)
	n.peers.observe(s.id, s.number, time.Now(), rep, diverged)
	n.leases.report(s.id, s.boot, rep.Applied, rep.AdoptedTerm)
	switch {
	case diverged != "":
		s.reply(&ReportReply{Diverged: diverged, Refused: string(refusedDiverged)})
	case rep.GiveBack:
		n.leases.giveBack(s.id, s.boot, rep.DroppedNonce)
		s.reply(&ReportReply{GivenBack: true})
	case rep.Nonce != 0:
		s.punctual()
		arrived := time.Now()
		s.wg.Go(func() { s.answer(ctx, rep, arrived) })
	}
}

// watchRate compares the rates of the two clocks.
func (s *reportSession) watchRate(rep *Report) {
	if rep.BootClock == 0 {
		return
	}
	wrong, news, drift := s.n.peers.watchRate(s.id, s.number, s.n.cfg.BootClock(), instant(rep.BootClock))
	switch {
	case news && wrong:
		s.n.log.Error("the clock of a member and the clock of this leader run apart: it gets no read lease", "server", s.id, "apart", percent(drift))
	case news:
		s.n.log.Info("the clock of a member runs with this leader's again", "server", s.id, "apart", percent(drift))
	}
}

// percent words a share, of a second in each second say.
func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*max(share, -share)) }

// answer admits an ask or says why not.
func (s *reportSession) answer(ctx context.Context, rep *Report, arrived time.Time) {
	n := s.n
	reason := admitted
	var g leaseGrant
	if off := n.clockError(rep); off > n.Settings().MaxClockSkew {
		reason = refusedClock
	} else if n.peers.rateWrong(s.id) {
		reason = refusedRate
	} else if err := n.catchUp(ctx, rep.HashIndex); err != nil {
		reason = refusedSilent
	} else if n.compareHashes(rep) != "" {
		reason = refusedDiverged
	} else {
		g, reason = n.leases.serve(ctx, s.p, leaseAsk{server: s.id, boot: s.boot, nonce: rep.Nonce,
			applied: rep.Applied, adopted: rep.AdoptedTerm, dropped: rep.DroppedNonce})
	}
	if reason != admitted {
		n.metrics.leaseRefusals.WithLabelValues(string(reason)).Inc()
		s.reply(&ReportReply{Refused: string(reason)})
		return
	}
	s.reply(&ReportReply{Term: g.term, Nonce: g.nonce, BootId: []byte(g.boot), Length: int64(g.length), AskIn: int64(s.askIn(arrived))})
}

// punctual learns from an ask that has come how late the member's next one will be.
func (s *reportSession) punctual() {
	s.pace.Lock()
	defer s.pace.Unlock()
	if !s.expected.IsZero() {
		s.late = min(max(0, s.late+time.Since(s.expected)), s.n.renewEvery()/2)
		s.expected = time.Time{}
	}
}

// askIn tells a member whose ask came at arrived when to ask next.
func (s *reportSession) askIn(arrived time.Time) time.Duration {
	s.pace.Lock()
	defer s.pace.Unlock()
	d := s.p.rhythm.askIn(s.n.renewEvery(), s.late, arrived)
	if d > 0 {
		s.expected = time.Now().Add(d + s.late)
	}
	return d
}

// catchUp waits, for a short while, until this node's own state reaches an index that a member has
// applied already, so that the hashes can be compared.
func (n *Node) catchUp(ctx context.Context, index uint64) error {
	if index <= n.fsm.Applied() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.renewEvery())
	defer cancel()
	return n.fsm.Wait(ctx, index)
}

// clockError is how far a member's wall clock is from the cluster's time; 0 while that stands still.
func (n *Node) clockError(rep *Report) time.Duration {
	if !n.stamps.settled() {
		return 0
	}
	return revoked.Time(rep.Wall).Sub(n.stamps.stamp()).Abs()
}

// refuse tells a node that it is not a member, once this is proven: the configuration that
// lacks it must not be older than the leadership of this node.
func (s *reportSession) refuse(ctx context.Context) {
	if s.n.prove(ctx) != nil {
		return
	}
	if conf, err := s.n.configuration(); err == nil && !inConfiguration(conf, s.id) && s.n.proposer.Load() == s.p {
		s.n.log.Info("a node that is no member reported here", "server", s.id)
		s.reply(&ReportReply{NotMember: true})
	}
}

// compareHashes looks for divergence: at the same index both hashes must be the same.
func (n *Node) compareHashes(rep *Report) string {
	log, state, ok := n.fsm.LogHashAt(rep.HashIndex)
	if !ok || len(rep.LogHash) == 0 {
		return ""
	}
	switch {
	case string(log[:]) != string(rep.LogHash):
		return fmt.Sprintf("log hash differs at index %d", rep.HashIndex)
	case string(state[:]) != string(rep.StateHash):
		return fmt.Sprintf("state hash differs at index %d", rep.HashIndex)
	}
	return ""
}
