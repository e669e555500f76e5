package roster

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
)

const (
	// The leader adds marks to the first tick that it proposes markInterval or more after the last
	// marks. After markOverdue it proposes the marks in a separate entry. An idle cluster has three
	// ticks a second.
	markInterval = 700 * time.Millisecond
	markOverdue  = 1200 * time.Millisecond
)

// The marks type decides when a leader records the progress of each member, and compares the
// members' logs with these marks. An instance whose log ended below its mark has a disk that was
// rolled back to an older image. Such a disk may also lack votes.
type marks struct {
	*local

	mu       sync.Mutex
	recorded time.Time // time at which due last returned marks
}

// due returns the marks of all members for an entry that is about to be proposed. It returns nil if
// it returned marks within the interval, and in a cluster of one node. It also returns nil before
// the log holds a command of version 2, because ticks with marks have that version.
func (m *marks) due(interval time.Duration) []*command.Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.recorded) < interval || m.peers.isSingleNode() || !m.usesVersion2() {
		return nil
	}
	m.recorded = time.Now()
	var list []*command.Mark
	for _, id := range m.peers.servers() {
		if mark := m.of(id); mark != nil {
			list = append(list, mark)
		}
	}
	return list
}

// of returns the highest known mark of a server, or nil.
func (m *marks) of(id raft.ServerID) *command.Mark {
	if id == m.self {
		return &command.Mark{Server: string(id), Boot: m.Identity.Boot, Index: m.FSM.Applied()}
	}
	return higher(m.peers.mark(id), m.Store.Mark(id))
}

// higher returns the mark with the higher index. Either may be nil.
func higher(a, b *command.Mark) *command.Mark {
	if a == nil || b != nil && b.Index > a.Index {
		return b
	}
	return a
}

// rolledBack describes how the log of an instance contradicts its mark, which may be nil. It
// returns "" if they agree. The process with that boot started with a log up to atStart, which now
// ends at end.
//
// An instance never loses an entry that it has applied. The log with which this process started
// must reach the mark of an earlier process. Since then, a leader may have sent a part of the
// missing entries.
func rolledBack(m *command.Mark, boot string, atStart, end uint64) string {
	if string(m.GetBoot()) != boot {
		end = atStart
	}
	if m.GetIndex() <= end {
		return ""
	}
	return fmt.Sprintf("it had applied index %d, but its log ended at %d", m.Index, end)
}

// endRolledBack stops this node because its disk was rolled back to an older image.
func (l *local) endRolledBack(detail string) {
	l.Fatal(fmt.Errorf("%w: this data directory was rolled back to an older image (%s): move it away and "+
		"let the node join as a new instance", revoked.ErrConflict, detail))
}

// note returns the note that this node sends with a request for a vote.
func (m *marks) note(voter raft.ServerID) []byte {
	b, err := proto.Marshal(&nodepb.VoteNote{Voter: m.of(voter), Candidate: &command.Mark{
		Server: string(m.self), Boot: m.Identity.Boot, Index: m.Store.EndAtStart(),
	}})
	if err != nil {
		return nil
	}
	return b
}

// mayVote reports whether this node may vote for the candidate that sent a note. If the note shows
// that this node's disk was rolled back, mayVote stops the node. The candidate may lack an entry
// that the node has stored and lost.
func (m *marks) mayVote(note []byte) bool {
	var n nodepb.VoteNote
	if err := proto.Unmarshal(note, &n); err != nil {
		m.Log.Warn("refusing vote: malformed note", "error", err)
		return false
	}
	if n.Voter.GetServer() == string(m.self) {
		boot := string(m.Identity.Boot)
		if detail := rolledBack(n.Voter, boot, m.Store.EndAtStart(), m.Store.End()); detail != "" {
			m.endRolledBack(detail)
			return false
		}
	}
	// If the candidate's process made the mark, Raft's own comparison of the logs is sufficient.
	known := m.of(raft.ServerID(n.Candidate.GetServer()))
	detail := rolledBack(known, string(n.Candidate.GetBoot()), n.Candidate.GetIndex(), known.GetIndex())
	if detail != "" {
		m.Log.Error("refusing vote: data directory of the candidate was rolled back",
			"server", n.Candidate.Server, "detail", detail)
		return false
	}
	return true
}
