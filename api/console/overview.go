package console

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// A member is a member of the cluster as GET /v1/members shows it.
type member struct {
	NodeID        string `json:"node_id"`
	Region        string `json:"region"`
	API           string `json:"api"`
	Voter         bool   `json:"voter"`
	Leader        bool   `json:"leader"`
	Alive         bool   `json:"alive"`
	AppliedIndex  uint64 `json:"applied_index"`
	Behind        uint64 `json:"behind"`
	LastContactMS int64  `json:"last_contact_ms"`
	LeaseLeftMS   int64  `json:"lease_left_ms"`
	Version       string `json:"version"`
}

// State returns the state of the member in one word.
func (m member) State() string {
	switch {
	case !m.Alive:
		return "lost"
	case m.Leader:
		return "leader"
	case m.Voter:
		return "voter"
	}
	return "non-voter"
}

// Progress returns the share of the newest index that the member has applied, in percent.
func (m member) Progress() int {
	if m.AppliedIndex == 0 {
		return 0
	}
	return int(100 * m.AppliedIndex / (m.AppliedIndex + m.Behind))
}

// lastContact returns how long ago the leader heard from the member.
func (m member) lastContact() string {
	if m.LastContactMS < 0 {
		return "never"
	}
	return ms(m.LastContactMS)
}

// leaseLeft returns for how long the member may still answer "active".
func (m member) leaseLeft() string {
	if m.LeaseLeftMS <= 0 {
		return "none"
	}
	return ms(m.LeaseLeftMS)
}

type membersView struct {
	Members []member `json:"members"`
}

// statusView is the response to GET /v1/status.
type statusView struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Version   string `json:"version"`
	Healthy   bool   `json:"healthy"`
	Leader    struct {
		NodeID string `json:"node_id"`
	} `json:"leader"`
	Term         uint64 `json:"term"`
	State        string `json:"state"`
	AppliedIndex uint64 `json:"applied_index"`
	Voting       *struct {
		Voters                 int `json:"voters"`
		VotersUp               int `json:"voters_up"`
		Quorum                 int `json:"quorum"`
		FailureTolerance       int `json:"failure_tolerance"`
		RegionFailureTolerance int `json:"region_failure_tolerance"`
	} `json:"voting"`
	Lease struct {
		Held   bool  `json:"held"`
		LeftMS int64 `json:"left_ms"`
	} `json:"lease"`
	Tokens     uint64   `json:"tokens"`
	Grants     uint64   `json:"grants"`
	WaitingFor []string `json:"waiting_for"`
	Reasons    []string `json:"reasons"`
}

// overviewView is the body of the overview.
type overviewView struct {
	Level   string // good, warn or bad
	Health  string // one sentence
	Status  statusView
	Members []member
	Picture picture
	Problem string // why the members could not be read
}

// getOverview shows the cluster as this node sees it. It needs neither a leader nor a lease.
func (v *visit) getOverview() error {
	var o overviewView
	var list membersView
	var problem error
	v.inner.Repeated = isRefresh(v.http)
	v.ID() // sets the request id, which the two concurrent calls read
	var members sync.WaitGroup
	members.Go(func() { problem = v.call("GET", "/v1/members", nil, &list) })
	err := v.call("GET", "/v1/status", nil, &o.Status)
	members.Wait()
	if err != nil {
		return err
	}
	if problem != nil {
		o.Problem = problem.Error()
	}
	o.Members, o.Picture = list.Members, draw(list.Members)
	o.Level, o.Health = o.Status.health()
	return v.show(http.StatusOK, "Overview", &o)
}

// health returns the state of the cluster in one sentence.
func (s *statusView) health() (level, sentence string) {
	up := ""
	if g := s.Voting; g != nil {
		up = fmt.Sprintf("%d of %d voters answer", g.VotersUp, g.Voters)
	}
	switch {
	case s.ClusterID == "":
		return "bad", "This node is not in a cluster yet, so it cannot answer questions about tokens."
	case s.Leader.NodeID == "" && s.Voting != nil:
		return "bad", fmt.Sprintf("No leader: %s and %d are needed, so every revocation gets 503.", up, s.Voting.Quorum)
	case s.Leader.NodeID == "":
		return "bad", "No leader: this node has no list of voters, so every revocation gets 503."
	case len(s.WaitingFor) > 0:
		return "bad", "Revocations wait for " + strings.Join(s.WaitingFor, " and ") + ", which could still answer “active”."
	case !s.Healthy:
		return "bad", "This node is not ready: " + strings.Join(s.Reasons, "; ") + "."
	case s.Voting == nil:
		return "warn", s.Leader.NodeID + " leads, and the voters are unknown."
	case s.Voting.VotersUp < s.Voting.Voters && s.Voting.FailureTolerance == 0:
		return "bad", fmt.Sprintf("%s, %s leads, and revocations stop if one more fails.", up, s.Leader.NodeID)
	case s.Voting.VotersUp < s.Voting.Voters:
		return "warn", fmt.Sprintf("%s, %s leads, and %d more may fail.", up, s.Leader.NodeID, s.Voting.FailureTolerance)
	case s.Voting.FailureTolerance == 0:
		return "warn", fmt.Sprintf("Healthy without a spare: %s, %s leads, and revocations stop if one fails.",
			up, s.Leader.NodeID)
	}
	return "good", fmt.Sprintf("Healthy: %s, %s leads, and %d may fail.", up, s.Leader.NodeID, s.Voting.FailureTolerance)
}
