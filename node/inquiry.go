package node

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
)

// inquiryInterval is how often a member without a leader asks another whether it still is one.
const inquiryInterval = 2 * time.Second

// inquire asks one of the others who leads and who is in. Nobody calls on a node that was removed while it
// was away: it would stand for election for ever. What the other says is a hint; the leader's answer
// to a report, which rests on a committed configuration, ends this node.
func (r *reporter) inquire(ctx context.Context, turn int) {
	n := r.n
	conf, err := n.configuration()
	if err != nil || n.boundTo() == "" {
		return
	}
	var hosts []string
	for _, s := range conf.Servers {
		if host := hostOf(s.Address); s.ID != n.self && host != "" {
			hosts = append(hosts, host)
		}
	}
	if len(hosts) == 0 {
		return
	}
	h, err := n.ask(ctx, hosts[turn%len(hosts)])
	if err != nil || h.ClusterId != n.boundTo() || slices.Contains(h.MemberIds, n.cfg.NodeID) || len(h.MemberIds) != len(h.MemberAddrs) {
		return
	}
	if k := slices.Index(h.MemberIds, h.LeaderId); k >= 0 {
		r.inquireAt(ctx, h.LeaderId, h.MemberAddrs[k])
	}
}

// inquireAt opens a stream to a leader and hears its first word.
func (r *reporter) inquireAt(ctx context.Context, leader, host string) {
	n := r.n
	ctx, cancel := context.WithTimeout(ctx, n.cfg.RequestTimeout)
	defer cancel()
	stream, err := n.trans.Stream(ctx, host, leader, pathReports)
	if err != nil {
		return
	}
	defer stream.Close()
	rep := n.newReport()
	rep.Who, rep.BootId = n.hello(), n.boot
	b, err := proto.Marshal(rep)
	if err != nil || stream.Send(b) != nil {
		return
	}
	if b, err = stream.Recv(); err != nil {
		return
	}
	var reply ReportReply
	if proto.Unmarshal(b, &reply) == nil && reply.NotMember {
		n.removed()
	}
}
