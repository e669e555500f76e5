package roster

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked/fsm/command"
	"revoked/node/lease"
	"revoked/node/nodepb"
)

// A received state is newer than the node's log. Until the log has reached that index, the reports
// of the node must not look like those of a rolled-back disk.
func TestPeers_ReceivedState_IsNotRolledBack(t *testing.T) {
	const installed, applied, last = 608, 608, 596
	p := newPeers("a", 0)
	p.open("b", 1, time.Now(), &nodepb.Hello{}, "boot")
	rep := &nodepb.Report{Applied: applied, LastIndex: max(last, min(installed, applied))}
	p.observe("b", 1, p.started, rep, "")
	if detail := rolledBack(p.mark("b"), "boot", 0, rep.LastIndex); detail != "" {
		t.Errorf("got rolled back, %s, want the report accepted", detail)
	}
}

// The log with which an instance's next process starts must contain every index that the instance
// had applied. Entries that a leader has sent since that start do not count.
func TestRolledBack_LostEntries_AreReported(t *testing.T) {
	mark := &command.Mark{Server: "b", Boot: []byte("first"), Index: 100}
	for _, tt := range []struct {
		name         string
		mark         *command.Mark
		boot         string
		atStart, end uint64
		want         bool
	}{
		{"no mark", nil, "second", 0, 0, false},
		{"the same process", mark, "first", 20, 100, false},
		{"the same process lost entries", mark, "first", 20, 99, true},
		{"a restart kept all", mark, "second", 100, 100, false},
		{"a restart lost entries", mark, "second", 99, 99, true},
		{"a restart lost entries and has some again", mark, "second", 99, 200, true},
	} {
		if got := rolledBack(tt.mark, tt.boot, tt.atStart, tt.end); (got != "") != tt.want {
			t.Errorf("%s: got %q, want rolled back: %t", tt.name, got, tt.want)
		}
	}
}

// The clock belongs to the machine, so the verdict on the clock outlives a restart of the process.
func TestPeers_WatchRate_VerdictSurvivesRestart(t *testing.T) {
	p := newPeers("a", 0)
	p.open("b", 1, time.Now(), &nodepb.Hello{}, "boot")
	watch := func(stream uint64, d time.Duration, rate float64) (wrong bool) {
		for at := time.Duration(0); at < d; at += 200 * time.Millisecond {
			wrong, _, _ = p.watchRate("b", stream, lease.Instant(at), lease.Instant(float64(at)*rate))
		}
		return wrong
	}
	if !watch(1, time.Minute, 1.1) || !p.rateWrong("b") || !p.clockOutlier() {
		t.Fatal("clock 10 % too fast: got rate accepted, want wrong")
	}
	p.open("b", 2, time.Now(), &nodepb.Hello{}, "another boot")
	if watch(1, time.Minute, 1); !p.rateWrong("b") {
		t.Error("reports of the old stream: got them counted, want ignored")
	}
	if !watch(2, 5*time.Second, 1) {
		t.Error("after a restart: got rate accepted, want wrong")
	}
	if watch(2, time.Minute, 1) || p.clockOutlier() {
		t.Error("correct clock for a minute: got wrong, want accepted")
	}
}

// fakeStore is a Store with fixed answers.
type fakeStore struct {
	atStart, end uint64
	marks        map[raft.ServerID]*command.Mark
}

func (s fakeStore) End() uint64                         { return s.end }
func (s fakeStore) EndAtStart() uint64                  { return s.atStart }
func (s fakeStore) Mark(id raft.ServerID) *command.Mark { return s.marks[id] }

// A vote requires that the logs of the voter and the candidate were complete when their processes
// started. A log is complete if it contains every entry that its node had acknowledged.
func TestMayVote_RolledBackDisk_IsRefused(t *testing.T) {
	mark := func(server, boot string, index uint64) *command.Mark {
		return &command.Mark{Server: server, Boot: []byte(boot), Index: index}
	}
	for _, tt := range []struct {
		name             string
		voter, candidate *command.Mark // marks in the note
		known            *command.Mark // the voter's mark of the candidate
		votes, ends      bool
	}{
		{"no marks", nil, mark("c", "c2", 0), nil, true, false},
		{"both kept all", mark("v", "v1", 50), mark("c", "c2", 60), mark("c", "c1", 60), true, false},
		{"the voter was rolled back", mark("v", "v1", 51), mark("c", "c2", 60), nil, false, true},
		{"the voter made the mark", mark("v", "v2", 80), mark("c", "c2", 60), nil, true, false},
		{"the voter lost entries since", mark("v", "v2", 81), mark("c", "c2", 60), nil, false, true},
		{"the candidate was rolled back", nil, mark("c", "c2", 59), mark("c", "c1", 60), false, false},
		{"the candidate made the mark", nil, mark("c", "c1", 59), mark("c", "c1", 60), true, false},
		{"a mark of another instance", mark("other", "v1", 99), mark("c", "c2", 60), nil, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ended error
			l := &local{self: "v", peers: newPeers("v", 0)}
			l.Log, l.Fatal = slog.New(slog.DiscardHandler), func(err error) { ended = err }
			l.Identity.Boot = []byte("v2")
			l.Store = fakeStore{atStart: 50, end: 80, marks: map[raft.ServerID]*command.Mark{"c": tt.known}}
			note, err := proto.Marshal(&nodepb.VoteNote{Voter: tt.voter, Candidate: tt.candidate})
			if err != nil {
				t.Fatal(err)
			}
			m := &marks{local: l}
			if got := m.mayVote(note); got != tt.votes || (ended != nil) != tt.ends {
				t.Errorf("got vote %t, end %v, want %t, %t", got, ended, tt.votes, tt.ends)
			}
		})
	}
}
