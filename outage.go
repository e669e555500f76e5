package revoked

import (
	"fmt"
	"strings"
	"time"
)

// An OutageError is the [ErrNoLeader] of a node that does not expect a leader soon. It
// contains the reason.
type OutageError struct {
	Since     time.Time // the node has known no leader since then
	Voters    int       // number of voters of the cluster, this node included; 0: this node is not a voter
	Reachable int       // number of voters that respond to this node, itself included
	Silent    []SilentVoter
	// RetryAfter is how long a caller should wait. It is short before an election. If a majority of
	// the voters is unreachable, it is as long as the outage has lasted.
	RetryAfter time.Duration
}

// A SilentVoter is a voter that does not respond.
type SilentVoter struct {
	NodeID string
	Since  time.Time // since then messages to it have failed, or it has been silent
}

// Unwrap returns ErrNoLeader: nothing was proposed.
func (e *OutageError) Unwrap() error { return ErrNoLeader }

// Quorum returns the number of voters that must be reachable.
func (e *OutageError) Quorum() int { return e.Voters/2 + 1 }

// Error returns the summary and the voters that are silent.
func (e *OutageError) Error() string {
	if e.Voters == 0 || len(e.Silent) == 0 {
		return e.Summary()
	}
	var groups []string
	for i := 0; i < len(e.Silent); {
		names, at := []string{e.Silent[i].NodeID}, clock(e.Silent[i].Since)
		for i++; i < len(e.Silent) && clock(e.Silent[i].Since) == at; i++ {
			names = append(names, e.Silent[i].NodeID)
		}
		groups = append(groups, list(names)+" silent since "+at)
	}
	return e.Summary() + "; " + strings.Join(groups, ", ")
}

// Summary returns the error without names of nodes.
func (e *OutageError) Summary() string {
	switch {
	case e.Voters == 0:
		return fmt.Sprintf("%v since %s", ErrNoLeader, clock(e.Since))
	case e.Reachable >= e.Quorum():
		return fmt.Sprintf("%v since %s: %d of %d voters reachable", ErrNoLeader, clock(e.Since), e.Reachable, e.Voters)
	}
	return fmt.Sprintf("%v: %d of %d voters reachable, %d needed", ErrNoLeader, e.Reachable, e.Voters, e.Quorum())
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// list joins names as "a", "a and b" or "a, b and c".
func list(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
