package rows

import "revoked/fsm/command"

// Members is the row of Raft's configuration as recorded in the audit log, and of the pending calls
// that requested a change of this configuration. Only Raft stores the configuration that is in
// force.
type Members struct {
	Index uint64                // index of the entry that contained List; 0: none yet
	List  []command.NotedMember // servers, in the order of their ids
	Asked []AskedVote           // pending calls, in the order of the log
}

// An AskedVote is a call that promotes or demotes a member. It is kept until its audit entry is
// written.
type AskedVote struct {
	Node             string
	NonVoter         bool
	Changed          bool // the call changed whether the member may vote
	Actor, Via, Call string
	Version          uint64 // version of the actor
}

// MembersKey returns the key of the row.
func MembersKey() []byte { return []byte{FamilyMembers} }

func (m *Members) code(c *coder) {
	c.version()
	c.uvarint(&m.Index)
	n := c.length(len(m.List), 3)
	if c.decoding && n > 0 {
		m.List = make([]command.NotedMember, n)
	}
	for i := range m.List {
		v := &m.List[i]
		c.string(&v.Server, &v.Address)
		c.flag(&v.Voter)
	}
	if n = c.length(len(m.Asked), 7); c.decoding && n > 0 {
		m.Asked = make([]AskedVote, n)
	}
	for i := range m.Asked {
		v := &m.Asked[i]
		c.string(&v.Node, &v.Actor, &v.Via, &v.Call)
		c.flag(&v.NonVoter)
		c.flag(&v.Changed)
		c.uvarint(&v.Version)
	}
}
