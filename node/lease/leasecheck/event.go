package leasecheck

import "time"

// An Event is one step of the lease protocol at one node. Fields that its kind does not use are
// zero.
type Event struct {
	Kind Kind
	Node string // the node that takes the step
	Term uint64
	// Index is the index of the term's first command (Opened), or the index to be acknowledged (Waits,
	// Acknowledged, Canceled).
	Index uint64

	Server, Boot string // the member that sent the request or gets the reply
	Nonce        uint64
	Applied      uint64
	Adopted      uint64
	Dropped      uint64
	Length       time.Duration
	Accepted     bool // for Taken: whether the member accepted the reply
}

// A Kind is the kind of an event. A checker handles every kind, and a node emits events in the
// order of its steps.
type Kind uint8

// The kinds of events. Those from Opened to Canceled are steps of the leader's side, the others of
// a member's side.
const (
	Opened       Kind = iota + 1 // the term's table exists
	Reported                     // the leader recorded a report
	Reserved                     // a request was admitted and its lease reserved
	Granted                      // the barrier passed, and the leader granted the request
	Waits                        // an acknowledgement must wait
	Acknowledged                 // an index was acknowledged
	Canceled                     // an acknowledgement no longer waits
	Requested                    // a member started a request
	Taken                        // a member accepted or rejected a reply
	Adopted                      // a term was adopted
	Dropped                      // the lease was dropped
	Answered                     // the lease covered an answer from the node's own copy
)
