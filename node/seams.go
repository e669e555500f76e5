package node

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"revoked/fsm"
)

// seams are where the simulation (sim_test.go) puts its own network, disk and eyes in the place of the
// machine's. Zero values are the machine's.
type seams struct {
	dial          func(ctx context.Context, network, address string) (net.Conn, error)
	fs            fsm.FS
	stores        func(dir string, fatal func(error), log *slog.Logger) (*stores, error)
	snapshots     func(dir string, log hclog.Logger) (raft.SnapshotStore, error)
	transport     func(raft.Transport) raft.Transport
	commitTimeout time.Duration // of Raft
	trace         func(traceEvent)
	versionOf     func(*fsm.Op) uint32
}

func (s seams) withDefaults() seams {
	if s.stores == nil {
		s.stores = openStores
	}
	if s.snapshots == nil {
		s.snapshots = func(dir string, log hclog.Logger) (raft.SnapshotStore, error) {
			return raft.NewFileSnapshotStoreWithLogger(dir, 2, log)
		}
	}
	if s.transport == nil {
		s.transport = func(t raft.Transport) raft.Transport { return t }
	}
	if s.commitTimeout == 0 {
		s.commitTimeout = 50 * time.Millisecond
	}
	if s.versionOf == nil {
		s.versionOf = fsm.VersionOf
	}
	if s.trace == nil {
		s.trace = func(traceEvent) {}
	}
	return s
}

// A traceEvent is something that the lease rules are about. Those from traceOpened to
// traceGivenBack come under the lock of the leases: whoever hears them must not block.
type traceEvent struct {
	kind traceKind
	node raft.ServerID // whose event it is
	ask  leaseAsk      // what was asked, or reported
	g    leaseGrant
	took bool // traceTaken: the grant was not refused
	term uint64
	// index is that of the term's first command (traceOpened), the one acknowledged (traceAcknowledged).
	index   uint64
	longest time.Duration // traceOpened: of a lease of an earlier term
}

type traceKind uint8

const (
	traceElected traceKind = iota
	traceOpened
	traceClosed
	traceReport
	traceBooked
	traceGranted
	traceAsked
	traceTaken
	traceAdopted
	traceDropped
	traceGivenBack
	traceWaits
	traceAcknowledged
	traceRead   // the copy was read; the lease has not been looked at
	traceLeased // and covers the answer
)

// A turn is a lock whose holder may wait for others; its waiters are parked on a channel.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }
