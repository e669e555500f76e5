package node

import "testing"

// A new instance hears Raft in place of the one before it at its address, reports to that leader before it
// has joined, and is told that it is no member. It took that for its removal and ended for good (found by
// TestSim, once in two thousand minutes).
func TestWhoWasNeverAMemberIsNotRemoved(t *testing.T) {
	l := newLoneNode(t)
	l.raft = startSingleRaft(t, nil)
	l.done = make(chan struct{})
	l.id = &identity{NodeID: "self", dir: t.TempDir()}
	l.self = "self/new" // what Raft was started as is another
	l.reporter = newReporter(l.Node)
	s := &reportStream{n: l.Node, wake: make(chan struct{}, 1), replan: make(chan struct{}, 1)}
	ended := func() bool {
		select {
		case <-l.done:
			return true
		default:
			return false
		}
	}
	if err := s.hear(&ReportReply{NotMember: true}); err == nil || ended() {
		t.Errorf("who is joining: got %v, ended %v; want the stream to end and the node not", err, ended())
	}
	if err := s.hear(&ReportReply{Term: 3}); err != nil { // a leader takes it for a member
		t.Fatal(err)
	}
	if err := s.hear(&ReportReply{NotMember: true}); err == nil || !ended() {
		t.Errorf("a member that was removed: got %v, ended %v; want both to end", err, ended())
	}
}
