package mutant_test

// A catch is a test that fails under a mutant.
type catch struct {
	by     string // name of the mutant
	how    string // kind of test
	pkg    string // path of the package below the module's root
	test   string // name of the test, as for -run
	want   string // part of the failure text: the test fails for this reason
	env    string // environment variable that sets the bounds of a search
	takes  string // approximate time on two cores
	byHand bool   // takes longer than .ci/run can wait
}

// repeats returns how often a test may be run again if it passes under the mutant. A random search
// may miss the mutant once.
func (c *catch) repeats() int {
	if c.how == sim || c.how == schedule {
		return 2
	}
	return 0
}

const (
	unit     = "unit"
	cluster  = "a cluster in one process"
	model    = "model, every schedule within bounds"
	schedule = "model, random schedules"
	changes  = "model, every order of changes"
	sim      = "simulation of whole nodes"
)

// Bounds of the searches, with a margin.
const (
	states    = "LEASE_STATES=30000"
	schedules = "LEASE_SCHEDULES=500"
	minutes   = "SIM_MINUTES=24"
	hour      = "SIM_MINUTES=120"
)

const (
	holds    = "TestModel_AllStates_HoldPromise"
	random   = "TestWalk_RandomSteps_HoldPromise"
	behind   = "may answer from its state at"
	oneTerm  = holds + "/one_term,_two_revocations"
	twoTerms = holds + "/an_acknowledgement_by_an_earlier_term"
	waits    = "TestBegin_OlderLeases_WaitFromLastEarlierEntry"
	sims     = "TestSim"
	breaks   = "broken: "
	heldOnly = "TestNotices_Followers_GetOneAfterTheEntry/holds_it,_not_committed"
	rule7    = "TestTable_EachRule_Holds/rule_7"
	reserved = "TestTable_EachRule_Holds/rule_2:_the_lease_of_an_admitted_request"
)

// caught is the table of docs/proofs.md.
var caught = []catch{
	{by: "no-ack-wait", how: unit, pkg: "node/lease", test: reserved, want: "acknowledge 11", takes: "1 s"},
	{by: "no-ack-wait", how: model, pkg: "node/lease", test: oneTerm, want: behind, env: states, takes: "1 s"},
	{by: "no-ack-wait", how: schedule, pkg: "node/lease", test: random, want: behind, env: schedules, takes: "1 s"},
	{by: "no-ack-wait", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "1 s"},
	{by: "repeat-acked-at-once", how: unit, pkg: "node/propose", test: "TestPropose_RepeatedOperation_WaitsForEntry",
		want: "a retry was acknowledged too early", takes: "1 s"},
	{by: "repeat-acked-at-once", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "join-sent-call", how: unit, pkg: "node/propose", test: "TestReadBarrier_EarlierBarrierSent_IsNotReused",
		want: "got an answer from the earlier barrier", takes: "1 s"},
	{by: "join-sent-call", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "1 min", byHand: true},
	{by: "join-begun-barrier", how: unit, pkg: "node/propose", test: "TestPacedBarrier_ManyRequests_ShareLaterBarriers",
		want: "got an answer with", takes: "2 s"},
	{by: "clear-newer-reservation", how: unit, pkg: "node/lease", test: rule7, want: "acknowledge 11",
		takes: "1 s"},
	{by: "clear-newer-reservation", how: model, pkg: "node/lease", test: oneTerm, want: behind, env: states, takes: "1 s"},
	{by: "clear-newer-reservation", how: schedule, pkg: "node/lease", test: random, want: behind, env: schedules,
		takes: "1 s"},
	{by: "clear-newer-reservation", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "1 s"},
	{by: "reserve-at-reply", how: unit, pkg: "node/lease", test: reserved, want: "acknowledge 11", takes: "1 s"},
	{by: "reserve-at-reply", how: model, pkg: "node/lease", test: oneTerm, want: behind, env: states, takes: "1 s"},
	{by: "reserve-at-reply", how: schedule, pkg: "node/lease", test: random, want: "the checker reports", env: schedules,
		takes: "1 s"},
	{by: "reserve-at-reply", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "1 min", byHand: true},
	{by: "reply-on-state", how: unit, pkg: "node", test: "TestGrant_NoEntryCommitted_Refused",
		want: "no entry committed since the request", takes: "2 s"},
	{by: "reply-on-state", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "1 s"},
	{by: "verify-leader", how: unit, pkg: "node", test: "TestGrant_NoEntryCommitted_Refused",
		want: "no entry committed since the request", takes: "2 s"},
	{by: "verify-leader", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "1 s"},
	{by: "no-new-leader-wait", how: unit, pkg: "node/lease", test: rule7, want: "acknowledge 11",
		takes: "1 s"},
	{by: "no-new-leader-wait", how: model, pkg: "node/lease", test: twoTerms, want: behind, env: states, takes: "2 s"},
	{by: "no-new-leader-wait", how: schedule, pkg: "node/lease", test: random, want: behind, env: schedules, takes: "1 s"},
	{by: "no-new-leader-wait", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "5 s"},
	{by: "leader-adopts-late", how: sim, pkg: "node", test: sims, want: "before it adopts that term", env: minutes,
		takes: "1 s"},
	{by: "bound-of-older-leader", how: unit, pkg: "fsm", test: "TestLeaderBefore_EarlierTerms_ReturnsNewest",
		want: "the newest of two: got", takes: "1 s"},
	{by: "wait-from-first-entry", how: unit, pkg: "node/lease", test: "TestIntake_Before_IsNeverTooEarly",
		want: "want at least", takes: "1 s"},
	{by: "wait-from-first-entry", how: model, pkg: "node/lease", test: twoTerms, want: behind, env: states, takes: "1 s"},
	{by: "wait-from-first-entry", how: schedule, pkg: "node/lease", test: random, want: behind, env: schedules,
		takes: "1 s"},
	{by: "wait-from-first-entry", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "5 s"},
	{by: "wait-forgets-own-entries", how: unit, pkg: "node", test: waits + "/an_entry_that_it_proposed",
		want: "reserved: got", takes: "1 s"},
	{by: "wait-forgets-own-entries", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "15 s"},
	{by: "wait-forgets-restart", how: unit, pkg: "node", test: waits + "/it_has_just_started",
		want: "reserved: got", takes: "1 s"},
	{by: "wait-forgets-restart", how: sim, pkg: "node", test: sims, want: breaks, env: "SIM_MINUTES=480", takes: "3 min",
		byHand: true},
	{by: "wait-forgets-snapshot", how: unit, pkg: "node/raftstore", test: "TestSnapshotTracker_CountsRestoredSnapshots",
		want: "two snapshots were received", takes: "1 s"},
	{by: "check-before-read", how: unit, pkg: "node", test: "TestStatus_LeaseEndsDuringRead_NoAnswer",
		want: "lease ended during the read", takes: "1 s"},
	{by: "check-before-read", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "timer-flag", how: unit, pkg: "node", test: "TestStatus_ProcessStopped_ReadsClock",
		want: "lease ended while the process was stopped: got", takes: "1 s"},
	{by: "timer-flag", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "no-epoch-check", how: unit, pkg: "node/cache", test: "TestCache_LateFill_IsStale/epochs_ignored_false",
		want: "got dead false, want true", takes: "1 s"},
	{by: "no-epoch-check", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "no-tombstones", how: unit, pkg: "fsm", test: "TestTombstone_LateRegistration_Revoked",
		want: "verdict of a-1: got 1, want 2", takes: "1 s"},
	{by: "no-tombstones", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "as-of-ignores-cutoff", how: unit, pkg: "fsm", test: "TestAsOf_SuccessiveCutoffs_InactiveSinceFirst",
		want: "want inactive since the first cut-off", takes: "1 s"},
	{by: "filter-without-commits", how: unit, pkg: "fsm/store", test: "TestFilter_RandomHistory_NeverLacksARow",
		want: "which the store holds", takes: "1 s"},
	{by: "scan-without-commits", how: unit, pkg: "fsm/store", test: "TestFilter_ScanDuringCommits_NeverLacksARow",
		want: "which the store holds", takes: "1 s"},
	{by: "serve-during-restore", how: unit, pkg: "fsm", test: "TestApplied_Restore_PublishedLast",
		want: "applied index when the restore is announced", takes: "1 s"},
	{by: "serve-during-restore", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "3 s"},
	{by: "heartbeat-handler", how: unit, pkg: "transport", test: "TestRaft_HeartbeatsUseTheMainLoop",
		want: "got a heartbeat on the fast path", takes: "1 s"},
	{by: "heartbeat-handler", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "5 min", byHand: true},
	{by: "any-instance", how: cluster, pkg: "node", test: "TestNewInstance_OldVote_IsRefused",
		want: "got a leader without the revocation", takes: "2 s"},
	{by: "two-votes", how: changes, pkg: "node/roster", test: "TestRules_PermittedChange_KeepsInvariants",
		want: "want at most 2 and 1", takes: "1 s"},
	{by: "two-votes", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "10 s"},
	{by: "assertion-used-twice", how: cluster, pkg: "node", test: "TestAssertion_ConcurrentReplays_OneSucceeds",
		want: "requests succeeded, want one", takes: "5 s"},
	{by: "no-admission", how: cluster, pkg: "node", test: "TestJoin_NotAdmitted_IsRefused",
		want: "want 403", takes: "2 s"},
	{by: "no-admission", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "proof-on-any-connection", how: cluster, pkg: "node", test: "TestJoinToken_ProofElsewhere_IsRefused",
		want: "captured at", takes: "3 s"},
	{by: "any-member-enrolls", how: unit, pkg: "transport/enroll", test: "TestAsk_OtherCA_SendsNothing",
		want: "want member does not belong to the cluster that the join token names", takes: "1 s"},
	{by: "any-key-renews", how: unit, pkg: "node/certify", test: "TestRenew_EachRefusal_SignsNothing",
		want: "another key: got", takes: "1 s"},
	{by: "removed-comes-back", how: unit, pkg: "node/roster", test: "TestVoters_RemovedInParallel_StaysRemoved",
		want: "want the server to stay removed", takes: "1 s"},
	{by: "rolled-back-vote", how: unit, pkg: "node/roster", test: "TestMayVote_RolledBackDisk_IsRefused",
		want: "got vote true", takes: "1 s"},
	{by: "unknown-promotion", how: cluster, pkg: "node", test: "TestElection_VoterMissesPromotion_VotesForNewerLog",
		want: "the promoted node does not lead", takes: "2 s"},
	{by: "forgotten-marks", how: unit, pkg: "node/raftstore", test: "TestStore_Marks_SurviveDeletion",
		want: "got mark 0 of a, want 3", takes: "1 s"},
	{by: "marks-of-discarded-log", how: unit, pkg: "node/raftstore", test: "TestStore_MarksInDiscardedLog_Survive",
		want: "got mark 0 of a, want 3", takes: "1 s"},
	{by: "notice-too-early", how: unit, pkg: "transport/saferaft", test: heldOnly,
		want: "got notices [a 5:7], want []", takes: "1 s"},
	{by: "notice-too-early", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "1 min", byHand: true},
	{by: "notice-of-another-term", how: unit, pkg: "node/propose", test: "TestAnnounce_LaterTerm_IsNotAnnounced",
		want: "an entry of a later term: got announcements", takes: "1 s"},
	{by: "unbounded-commit", how: unit, pkg: "transport", test: "TestRaft_CommitIndex_BoundedAndDeliveredFirst",
		want: "want {prev:7 entries:0 commit:7}", takes: "1 s"},
	{by: "denial-not-looked-up", how: unit, pkg: "fsm", test: "TestRevokeJWT_GrantOrSession_EndsLaterTokens",
		want: "later token of the grant: got inactive false, want true", takes: "1 s"},
	{by: "denial-not-looked-up", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "2 s"},
	{by: "jti-ends-no-grant", how: unit, pkg: "fsm", test: "TestDenyJTI_RegisteredToken_EndsPermanently",
		want: "verdict of r-a1: got 1, want 2", takes: "1 s"},
	{by: "jti-ends-no-grant", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "3 s"},
	{by: "index-marked-early", how: unit, pkg: "fsm", test: "TestApply_VersionRaised_MarksIndexComplete",
		want: "audited true: got mark true", takes: "1 s"},
	{by: "denial-before-its-grants", how: unit, pkg: "fsm", test: "TestDenyJTI_ManyGrants_EndBeforeTheDenial",
		want: "verdict of a-5: got 1, want 2", takes: "1 s"},
	{by: "denial-before-its-grants", how: "model, random histories", pkg: "fsm",
		test: "TestDenyJTI_RandomHistory_NeverActiveAgain", want: "got active, want inactive", takes: "5 s"},
	{by: "denial-ends-newer-tokens", how: unit, pkg: "fsm", test: "TestExpire_JTIOfCutOffToken_KeepsGrantActive",
		want: "verdict of r-other: got 2, want 1", takes: "1 s"},
	{by: "extended-denial-is-stray", how: unit, pkg: "fsm", test: "TestExpire_GrantWithTwoJTIs_Succeeds",
		want: "does not match its row", takes: "1 s"},
	{by: "jtis-of-the-unit", how: unit, pkg: "fsm", test: "TestDenyJTI_RegisteredToken_EndsPermanently",
		want: "verdict of r-d1: got 1, want 2", takes: "1 s"},
	{by: "cached-key-state", how: unit, pkg: "node/bearer", test: "TestStatus_Change_EndsCachedJWT/key_banned",
		want: "after: got verdict 1, want 2", takes: "1 s"},
	{by: "cached-key-state", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "3 s"},
	{by: "no-cutoff-of-claims", how: unit, pkg: "fsm", test: "TestCutoff_Whole_CoversJWTsByIssuedAt",
		want: "got 1, want 2", takes: "1 s"},
	{by: "no-cutoff-of-claims", how: sim, pkg: "node", test: sims, want: breaks, env: minutes, takes: "4 s"},
	{by: "no-tombstone-of-jwt", how: unit, pkg: "fsm", test: "TestTombstone_UnverifiedJWT_RevokesIt",
		want: "got inactive false, want true", takes: "1 s"},
	{by: "denial-expires-by-clock", how: unit, pkg: "fsm", test: "TestExpire_AheadOfStamp_KeepsDenials",
		want: "got 1, want 2", takes: "1 s"},
	{by: "ban-ends-by-fetch", how: unit, pkg: "fsm", test: "TestBanIssuerKey_LaterFetch_StaysBanned",
		want: "key a: got state active, want banned", takes: "1 s"},
	{by: "ban-ends-by-fetch", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "20 s", byHand: true},
	{by: "lowered-skew", how: unit, pkg: "fsm", test: "TestPutIssuer_LoweredSkew_KeepsCutoffs",
		want: "got 1, want 2", takes: "1 s"},
	{by: "earlier-mapping-ignored", how: unit, pkg: "fsm", test: "TestPutIssuer_ChangedMapping_TokensStayRevoked",
		want: "got 1, want 2", takes: "1 s"},
	{by: "earlier-mapping-ignored", how: "model, random histories", pkg: "fsm",
		test: "TestIssuer_RandomChanges_TokensStayRevoked", want: "got active, want inactive", takes: "5 s"},
	{by: "earlier-mapping-ignored", how: sim, pkg: "node", test: sims, want: breaks, env: hour, takes: "1 min",
		byHand: true},
	{by: "claims-of-another-mapping", how: unit, pkg: "fsm", test: "TestPutIssuer_ChangedMapping_BothMappingsApply",
		want: "stale claims", takes: "1 s"},
	{by: "audit-skips-no-change", how: unit, pkg: "fsm", test: "TestAudit_Operations_OneEntryEach",
		want: "done no change", takes: "1 s"},
	{by: "audit-skips-no-change", how: "model, random histories", pkg: "fsm",
		test: "TestAudit_RandomHistories_AreComplete", want: "want one entry", takes: "5 s"},
	{by: "operator-makes-clients", how: unit, pkg: "fsm", test: "TestApply_OperationsByRole_MatchTheTable",
		want: "put_client by ops: got", takes: "2 s"},
	{by: "leader-trusts-forwarder", how: cluster, pkg: "node", test: "TestForwarded_ChangesByRole_TheLeaderDecides",
		want: "REMOVE by eye: got", takes: "3 s"},
	{by: "roles-without-field", how: unit, pkg: "fsm/command", test: "TestCheckClient_NewerRoles_NeedTheField",
		want: "operator without the field", takes: "1 s"},
	{by: "viewer-sees-cutoff", how: unit, pkg: "api", test: "TestExplain_Viewer_SeesNoUser",
		want: "want no subject and no session", takes: "1 s"},
	{by: "recover-without-cutoff", how: cluster, pkg: "node", test: "TestRecover_QuorumLost_RevokesEarlierTokens/cut-off",
		want: "got active true, want false", takes: "5 s"},
	{by: "recover-without-tail", how: cluster, pkg: "node", test: "TestRecover_UncommittedTail_IsApplied",
		want: "the token of the last entry: got active", takes: "15 s"},
	{by: "recover-keeps-cluster", how: cluster, pkg: "node", test: "TestRecover_QuorumLost_RevokesEarlierTokens/cut-off",
		want: "a reader of the old feed resumes", takes: "5 s"},
}
