package saferaft

import (
	"bytes"

	"github.com/hashicorp/raft"
)

// A VoteGuard exchanges notes between a candidate and the voters. A note is a part of a vote
// request that Raft does not read. Its functions may be called concurrently.
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
// header has no address of the candidate, and every version of this program sends that address.
// Version 0.3 ignores a note. It sends its own address in the field, which begins with a node name.
const voteNote = "\x00note\x01"

// addNote returns a copy of req with the note for a voter, or req if there is no note. It copies
// req because Raft sends the same request to all voters.
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
// stored may have made the candidate a voter. If the leader is lost, only the candidate's log is
// new enough to win. Without this node's vote, the cluster could not elect a leader. A voter grants
// its vote to any candidate whose log is new enough (Ongaro's dissertation, 4.2.2). If instead this
// node's log has an entry that withdrew the candidate's vote, the candidate's log is older, and
// Raft rejects the candidate.
func (g *VoteGuard) standIn(h *raft.RPCHeader) {
	if g == nil || g.StandIn == nil || len(h.Addr) == 0 {
		return
	}
	if voter := g.StandIn(raft.ServerID(h.ID)); voter != "" {
		h.ID = []byte(voter) // Raft stores a vote by the address, which stays that of the candidate
	}
}

// GuardVotes attaches the notes of g to this node's vote requests, and refuses a vote if g.MayVote
// returns false. A peer of version 0.3 neither sends nor reads notes.
func (s *Transport) GuardVotes(g VoteGuard) { s.guard.Store(&g) }
