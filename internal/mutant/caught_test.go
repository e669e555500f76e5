package mutant_test

import "revoked/internal/mutant"

// A catch is a test that notices a mutant.
type catch struct {
	by     mutant.Name
	how    string // kind of test
	pkg    string
	test   string // as -run takes it
	says   string // what the failing test prints: it notices this mutant, not anything
	env    string // bounds of a search: what is enough for this
	takes  string // about, on two cores
	byHand bool   // takes longer than .ci/run can wait for
}

const (
	unit     = "unit"
	cluster  = "a cluster in one process"
	model    = "model, every schedule within bounds"
	schedule = "model, random schedules"
	sim      = "simulation of whole nodes"
)

// Searches of the model that find what they look for well within these bounds.
const (
	states    = "LEASE_STATES=30000"
	schedules = "LEASE_SCHEDULES=500"
	minutes   = "SIM_MINUTES=24"
	hour      = "SIM_MINUTES=120"
)

const (
	holds    = "TestTheLeaseModelHolds"
	random   = "TestRandomSchedulesOfTheLeasesKeepThePromise"
	behind   = "may answer from its state at"
	oneTerm  = holds + "/one_term,_two_revocations"
	twoTerms = holds + "/an_acknowledgement_by_an_earlier_term"
	sims     = "TestSim"
	breaks   = "broken: "
	booked   = "TestLeaseTable/rule_2:_what_is_admitted_is_booked"
)

// caught is the table of docs/proofs.md.
var caught = []catch{
	{by: mutant.NoAckWait, how: unit, pkg: "node", test: booked, says: "settle 11", takes: "1 s"},
	{by: mutant.NoAckWait, how: model, pkg: "node", test: oneTerm, says: behind, env: states, takes: "1 s"},
	{by: mutant.NoAckWait, how: schedule, pkg: "node", test: random, says: behind, env: schedules, takes: "1 s"},
	{by: mutant.NoAckWait, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: mutant.RepeatAckedAtOnce, how: unit, pkg: "node", test: "TestTheRepeatOfARevocationIsAnsweredOnlyByAnEntry",
		says: "a repeated revocation was acknowledged although", takes: "1 s"},
	{by: mutant.RepeatAckedAtOnce, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: mutant.JoinSentCall, how: unit, pkg: "node", test: "TestAQuestionJoinsNoProofThatWasSentBefore",
		says: "waits for the answer to a proof sent before it", takes: "1 s"},
	{by: mutant.JoinSentCall, how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "1 min", byHand: true},
	{by: mutant.ClearNewerBooking, how: unit, pkg: "node", test: "TestLeaseTable/rule_7", says: "settle 11", takes: "1 s"},
	{by: mutant.ClearNewerBooking, how: model, pkg: "node", test: oneTerm, says: behind, env: states, takes: "1 s"},
	{by: mutant.ClearNewerBooking, how: schedule, pkg: "node", test: random, says: behind, env: schedules, takes: "1 s"},
	{by: mutant.ClearNewerBooking, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: mutant.BookAtGrant, how: unit, pkg: "node", test: booked, says: "settle 11", takes: "1 s"},
	{by: mutant.BookAtGrant, how: model, pkg: "node", test: oneTerm, says: behind, env: states, takes: "1 s"},
	{by: mutant.BookAtGrant, how: schedule, pkg: "node", test: random, says: "the checker of the events complains", env: schedules, takes: "1 s"},
	{by: mutant.BookAtGrant, how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "1 min", byHand: true},
	{by: mutant.GrantOnState, how: unit, pkg: "node", test: "TestALeaseIsGrantedOnAnEntryAlone",
		says: "although no entry has been committed since the ask", takes: "2 s"},
	{by: mutant.GrantOnState, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: mutant.VerifyLeader, how: unit, pkg: "node", test: "TestALeaseIsGrantedOnAnEntryAlone",
		says: "although no entry has been committed since the ask", takes: "2 s"},
	{by: mutant.VerifyLeader, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: mutant.NoNewLeaderWait, how: unit, pkg: "node", test: "TestLeaseTable/rule_7", says: "settle 11", takes: "1 s"},
	{by: mutant.NoNewLeaderWait, how: model, pkg: "node", test: twoTerms, says: behind, env: states, takes: "2 s"},
	{by: mutant.NoNewLeaderWait, how: schedule, pkg: "node", test: random, says: behind, env: schedules, takes: "1 s"},
	{by: mutant.NoNewLeaderWait, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "5 s"},
	{by: mutant.CheckBeforeRead, how: unit, pkg: "node", test: "TestARecordReadUnderALeaseThatHasEndedIsNoAnswer",
		says: "from its own copy, and its lease ended while it was read", takes: "1 s"},
	{by: mutant.CheckBeforeRead, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: mutant.TimerFlag, how: unit, pkg: "node", test: "TestAProcessThatWasStoppedLooksAtTheClockFirst",
		says: "its lease ended while the process stood still", takes: "1 s"},
	{by: mutant.TimerFlag, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: mutant.NoEpochCheck, how: unit, pkg: "node", test: "TestALateFillIsNeverBelieved/epochs_ignored_false",
		says: "got dead false, want true", takes: "1 s"},
	{by: mutant.NoEpochCheck, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: mutant.NoTombstones, how: unit, pkg: "fsm", test: "TestTombstones", says: "verdict of a-1: got 1, want 2", takes: "1 s"},
	{by: mutant.NoTombstones, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: mutant.ServeDuringRestore, how: unit, pkg: "fsm", test: "TestTheIndexOfARestoredStateIsPublishedLast",
		says: "is published before readers are told of the state", takes: "1 s"},
	{by: mutant.ServeDuringRestore, how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "3 s"},
	{by: mutant.HeartbeatHandler, how: unit, pkg: "transport", test: "TestHeartbeatsGoThroughTheMainLoop",
		says: "the fast path took a heartbeat", takes: "1 s"},
	{by: mutant.HeartbeatHandler, how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "5 s"},
	{by: mutant.AnyInstance, how: cluster, pkg: "node", test: "TestANewInstanceDoesNotVoteForTheOneItReplaces",
		says: "a leader was elected by a member that has forgotten the revocation", takes: "2 s"},
}
