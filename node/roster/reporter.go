package roster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/node/nodepb"
	"revoked/node/propose"
	"revoked/transport"
)

const (
	// ReportInterval is the longest time between two reports of a member.
	ReportInterval = 200 * time.Millisecond
	// inquiryInterval is the interval at which a node that knows no leader inquires whether it is
	// still a member.
	inquiryInterval = 2 * time.Second
)

// A reporter keeps a report stream open to the leader. It reports the applied index, the hashes and
// the clocks of this node, and requests read leases. The leader's acknowledgements of revocations
// depend on these reports.
type reporter struct {
	*local
	diverged  atomic.Bool   // whether the leader found that this node's state differs
	returning atomic.Bool   // whether the lease is being returned: request no further lease
	returned  chan struct{} // receives a value when the leader has confirmed the return
	leaving   atomic.Bool   // whether this node has requested its removal

	mu      sync.Mutex
	current *reportStream // nil: no stream is open
}

func newReporter(l *local) *reporter { return &reporter{local: l, returned: make(chan struct{}, 1)} }

// run reports to the current leader until ctx ends.
func (r *reporter) run(ctx context.Context) {
	const longest = 500 * time.Millisecond
	wait := propose.RetryPause
	inquired, turn := time.Now(), 0
	for ctx.Err() == nil {
		changed := r.LeaderChanged()
		addr, id := r.leader()
		switch {
		case addr != "" && id != r.self:
			started := time.Now()
			if err := r.reportTo(ctx, addr); err != nil && ctx.Err() == nil {
				r.Log.Debug("report stream ended", "leader", addr, "error", err)
			}
			wait = min(2*wait, longest)
			if time.Since(started) > time.Second {
				wait = propose.RetryPause
			}
		case addr == "" && time.Since(inquired) >= inquiryInterval:
			r.inquire(ctx, turn)
			inquired, turn = time.Now(), turn+1
			wait = longest
		default:
			wait = longest
		}
		select {
		case <-ctx.Done():
		case <-changed:
			wait = propose.RetryPause
		case <-time.After(wait):
		}
	}
}

// reportTo reports to one leader until Raft reports another or the stream breaks.
func (r *reporter) reportTo(ctx context.Context, addr raft.ServerAddress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name, host, err := transport.SplitAddress(addr)
	if err != nil {
		return err
	}
	stream, err := r.Transport.Stream(ctx, host, name, nodepb.PathReports)
	if err != nil {
		return err
	}
	s := newReportStream(r, addr, stream)
	ended := make(chan error, 1)
	go func() { ended <- s.read() }()
	defer func() {
		stream.Close()
		cancel()
		if err := <-ended; err != nil {
			r.Log.Debug("report stream closed", "leader", addr, "error", err)
		}
	}()
	r.setCurrent(s)
	defer r.setCurrent(nil)
	return s.send(ctx, ended)
}

func (r *reporter) setCurrent(s *reportStream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = s
}

// newReport returns a report of this node. It reads the applied index before the hashes, so that
// the report's applied index is never above its hash index.
func (r *reporter) newReport() *nodepb.Report {
	rep := &nodepb.Report{
		Applied: r.FSM.Applied(), Wall: int64(revoked.TimeOf(r.Now())), LastIndex: r.Store.End(),
		LastTerm: r.Raft.CurrentTerm(), BootClock: int64(r.BootClock()), WriteLoad: uint32(r.FSM.WriteLoad()),
	}
	index, log, state := r.FSM.Hashes()
	rep.HashIndex, rep.LogHash, rep.StateHash = index, log[:], state[:]
	return rep
}

// firstReport returns a report that also names the node and its boot, as the first frame of a
// stream must.
func (r *reporter) firstReport() *nodepb.Report {
	rep := r.newReport()
	rep.Hello, rep.BootId, rep.EndAtStart = r.Hello(), r.Identity.Boot, r.Store.EndAtStart()
	return rep
}

// giveBack drops this node's lease. It waits until a leader, which may still have to be elected,
// has confirmed the return, or ctx ends. Afterwards revocations do not wait for this node.
func (r *reporter) giveBack(ctx context.Context) {
	r.returning.Store(true)
	r.Holder.Drop()
	r.mu.Lock()
	if r.current != nil {
		r.current.wakeUp()
	}
	r.mu.Unlock()
	select {
	case <-r.returned:
	case <-ctx.Done():
	}
}

// resume allows lease requests again after giveBack.
func (r *reporter) resume() { r.returning.Store(false) }

// inquire requests the names of the leader and the members from another member. Raft does not
// contact an instance that was removed or replaced while it was down. Without inquiring, it would
// remain a candidate forever. The hello is only a hint: the leader's answer to a report, based on a
// committed configuration, stops this node.
func (r *reporter) inquire(ctx context.Context, turn int) {
	conf, err := r.Configuration()
	if err != nil || r.boundCluster() == "" {
		return
	}
	hosts := slices.Concat(r.others(conf), r.Join)
	if len(hosts) == 0 {
		return
	}
	h, err := r.hello(ctx, hosts[turn%len(hosts)])
	if err != nil || h.ClusterId != r.boundCluster() || listsServer(h, r.self) ||
		len(h.MemberIds) != len(h.MemberAddrs) {
		return
	}
	if k := slices.Index(h.MemberIds, h.LeaderId); k >= 0 {
		r.inquireAt(ctx, h.LeaderId, h.MemberAddrs[k])
	}
}

// listsServer reports whether h lists a server as a member. A node of version 0.3 lists only nodes,
// not instances.
func listsServer(h *nodepb.Hello, id raft.ServerID) bool {
	if len(h.MemberServers) == 0 {
		return slices.Contains(h.MemberIds, nodeOf(id))
	}
	return slices.Contains(h.MemberServers, string(id))
}

// inquireAt sends one report to a leader and reads the first reply.
func (r *reporter) inquireAt(ctx context.Context, leader, host string) {
	ctx, cancel := context.WithTimeout(ctx, r.RequestTimeout)
	defer cancel()
	stream, err := r.Transport.Stream(ctx, host, leader, nodepb.PathReports)
	if err != nil {
		return
	}
	defer stream.Close()
	if sendMessage(stream, r.firstReport()) != nil {
		return
	}
	var reply nodepb.ReportReply
	if receive(stream, &reply) == nil && reply.NotMember {
		r.removed(reply.Ended)
	}
}

// removed stops this node because the cluster has removed it: it must neither serve nor become a
// candidate. The leader sent the reason; a leader of version 0.3 sends none.
//
// If the node has requested to leave, the removal is a clean leave. The reply that shows the
// removal may arrive before the response to the leave request.
func (r *reporter) removed(reason string) {
	if err := r.Identity.MarkLeft(); err != nil {
		r.Log.Error("cannot record the removal", "error", err)
	}
	if r.leaving.Load() {
		r.End(nil)
		return
	}
	reason = cmp.Or(reason, fmt.Sprintf("node %s was removed from its cluster", r.NodeID))
	r.End(fmt.Errorf("%w: %s; start it with --rejoin to join as a new instance", revoked.ErrForbidden, reason))
}

// sendMessage sends one frame. It must not be called concurrently for one stream.
func sendMessage(s *transport.Stream, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return s.Send(b)
}

// receive receives one frame into m.
func receive(s *transport.Stream, m proto.Message) error {
	b, err := s.Recv()
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}
