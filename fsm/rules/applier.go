package rules

import (
	"log/slog"

	"revoked"
	"revoked/fsm/memory"
	"revoked/fsm/store"
)

// A Result is the outcome of one operation.
type Result struct {
	Err error // wraps a sentinel of the root package
	// Index is a log index at which the outcome holds. For a no-op it is an applied index,
	// otherwise the index of the entry.
	Index    uint64
	Register revoked.RegisterResult
	// Ended reports that a registration made an older token inactive, by rotation or by a
	// tombstone. Like a revocation, this is final only when every member has applied it.
	Ended bool
	// Unknown reports a revocation of a token that the state does not contain.
	Unknown bool
}

// Options configure the rules.
type Options struct {
	Log *slog.Logger // must not be nil
	// DenialQuota is the maximum number of denials of one client, see the constant DenialQuota. It
	// must be the same on every member, because results depend on it. Only tests lower it.
	DenialQuota uint64
	// AssertionQuota is the maximum number of used assertions of one client, see the constant
	// AssertionQuota.
	AssertionQuota int
}

// An Applier applies entries of the log to the state. It collects their changes until Commit
// writes them; Publish then makes them visible in memory. One Applier applies the entries of one
// commit. It is not safe for concurrent use.
type Applier struct {
	access
	Options
	rules   uint32 // command.Rules of the current batch; 0: those of Version 1
	audited bool   // the current batch leaves audit entries
	chunk   chunk
}

// New returns an Applier without changes. It reads mem and s, but writes to neither before Commit
// and Publish. While the Applier is in use, nothing else may change mem. So the caller must be the
// only writer of mem, or hold the lock of mem for reading.
func New(s *store.Store, mem *memory.State, opts Options) *Applier {
	return &Applier{Options: opts, access: access{
		unit: unit{Applied: mem.Applied, store: s, seeker: s.NewSeeker()},
		mem:  mem, staged: staged{queueFloor: mem.QueueFloor},
	}}
}

// Size returns the approximate size in bytes of the changes that wait for Commit.
func (a *Applier) Size() int { return a.size }

// Err returns the first error of the store or of a row. After an error the changes are undefined:
// the process must end.
func (a *Applier) Err() error { return a.err }

// Commit writes all changes and the applied index in one batch. After Commit, readers of the store
// see the changes, and the Applier must not apply further entries. A flush makes them durable.
func (a *Applier) Commit() error { return a.commit() }

// Close releases the iterator for reads. Always call it, even after an error. It may be called more
// than once.
func (a *Applier) Close() { a.close() }

// Changed returns the digests of the tokens and the ids of the grants that the changes may affect.
// The digests include keys of denials.
func (a *Applier) Changed() (tokens []revoked.Digest, grants []string) {
	return a.tokensChanged, a.grantsChanged
}

// ClientsChanged reports whether a client was created, changed or deleted.
func (a *Applier) ClientsChanged() bool { return a.clients != nil }

// LastEvent returns the index of the newest feed event or client change among the changes, or 0
// without one.
func (a *Applier) LastEvent() uint64 { return a.lastEvent }

// LastAudit returns the index of the newest audit entry among the changes, or 0 without one.
func (a *Applier) LastAudit() uint64 { return a.lastAudit }

// A HashPoint holds the two hashes of the state at an index.
type HashPoint struct {
	Index      uint64
	Log, State [32]byte
}

// Hashes returns the hashes after each entry, in the order of the log.
func (a *Applier) Hashes() []HashPoint { return a.points }

// advance raises the stamp, which never decreases.
func (a *Applier) advance(stamp revoked.Time) { a.Stamp = max(a.Stamp, stamp) }

// recordHashes keeps the hashes at this index. Every entry records them, even one that
// changes nothing, because members may compare them at any index.
func (a *Applier) recordHashes() {
	a.points = append(a.points, HashPoint{Index: a.Index, Log: a.LogHash, State: a.State.Bytes()})
}

// begin starts the entry at index. Its events, cut-offs and audit entries are numbered from 0.
func (a *Applier) begin(index, term uint64) {
	a.Index, a.Term, a.seq, a.auditSeq = index, term, 0, 0
}
