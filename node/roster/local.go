package roster

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"revoked/node/nodepb"
	"revoked/transport"
)

// A local holds the Config and the peer table, which all types of this package share.
type local struct {
	Config
	self  raft.ServerID
	peers *peers
}

// Configuration returns the newest Raft configuration in this node's log.
func (l *local) Configuration() (raft.Configuration, error) {
	f := l.Raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return raft.Configuration{}, err
	}
	return f.Configuration(), nil
}

// IsMember reports whether a node id is in the newest configuration.
func (l *local) IsMember(node string) bool {
	conf, err := l.Configuration()
	return err == nil && slices.ContainsFunc(conf.Servers, func(s raft.Server) bool { return nodeOf(s.ID) == node })
}

// hasServer reports whether a server is in the newest configuration. It returns false if the
// configuration cannot be read.
func (l *local) hasServer(id raft.ServerID) bool {
	conf, err := l.Configuration()
	return err == nil && inConfiguration(conf, id)
}

// ReplicatesTo reports whether this node leads in term and has the server in its configuration.
func (l *local) ReplicatesTo(id raft.ServerID, term uint64) bool {
	return l.Raft.State() == raft.Leader && l.Raft.CurrentTerm() == term && l.hasServer(id)
}

// ClusterID returns the id of the cluster, or "" before this node is in a cluster.
func (l *local) ClusterID() string {
	if id := l.FSM.ClusterID(); id != "" {
		return id
	}
	return l.boundCluster()
}

// boundCluster returns the cluster that the data directory belongs to, or "".
func (l *local) boundCluster() string { return l.Identity.Cluster() }

// bind binds the data directory to a cluster. It returns ErrUnprocessable if the directory belongs
// to another cluster.
func (l *local) bind(cluster string) error {
	fresh, err := l.Identity.Bind(cluster)
	if fresh && err == nil {
		l.Log.Info("joined cluster", "cluster_id", cluster)
	}
	return err
}

// follow passes a new configuration to the reports, the leases and the cluster clock.
func (l *local) follow(conf raft.Configuration) {
	l.peers.configure(conf)
	l.Leader.SetMembers(conf)
	l.Clock.SetVoters(VoterIDs(conf))
}

// views returns the leader's view of each member of the newest configuration.
func (l *local) views() []peerView {
	if conf, err := l.Configuration(); err == nil {
		l.peers.configure(conf)
	}
	return l.peers.view(time.Now())
}

// mustNotVote reports whether a member is configured as a non-voter, or an administrator demoted it
// or admitted it as a non-voter.
func (l *local) mustNotVote(p peerView) bool {
	a, _ := l.FSM.Admission(nodeOf(p.server.ID))
	return a.NonVoter || p.hello.GetNonVoter() || p.server.ID == l.self && l.NonVoter
}

// leads reports whether this node accepts proposals.
func (l *local) leads() bool { return l.Leader.Term() != 0 }

// leader returns the address and the id of the leader that Raft knows. Both are empty if Raft does
// not know a leader.
func (l *local) leader() (raft.ServerAddress, raft.ServerID) { return l.Raft.LeaderWithID() }

// Hello describes this node and its view of the cluster.
func (l *local) Hello() *nodepb.Hello {
	h := &nodepb.Hello{
		NodeId: l.NodeID, Instance: l.Identity.Instance, ClusterId: l.ClusterID(),
		ClusterAddr: l.ClusterAdvertise, GossipAddr: l.Gossip.Advertise,
		Api: l.API, Region: l.Region, Version: l.Version,
		NonVoter: l.NonVoter, Expect: uint32(l.BootstrapExpect), Commands: l.Commands,
	}
	if conf, err := l.Configuration(); err == nil {
		for _, s := range conf.Servers {
			if _, host, err := transport.SplitAddress(s.Address); err == nil {
				h.MemberIds = append(h.MemberIds, nodeOf(s.ID))
				h.MemberAddrs = append(h.MemberAddrs, host)
				h.MemberServers = append(h.MemberServers, string(s.ID))
			}
		}
	}
	if _, id := l.leader(); id != "" {
		h.LeaderId = nodeOf(id)
	}
	return h
}

// hello exchanges hellos with the node at host. It waits at most two seconds.
func (l *local) hello(ctx context.Context, host string) (*nodepb.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var h nodepb.Hello
	if err := l.Call(ctx, host, "", nodepb.PathHello, l.Hello(), &h); err != nil {
		return nil, err
	}
	return &h, nil
}

// others lists the cluster addresses of the other nodes in conf.
func (l *local) others(conf raft.Configuration) []string {
	var hosts []string
	for _, s := range conf.Servers {
		if name, host, err := transport.SplitAddress(s.Address); err == nil && name != l.NodeID {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// nodeOf returns the node id in a server id.
func nodeOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "/")
	return name
}

// serverOf returns the server id of the node that sent h.
func serverOf(h *nodepb.Hello) raft.ServerID { return raft.ServerID(h.NodeId + "/" + h.Instance) }

// addressOf returns the Raft address of the node that sent h. Two instances of a node have
// different addresses even at the same host and port.
func addressOf(h *nodepb.Hello) raft.ServerAddress {
	return transport.InstanceAddress(h.NodeId, h.ClusterAddr, h.Instance)
}

// hostOf returns the host and port of a Raft address, or "" if it is malformed.
func hostOf(addr raft.ServerAddress) string {
	_, host, _ := transport.SplitAddress(addr)
	return host
}

func inConfiguration(conf raft.Configuration, id raft.ServerID) bool {
	return slices.ContainsFunc(conf.Servers, func(s raft.Server) bool { return s.ID == id })
}

// VoterIDs lists the server ids of the voters.
func VoterIDs(conf raft.Configuration) []string {
	var ids []string
	for _, s := range conf.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// standIn calls the function standIn with the newest configuration in this node's log. It returns
// "" if that configuration is unknown.
func (l *local) standIn(candidate raft.ServerID) raft.ServerID {
	conf, err := l.Configuration()
	if err != nil {
		return ""
	}
	return standIn(conf, candidate)
}

// standIn returns a voter of conf if the candidate is in conf without a vote. It returns "" for any
// other candidate.
func standIn(conf raft.Configuration, candidate raft.ServerID) raft.ServerID {
	if isVoter(conf, candidate) || !inConfiguration(conf, candidate) {
		return ""
	}
	for _, s := range conf.Servers {
		if s.Suffrage == raft.Voter {
			return s.ID
		}
	}
	return ""
}
