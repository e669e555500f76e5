package fsm_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"revoked/fsm"
	"revoked/fsm/command"
)

// lead applies the first command of a term in an entry of that or another term.
func (m *machine) lead(entryTerm uint64, c *command.Epoch) {
	m.t.Helper()
	l := m.entry(c)
	l.Term = entryTerm
	if out, ok := m.f.Apply(l).(*fsm.Outcome); !ok || out.Index != l.Index {
		m.t.Fatalf("apply %v: got %v, fatal %v", c, out, m.fatal)
	}
}

func TestLeaderBefore_EarlierTerms_ReturnsNewest(t *testing.T) {
	a := &command.Epoch{Term: 2, Node: "a", Server: "a/1", OwnLease: 1_000_000}
	b := &command.Epoch{Term: 5, Node: "b", Server: "b/1", OwnLease: 2_000_000}
	c := &command.Epoch{Term: 7, Node: "c", Server: "c/1", OwnLease: 3_000_000}
	unbounded := &command.Epoch{Term: 5, Node: "b"}
	late := &command.Epoch{Term: 2, Node: "a", Server: "a/1", OwnLease: 9_000_000}
	for name, tt := range map[string]struct {
		lead func(m *machine)
		want fsm.Leadership
	}{
		"no earlier term": {func(m *machine) { m.lead(7, c) }, fsm.Leadership{}},
		"the newest of two": {func(m *machine) { m.lead(2, a); m.lead(5, b); m.lead(7, c) },
			fsm.Leadership{Term: 5, Server: "b/1", OwnLease: 2 * time.Second}},
		"without a bound": {func(m *machine) { m.lead(2, a); m.lead(5, unbounded); m.lead(7, c) },
			fsm.Leadership{Term: 5}},
		"one of its commands without a bound": {func(m *machine) { m.lead(5, b); m.lead(5, unbounded); m.lead(7, c) },
			fsm.Leadership{Term: 5, Server: "b/1"}},
		"a command of an earlier term": {func(m *machine) { m.lead(2, a); m.lead(5, b); m.lead(5, late); m.lead(7, c) },
			fsm.Leadership{Term: 5, Server: "b/1", OwnLease: 2 * time.Second}},
		"a later term has begun": {func(m *machine) {
			m.lead(5, b)
			m.lead(7, c)
			m.lead(8, &command.Epoch{Term: 8, Node: "d"})
		}, fsm.Leadership{}},
	} {
		m := newMachine(t)
		tt.lead(m)
		if got := m.f.LeaderBefore(7); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// The process has not applied the entries between two states, and one of them may have opened a
// term.
func TestLeaderBefore_StateReplaced_IsUnknown(t *testing.T) {
	m := newMachine(t)
	m.lead(2, &command.Epoch{Term: 2, Node: "a", Server: "a/1", OwnLease: 1_000_000})
	var b bytes.Buffer
	if _, err := m.f.WriteSnapshot(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := m.f.Restore(io.NopCloser(&b)); err != nil {
		t.Fatal(err)
	}
	m.lead(7, &command.Epoch{Term: 7, Node: "c", Server: "c/1", OwnLease: 3_000_000})
	if got := m.f.LeaderBefore(7); got != (fsm.Leadership{}) {
		t.Errorf("got %+v, want nothing", got)
	}
}
