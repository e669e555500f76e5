package saferaft

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// contacts records when each server last sent or answered a Raft message, and since when messages
// to it have failed. Methods may be called concurrently.
type contacts struct {
	mu      sync.Mutex
	servers map[raft.ServerID]Contact
}

// A Contact records when Raft messages between this node and a server last arrived or failed. A
// zero time means never.
type Contact struct {
	Heard   time.Time // when the last message or answer from the server arrived
	Failing time.Time // when a message to the server first failed after Heard
}

// sent records whether a message to a server succeeded, and returns err.
func (c *contacts) sent(id raft.ServerID, err error) error {
	c.update(id, func(s *Contact) {
		switch {
		case err == nil:
			*s = Contact{Heard: time.Now()}
		case s.Failing.IsZero():
			s.Failing = time.Now()
		}
	})
	return err
}

// received records a message from a server.
func (c *contacts) received(command any) {
	if m, ok := command.(raft.WithRPCHeader); ok && len(m.GetRPCHeader().ID) > 0 {
		c.update(raft.ServerID(m.GetRPCHeader().ID), func(s *Contact) { *s = Contact{Heard: time.Now()} })
	}
}

// maxContacts limits the number of recorded servers. When it is reached, all records are dropped,
// including those of removed nodes.
const maxContacts = 256

func (c *contacts) update(id raft.ServerID, change func(*Contact)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.servers) >= maxContacts || c.servers == nil {
		c.servers = map[raft.ServerID]Contact{}
	}
	s := c.servers[id]
	change(&s)
	c.servers[id] = s
}

func (c *contacts) of(id raft.ServerID) Contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers[id]
}

// ContactOf returns when the last Raft message from the server arrived, and since when messages to
// it have failed.
func (s *Transport) ContactOf(server raft.ServerID) Contact { return s.contacts.of(server) }

// timeoutCounts counts TimeoutNow messages by server.
type timeoutCounts struct {
	mu     sync.Mutex
	counts map[raft.ServerID]int
}

func (t *timeoutCounts) add(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[raft.ServerID]int{}
	}
	t.counts[id]++
}

func (t *timeoutCounts) of(id raft.ServerID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[id]
}

// TimeoutsSent returns how many TimeoutNow messages were sent to the server.
func (s *Transport) TimeoutsSent(server raft.ServerID) int { return s.timeouts.of(server) }
