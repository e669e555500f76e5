package revoked

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

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
	Behind       uint64        // number of entries that it has not applied
	LastContact  time.Duration // time since the last report; negative: no report yet
	LeaseLeft    time.Duration
	Version      string
}

// A NodeStatus describes the node that returns it.
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
	Backups      []BackupStatus
}

// A BackupStatus describes the scheduled backups of a node at one target.
type BackupStatus struct {
	Target string        // "dir" or "s3"
	Age    time.Duration // time since the start of the newest successful backup; negative: there is none
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

// Voting reports how many voters of a cluster respond, and how many more may fail.
type Voting struct {
	Voters int
	Up     int // number of voters that respond
	Quorum int // number of voters needed for a commit; 0 if there are no voters
	// FailureTolerance is the number of further voters that may fail, whichever they are. It is also 0
	// if the quorum is already lost.
	FailureTolerance int
	// RegionTolerance is the number of regions that may fail as a whole, whichever they are.
	RegionTolerance int
	Regions         []RegionVoting // regions with voters, by name
}

// RegionVoting is the part of [Voting] about one region.
type RegionVoting struct {
	Region     string
	Voters     int
	Up         int
	Survivable bool // without this region, the voters that respond are still a quorum
}

// VotingOf counts the voters among members.
func VotingOf(members []Member) Voting {
	var v Voting
	for _, m := range members {
		if !m.Voter {
			continue
		}
		name := strings.ToValidUTF8(m.Region, "?")
		i := slices.IndexFunc(v.Regions, func(r RegionVoting) bool { return r.Region == name })
		if i < 0 {
			i = len(v.Regions)
			v.Regions = append(v.Regions, RegionVoting{Region: name})
		}
		v.Voters++
		v.Regions[i].Voters++
		if m.Alive {
			v.Up++
			v.Regions[i].Up++
		}
	}
	if v.Voters == 0 {
		return v
	}
	v.Quorum = v.Voters/2 + 1
	v.FailureTolerance = max(0, v.Up-v.Quorum)
	// In the worst case, the regions with the most responding voters fail.
	slices.SortFunc(v.Regions, func(a, b RegionVoting) int { return cmp.Compare(b.Up, a.Up) })
	left := v.Up
	for _, r := range v.Regions {
		if left -= r.Up; left < v.Quorum {
			break
		}
		v.RegionTolerance++
	}
	for i, r := range v.Regions {
		v.Regions[i].Survivable = v.Up-r.Up >= v.Quorum
	}
	slices.SortFunc(v.Regions, func(a, b RegionVoting) int { return cmp.Compare(a.Region, b.Region) })
	return v
}
