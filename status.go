package revoked

import "time"

// A Member describes one node of the cluster as another node sees it.
type Member struct {
	NodeID       string
	Region       string
	API          string // URL
	Cluster      string // host:port of the cluster port
	Voter        bool
	Leader       bool
	Alive        bool
	AppliedIndex uint64        // 0: not reported yet
	Behind       uint64        // entries that it has not applied
	LastContact  time.Duration // since the last report; negative: no report yet
	LeaseLeft    time.Duration
	Version      string
}

// A NodeStatus describes the answering node.
type NodeStatus struct {
	NodeID       string
	ClusterID    string
	Version      string
	Healthy      bool
	Leader       LeaderRef
	Term         uint64
	State        string // leader, follower, candidate, shutdown, or "none" before it is in a cluster
	CommitIndex  uint64
	AppliedIndex uint64
	Voters       int
	Quorum       int
	Lease        LeaseStatus
	LogHash      string
	StateHash    string
	HashIndex    uint64
	Tokens       uint64
	Grants       uint64
	WaitingFor   []string // on the leader: nodes whose leases delay a revocation
}

// A LeaderRef names the leader. Both fields are empty while the leader is unknown.
type LeaderRef struct {
	NodeID string
	API    string // URL
}

// A LeaseStatus describes the read lease of a node.
type LeaseStatus struct {
	Held bool
	Left time.Duration
}

// Readiness reports what a node can do now.
type Readiness struct {
	CanAnswer bool     // can answer introspections with the consistency guarantee
	CanRevoke bool     // CanAnswer, and the leader is known
	Reasons   []string // why CanAnswer or CanRevoke is false, for /readyz?verbose
	Checks    []Check
}

// A Check is one line of /readyz?verbose.
type Check struct {
	Name   string
	OK     bool
	Detail string
}
