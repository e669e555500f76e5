package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
	"revoked/internal/durable"
	"revoked/node/datadir"
	"revoked/node/raftstore"
)

// Options configure Recover.
type Options struct {
	DryRun bool // only examine the disk
	// AcceptLoss keeps the tokens of the state active, including those whose revocation is lost. It
	// requires a Reason. Without AcceptLoss, every token issued before now is revoked.
	AcceptLoss bool
	Reason     string
	Log        *slog.Logger
}

// A Holding describes the content of a member's disk. Times are Unix seconds.
type Holding struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Index     uint64 `json:"index"` // index of the last entry, committed or not
	Term      uint64 `json:"term"`
	// State is the index of the last entry that the stored state includes. Later entries come from the
	// log.
	State     uint64   `json:"state_index"`
	LastEntry int64    `json:"last_entry"` // time at which a leader made the last entry, according to that leader's clock
	Tokens    uint64   `json:"tokens"`     // number of tokens as of State; later log entries are not counted
	Grants    uint64   `json:"grants"`
	Members   []Member `json:"members"`
	// Missing is a lower bound on the number of entries that this disk lacks.
	Missing uint64 `json:"missing"`

	newest revoked.Time
}

// A Member is a member of the earlier cluster, as recorded on the disk.
type Member struct {
	NodeID string `json:"node_id"`
	Voter  bool   `json:"voter"`
	Self   bool   `json:"self"`
	// Recorded is the highest applied index of this member that a leader recorded in the log, or 0 if
	// unknown.
	Recorded uint64 `json:"recorded_index"`
}

// A Recovery is the result of Recover.
type Recovery struct {
	Before *Holding `json:"before,omitempty"` // nil if Resumed
	// Resumed is set if an earlier call has recovered the directory and was interrupted.
	Resumed    bool   `json:"resumed,omitempty"`
	ClusterID  string `json:"new_cluster_id,omitempty"`
	Index      uint64 `json:"new_index,omitempty"`
	At         int64  `json:"recovered_at,omitempty"`
	EndsBefore int64  `json:"ends_before,omitempty"` // 0 with AcceptLoss
	AcceptLoss bool   `json:"accept_loss"`
	Reason     string `json:"reason,omitempty"`
}

// defaultReason is the reason recorded for the revocation of all earlier tokens.
const defaultReason = "recovered after a lost quorum"

// Recover makes the stopped voter in dir the first node of a new cluster. It applies the whole log,
// including entries that may not be committed: they may have been acknowledged. Start the node with
// the same node id, and then join other nodes with empty directories.
//
// It returns ErrConflict if a process uses dir. It returns ErrUnprocessable if dir is not the disk
// of a voter, or the voter needs no recovery. It also returns ErrUnprocessable if this machine's
// clock is behind the last entry. After any error, or a crash, dir contains the earlier member or
// the complete new one: call Recover again to find out which.
func Recover(ctx context.Context, dir string, o Options) (r Recovery, err error) {
	if o.AcceptLoss && o.Reason == "" {
		return r, fmt.Errorf("%w: recovery: AcceptLoss requires a Reason", revoked.ErrInvalid)
	}
	if err := command.CheckReason(o.Reason); err != nil {
		return r, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	id, unlock, err := datadir.OpenMember(dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	r.AcceptLoss, r.Reason = o.AcceptLoss, o.Reason
	if id == nil {
		r.Resumed = true
		if !o.DryRun {
			_, err = datadir.Complete(dir)
		}
		return r, err
	}
	d, err := openDisk(dir, o.Log)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	h, err := d.examine(id)
	if err != nil {
		return r, err
	}
	r.Before = &h
	if limit := revoked.TimeOf(time.Now()).Add(d.state.Settings().MaxClockSkew); h.newest > limit && !o.AcceptLoss {
		return r, fmt.Errorf("%w: the clock of this machine is behind the last entry, which has the time %s",
			revoked.ErrUnprocessable, h.newest.Std().UTC().Format(time.RFC3339))
	}
	if o.DryRun {
		return r, nil
	}
	if err := d.stage(ctx, dir, &r); err != nil {
		_ = os.RemoveAll(d.staged) // err is the cause; the next start also removes the directory
		return r, err
	}
	if err := d.close(); err != nil {
		return r, err
	}
	return r, datadir.Replace(dir)
}

// A disk is the state and the log of a stopped member.
type disk struct {
	state  *fsm.FSM
	store  *raftstore.Store
	staged string
	failed error
	closed bool
}

func openDisk(dir string, log *slog.Logger) (*disk, error) {
	d := &disk{}
	fail := func(err error) { d.failed = errors.Join(d.failed, err) }
	var err error
	d.state, err = fsm.Open(fsm.Config{Dir: filepath.Join(dir, datadir.StateDir), Log: log, Fatal: fail})
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if d.store, err = raftstore.Open(raftstore.Config{Dir: dir, FSM: d.state, Log: log, Fatal: fail}); err != nil {
		return nil, errors.Join(err, d.state.Close())
	}
	return d, nil
}

// close closes the disk. A second call does nothing.
func (d *disk) close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	return errors.Join(d.store.Close(), d.state.Close(), d.failed)
}

// examine describes the disk without changing it. It returns an error for a disk that Recover must
// not change.
func (d *disk) examine(id *datadir.Identity) (h Holding, err error) {
	v, err := d.store.Survey()
	if err != nil {
		return h, err
	}
	index, term := d.state.Position()
	h = Holding{NodeID: id.NodeID, ClusterID: id.ClusterID, Index: max(v.Index, index), Term: max(v.Term, term),
		State: index, newest: d.state.Stamp()}
	h.Tokens, h.Grants = d.state.Counts()
	voters, self := 0, raft.Nonvoter
	member := false
	for _, s := range v.Configuration.Servers {
		m := Member{NodeID: datadir.NodeOf(s.ID), Voter: s.Suffrage == raft.Voter, Self: s.ID == id.Server}
		if mark := d.store.Mark(s.ID); mark != nil {
			m.Recorded = mark.Index
		}
		if m.Voter {
			voters++
		}
		if m.Self {
			member, self = true, s.Suffrage
		} else if m.Recorded > h.Index {
			h.Missing = max(h.Missing, m.Recorded-h.Index)
		}
		h.Members = append(h.Members, m)
	}
	switch {
	case !member:
		return h, fmt.Errorf("%w: %s is not a member of its cluster (%s): it was removed, or another directory replaced it",
			revoked.ErrUnprocessable, id.NodeID, id.ClusterID)
	case self != raft.Voter:
		return h, fmt.Errorf("%w: %s has no vote: recover the disk of a voter, or restore a backup",
			revoked.ErrUnprocessable, id.NodeID)
	case voters == 1:
		return h, fmt.Errorf("%w: nothing to recover: %s is the only voter of its cluster; start it",
			revoked.ErrUnprocessable, id.NodeID)
	case v.Snapshot > index:
		return h, fmt.Errorf("%w: %s received a state up to index %d and has not restored it: "+
			"start the node once, stop it, and try again", revoked.ErrUnprocessable, id.NodeID, v.Snapshot)
	}
	err = d.store.Replay(index, term, func(entries []*raft.Log) error {
		for _, e := range entries {
			if e.Type != raft.LogCommand {
				continue
			}
			c, err := command.Decode(e.Data)
			if err != nil {
				return fmt.Errorf("log entry %d: %w", e.Index, err)
			}
			h.newest = max(h.newest, revoked.Time(c.GetStamp()))
		}
		return nil
	})
	h.LastEntry = h.newest.Unix()
	return h, err
}

// stage builds the new member in a separate directory inside dir.
func (d *disk) stage(ctx context.Context, dir string, r *Recovery) (err error) {
	if d.staged, err = datadir.Stage(dir); err != nil {
		return err
	}
	reason := r.Reason
	if reason == "" {
		reason = defaultReason
	}
	backup, done := d.stream(ctx)
	var h snapshot.Header
	h, r.ClusterID, err = found(d.staged, backup, r.Before.NodeID,
		fsm.SeedOptions{AcceptLoss: r.AcceptLoss, Reason: reason, Recovered: true, Replay: d.store.Replay})
	_ = backup.Close()
	if err = errors.Join(err, <-done, context.Cause(ctx)); err != nil {
		return err
	}
	r.Index, r.At = h.Index, time.Now().Unix()
	if !r.AcceptLoss {
		r.EndsBefore = h.Stamp.Unix()
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(d.staged, datadir.RecordFile), append(b, '\n'), 0o600)
}

// stream returns the state as a backup. done receives the outcome once the reader has been closed
// or read to its end. The outcome is nil if the reader was closed early.
func (d *disk) stream(ctx context.Context) (_ io.ReadCloser, done <-chan error) {
	r, w := io.Pipe()
	c := make(chan error, 1)
	go func() {
		_, err := d.state.WriteSnapshot(ctx, w)
		w.CloseWithError(err)
		if errors.Is(err, io.ErrClosedPipe) {
			err = nil
		}
		c <- err
	}()
	return r, c
}
