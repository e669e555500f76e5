package fsm

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rules"
)

// An Outcome is the response of Apply to a command.
type Outcome struct {
	Index   uint64
	Results []Result // one for each operation of a Batch
	// Took is the time that this node needed for the whole call of ApplyBatch.
	Took time.Duration
}

// maxCommitBytes is the approximate size of the largest commit. A batch larger than half a memtable
// would make Pebble flush immediately.
const maxCommitBytes = 4 << 20

// Apply implements raft.FSM.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The response to a command is an *Outcome. The Outcome has
// no results if the state already includes the command. The response to any other entry is nil.
// After a failure every response is an error.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	s, err := f.acquire()
	if err != nil {
		for i := range out {
			out[i] = err
		}
		return out
	}
	defer s.Release()
	started := time.Now()
	a := f.begin(s)
	pending := false
	for i, l := range logs {
		if f.failed.bad.Load() {
			break
		}
		if l.Index <= a.Index {
			out[i] = f.skip(a, l)
			continue
		}
		var c command.Command
		if l.Type == raft.LogCommand {
			if c, err = command.Decode(l.Data); err != nil {
				f.failed.report(fmt.Errorf("log entry %d: %w", l.Index, err))
				break
			}
		}
		if pending && (a.Size() > maxCommitBytes || rules.Scans(c)) {
			f.commit(a, s)
			a = f.begin(s)
		}
		out[i] = entry(a, l, c)
		if err := a.Err(); err != nil {
			f.failed.report(fmt.Errorf("log entry %d: %w", l.Index, err))
		}
		if m, ok := c.(*command.Epoch); ok {
			f.leaders.opened(l.Term, m)
		}
		pending = true
	}
	if pending && !f.failed.bad.Load() {
		f.commit(a, s)
	}
	a.Close()
	took := time.Since(started)
	for i := range out {
		if o, ok := out[i].(*Outcome); ok {
			o.Took = took
		}
	}
	if f.failed.bad.Load() {
		for i := range out {
			out[i] = fmt.Errorf("%w: the state machine has failed", revoked.ErrOutcomeUnknown)
		}
	}
	return out
}

// skip returns the response to an entry at or below the applied index. If its term is later than
// that of the state, the entry is not from the log that produced the state, which is fatal.
func (f *FSM) skip(a *rules.Applier, l *raft.Log) any {
	if l.Term > a.Term {
		f.failed.report(fmt.Errorf("log entry %d: got term %d, but the state at index %d has term %d",
			l.Index, l.Term, a.Index, a.Term))
	}
	if l.Type != raft.LogCommand {
		return nil
	}
	return &Outcome{Index: l.Index}
}

// entry applies one entry and returns its response. c is nil unless the entry is a command.
func entry(a *rules.Applier, l *raft.Log, c command.Command) any {
	switch {
	case c != nil:
		return &Outcome{Index: l.Index, Results: a.Command(l.Index, l.Term, l.Data, c)}
	case l.Type == raft.LogConfiguration:
		a.Configuration(l.Index, l.Term)
	default:
		a.Noop(l.Index, l.Term)
	}
	return nil
}

// Version returns the highest version among the commands that the state includes. A program of a
// lower version (command.Version) cannot be a member: it would have stopped at that command.
func (f *FSM) Version() uint32 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return uint32(max(f.mem.Version.Commands, 1))
}
