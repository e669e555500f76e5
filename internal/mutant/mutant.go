// Package mutant names the known ways to break the product on purpose. A test that never failed is no
// evidence: each mutant leaves out one rule, and docs/proofs.md says which test notices.
//
// Only a build with the tag "mutant" can be broken: there the environment variable REVOKED_MUTANT names
// the one rule to leave out. In every other build On is constantly false, so the compiler removes what
// it guards, names included; TestNoMutantIsInTheProgram looks.
package mutant

// A Name names one mutant.
type Name string

// The mutants.
const (
	NoAckWait          Name = "no-ack-wait"          // a revocation is acknowledged without waiting for any lease
	RepeatAckedAtOnce  Name = "repeat-acked-at-once" // the repeat of a revocation that still waits is acknowledged
	JoinSentCall       Name = "join-sent-call"       // a question joins a proof that was asked for before it
	ClearNewerBooking  Name = "clear-newer-booking"  // who follows a term is cleared of the term's own booking too
	BookAtGrant        Name = "book-at-grant"        // booked when the grant is sent, not when the ask is admitted
	GrantOnState       Name = "grant-on-state"       // State() == Leader is taken for a proof of leadership
	VerifyLeader       Name = "verify-leader"        // VerifyLeader is taken for a proof of leadership
	NoNewLeaderWait    Name = "no-new-leader-wait"   // a new leader assumes that nobody holds an older lease
	CheckBeforeRead    Name = "check-before-read"    // the lease is looked at before the record is read
	TimerFlag          Name = "timer-flag"           // a flag that a timer sets stands for the clock
	NoEpochCheck       Name = "no-epoch-check"       // a cached record is believed whatever changed since
	NoTombstones       Name = "no-tombstones"        // the revocation of an unknown token is forgotten
	ServeDuringRestore Name = "serve-during-restore" // a snapshot's index is published while the old state still answers
	HeartbeatHandler   Name = "heartbeat-handler"    // heartbeats pass by Raft's main loop
	AnyInstance        Name = "any-instance"         // a node that lost its disk speaks for the instance before it
)

// All lists the mutants.
func All() []Name {
	return []Name{
		NoAckWait, RepeatAckedAtOnce, JoinSentCall, ClearNewerBooking, BookAtGrant, GrantOnState, VerifyLeader, NoNewLeaderWait,
		CheckBeforeRead, TimerFlag, NoEpochCheck, NoTombstones, ServeDuringRestore, HeartbeatHandler, AnyInstance,
	}
}
