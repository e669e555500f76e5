package revoked

// A Member is one node as the answering node sees it. JSON: contract of GET /v1/members.
type Member struct {
	NodeID        string `json:"node_id"`
	Region        string `json:"region"`
	API           string `json:"api"`
	Cluster       string `json:"cluster"`
	Voter         bool   `json:"voter"`
	Leader        bool   `json:"leader"`
	Alive         bool   `json:"alive"`
	AppliedIndex  uint64 `json:"applied_index"`
	Behind        uint64 `json:"behind"`
	LastContactMS int64  `json:"last_contact_ms"` // -1: never heard
	LeaseLeftMS   int64  `json:"lease_left_ms"`
	Version       string `json:"version"`
}

// A NodeStatus is the state of the answering node. JSON: contract of GET /v1/status.
type NodeStatus struct {
	NodeID       string      `json:"node_id"`
	ClusterID    string      `json:"cluster_id"`
	Version      string      `json:"version"`
	Healthy      bool        `json:"healthy"`
	Leader       LeaderRef   `json:"leader"`
	Term         uint64      `json:"term"`
	State        string      `json:"state"` // leader, follower, candidate, shutdown, or "none": in no cluster yet
	CommitIndex  uint64      `json:"commit_index"`
	AppliedIndex uint64      `json:"applied_index"`
	Voters       int         `json:"voters"`
	Quorum       int         `json:"quorum"`
	Lease        LeaseStatus `json:"lease"`
	LogHash      string      `json:"log_hash"`
	StateHash    string      `json:"state_hash"`
	HashIndex    uint64      `json:"hash_index"`
	Tokens       uint64      `json:"tokens"`
	Grants       uint64      `json:"grants"`
	WaitingFor   []string    `json:"waiting_for,omitempty"` // at the leader, while a revocation waits: nodes that may still say "active"
}

// A LeaderRef names the leader; both fields are empty when none is known.
type LeaderRef struct {
	NodeID string `json:"node_id"`
	API    string `json:"api"`
}

// A LeaseStatus tells whether the node holds a read lease, and for how long still.
type LeaseStatus struct {
	Held   bool  `json:"held"`
	LeftMS int64 `json:"left_ms"`
}

// Readiness is what a node can do right now.
type Readiness struct {
	CanAnswer bool     // introspections, with the promise kept
	CanRevoke bool     // a leader is known as well
	Reasons   []string // why not, for ?verbose
	Checks    []Check
}

// A Check is one line of /readyz?verbose.
type Check struct {
	Name   string
	OK     bool
	Detail string
}
