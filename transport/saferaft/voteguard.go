package saferaft

import (
	"bytes"

	"github.com/hashicorp/raft"
)

// A VoteGuard exchanges notes between a candidate and the voters that it asks. Its functions are
// called from many goroutines.
type VoteGuard struct {
	// Note returns the note for a voter, or nil.
	Note func(voter raft.ServerID) []byte
	// MayVote reports whether this node may vote for the candidate that sent note.
	MayVote func(note []byte) bool
	// StandIn returns a voter if the candidate is a member without a vote. It returns "" for any other
	// candidate. See standIn.
	StandIn func(candidate raft.ServerID) raft.ServerID
}

// voteNote precedes a note in RequestVoteRequest.Candidate. Raft reads that field only if the
// candidate's address is missing from the header, which no version of this program leaves out.
// Version 0.3 ignores a note, and sends its address, which has a node's name at its front.
const voteNote = "\x00note\x01"

// addNote returns a copy of req with the note for a voter. Raft sends one request to all voters.
func (g *VoteGuard) addNote(voter raft.ServerID, req *raft.RequestVoteRequest) *raft.RequestVoteRequest {
	if g == nil {
		return req
	}
	note := g.Note(voter)
	if note == nil {
		return req
	}
	noted := *req
	//lint:ignore SA1019 the library ignores the field, see voteNote
	noted.Candidate = append([]byte(voteNote), note...)
	return &noted
}

// mayVote reports whether a received request may be passed to Raft.
func (g *VoteGuard) mayVote(req *raft.RequestVoteRequest) bool {
	//lint:ignore SA1019 the library ignores the field, see voteNote
	note, ok := bytes.CutPrefix(req.Candidate, []byte(voteNote))
	return g == nil || !ok || len(req.RPCHeader.Addr) == 0 || g.MayVote(note)
}

// standIn replaces the sender of a request by a voter if the candidate is a member without a vote.
//
// Raft rejects such a candidate before it compares the logs. But an entry that this node has not
// stored may have given the candidate its vote. If the leader is lost, only the candidate's log is
// new enough to win. Without this node's vote, the cluster could not elect a leader. A voter grants
// its vote to any candidate whose log is new enough (Ongaro's dissertation, 4.2.2). If this node's
// log holds the entry that took the candidate's vote, the candidate's log is older, and Raft
// rejects it.
func (g *VoteGuard) standIn(h *raft.RPCHeader) {
	if g == nil || g.StandIn == nil || len(h.Addr) == 0 {
		return
	}
	if voter := g.StandIn(raft.ServerID(h.ID)); voter != "" {
		h.ID = []byte(voter) // the address, for which a vote is stored, stays the candidate's
	}
}

// GuardVotes sends notes with this node's vote requests, and refuses the votes that g refuses. A
// peer of version 0.3 neither sends nor reads notes.
func (s *Transport) GuardVotes(g VoteGuard) { s.guard.Store(&g) }
