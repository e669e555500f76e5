package mutant_test

// A catch is a test that fails under a mutant.
type catch struct {
	by     string // name of the mutant
	how    string // kind of test
	pkg    string // path of the package below the module's root
	test   string // name of the test, as for -run
	says   string // part of the failure text: the test fails for this reason
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
	booked   = "TestTable_EachRule_Holds/rule_2:_the_lease_of_an_admitted_request"
)

// caught is the table of docs/proofs.md.
var caught = []catch{
	{by: "no-ack-wait", how: unit, pkg: "node/lease", test: booked, says: "acknowledge 11", takes: "1 s"},
	{by: "no-ack-wait", how: model, pkg: "node/lease", test: oneTerm, says: behind, env: states, takes: "1 s"},
	{by: "no-ack-wait", how: schedule, pkg: "node/lease", test: random, says: behind, env: schedules, takes: "1 s"},
	{by: "no-ack-wait", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: "repeat-acked-at-once", how: unit, pkg: "node/propose", test: "TestPropose_RepeatedOperation_WaitsForEntry",
		says: "a retry was acknowledged too early", takes: "1 s"},
	{by: "repeat-acked-at-once", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "join-sent-call", how: unit, pkg: "node/propose", test: "TestReadBarrier_EarlierBarrierSent_IsNotReused",
		says: "got an answer from the earlier barrier", takes: "1 s"},
	{by: "join-sent-call", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "1 min", byHand: true},
	{by: "join-begun-barrier", how: unit, pkg: "node/propose", test: "TestPacedBarrier_ManyRequests_ShareLaterBarriers",
		says: "got an answer with", takes: "2 s"},
	{by: "clear-newer-reservation", how: unit, pkg: "node/lease", test: rule7, says: "acknowledge 11",
		takes: "1 s"},
	{by: "clear-newer-reservation", how: model, pkg: "node/lease", test: oneTerm, says: behind, env: states, takes: "1 s"},
	{by: "clear-newer-reservation", how: schedule, pkg: "node/lease", test: random, says: behind, env: schedules,
		takes: "1 s"},
	{by: "clear-newer-reservation", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: "reserve-at-reply", how: unit, pkg: "node/lease", test: booked, says: "acknowledge 11", takes: "1 s"},
	{by: "reserve-at-reply", how: model, pkg: "node/lease", test: oneTerm, says: behind, env: states, takes: "1 s"},
	{by: "reserve-at-reply", how: schedule, pkg: "node/lease", test: random, says: "the checker reports", env: schedules,
		takes: "1 s"},
	{by: "reserve-at-reply", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "1 min", byHand: true},
	{by: "reply-on-state", how: unit, pkg: "node", test: "TestGrant_NoEntryCommitted_Refused",
		says: "no entry committed since the request", takes: "2 s"},
	{by: "reply-on-state", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: "verify-leader", how: unit, pkg: "node", test: "TestGrant_NoEntryCommitted_Refused",
		says: "no entry committed since the request", takes: "2 s"},
	{by: "verify-leader", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "1 s"},
	{by: "no-new-leader-wait", how: unit, pkg: "node/lease", test: rule7, says: "acknowledge 11",
		takes: "1 s"},
	{by: "no-new-leader-wait", how: model, pkg: "node/lease", test: twoTerms, says: behind, env: states, takes: "2 s"},
	{by: "no-new-leader-wait", how: schedule, pkg: "node/lease", test: random, says: behind, env: schedules, takes: "1 s"},
	{by: "no-new-leader-wait", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "5 s"},
	{by: "leader-adopts-late", how: sim, pkg: "node", test: sims, says: "before it adopts that term", env: minutes,
		takes: "1 s"},
	{by: "bound-of-older-leader", how: unit, pkg: "fsm", test: "TestLeaderBefore_EarlierTerms_ReturnsNewest",
		says: "the newest of two: got", takes: "1 s"},
	{by: "wait-from-first-entry", how: unit, pkg: "node/lease", test: "TestIntake_Before_IsNeverTooEarly",
		says: "want at least", takes: "1 s"},
	{by: "wait-from-first-entry", how: model, pkg: "node/lease", test: twoTerms, says: behind, env: states, takes: "1 s"},
	{by: "wait-from-first-entry", how: schedule, pkg: "node/lease", test: random, says: behind, env: schedules,
		takes: "1 s"},
	{by: "wait-from-first-entry", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "5 s"},
	{by: "wait-forgets-own-entries", how: unit, pkg: "node", test: waits + "/an_entry_that_it_proposed",
		says: "reserved: got", takes: "1 s"},
	{by: "wait-forgets-own-entries", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "15 s"},
	{by: "wait-forgets-restart", how: unit, pkg: "node", test: waits + "/it_has_just_started",
		says: "reserved: got", takes: "1 s"},
	{by: "wait-forgets-restart", how: sim, pkg: "node", test: sims, says: breaks, env: "SIM_MINUTES=480", takes: "3 min",
		byHand: true},
	{by: "wait-forgets-snapshot", how: unit, pkg: "node/raftstore", test: "TestSnapshotTracker_CountsRestoredSnapshots",
		says: "two snapshots were received", takes: "1 s"},
	{by: "check-before-read", how: unit, pkg: "node", test: "TestStatus_LeaseEndsDuringRead_NoAnswer",
		says: "lease ended during the read", takes: "1 s"},
	{by: "check-before-read", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "timer-flag", how: unit, pkg: "node", test: "TestStatus_ProcessStopped_ReadsClock",
		says: "lease ended while the process was stopped: got", takes: "1 s"},
	{by: "timer-flag", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "no-epoch-check", how: unit, pkg: "node/cache", test: "TestCache_LateFill_IsStale/epochs_ignored_false",
		says: "got dead false, want true", takes: "1 s"},
	{by: "no-epoch-check", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "no-tombstones", how: unit, pkg: "fsm", test: "TestTombstone_LateRegistration_Revoked",
		says: "verdict of a-1: got 1, want 2", takes: "1 s"},
	{by: "no-tombstones", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "as-of-ignores-cutoff", how: unit, pkg: "fsm", test: "TestAsOf_SuccessiveCutoffs_InactiveSinceFirst",
		says: "want inactive since the first cut-off", takes: "1 s"},
	{by: "filter-without-commits", how: unit, pkg: "fsm/store", test: "TestFilter_RandomHistory_NeverLacksARow",
		says: "which the store holds", takes: "1 s"},
	{by: "scan-without-commits", how: unit, pkg: "fsm/store", test: "TestFilter_ScanDuringCommits_NeverLacksARow",
		says: "which the store holds", takes: "1 s"},
	{by: "serve-during-restore", how: unit, pkg: "fsm", test: "TestApplied_Restore_PublishedLast",
		says: "applied index when the restore is announced", takes: "1 s"},
	{by: "serve-during-restore", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "3 s"},
	{by: "heartbeat-handler", how: unit, pkg: "transport", test: "TestRaft_HeartbeatsUseTheMainLoop",
		says: "got a heartbeat on the fast path", takes: "1 s"},
	{by: "heartbeat-handler", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "5 min", byHand: true},
	{by: "any-instance", how: cluster, pkg: "node", test: "TestNewInstance_OldVote_IsRefused",
		says: "got a leader without the revocation", takes: "2 s"},
	{by: "two-votes", how: changes, pkg: "node/roster", test: "TestRules_PermittedChange_KeepsInvariants",
		says: "want at most 2 and 1", takes: "1 s"},
	{by: "two-votes", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "10 s"},
	{by: "assertion-used-twice", how: cluster, pkg: "node", test: "TestAssertion_ConcurrentReplays_OneSucceeds",
		says: "requests succeeded, want one", takes: "5 s"},
	{by: "no-admission", how: cluster, pkg: "node", test: "TestJoin_NotAdmitted_IsRefused",
		says: "want 403", takes: "2 s"},
	{by: "no-admission", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "proof-on-any-connection", how: cluster, pkg: "node", test: "TestJoinToken_ProofElsewhere_IsRefused",
		says: "captured at", takes: "3 s"},
	{by: "any-member-enrolls", how: unit, pkg: "transport/enroll", test: "TestAsk_OtherCA_SendsNothing",
		says: "want member does not belong to the cluster that the join token names", takes: "1 s"},
	{by: "any-key-renews", how: unit, pkg: "node/certify", test: "TestRenew_EachRefusal_SignsNothing",
		says: "another key: got", takes: "1 s"},
	{by: "removed-comes-back", how: unit, pkg: "node/roster", test: "TestVoters_RemovedInParallel_StaysRemoved",
		says: "want the server to stay removed", takes: "1 s"},
	{by: "rolled-back-vote", how: unit, pkg: "node/roster", test: "TestMayVote_RolledBackDisk_IsRefused",
		says: "got vote true", takes: "1 s"},
	{by: "unknown-promotion", how: cluster, pkg: "node", test: "TestElection_VoterMissesPromotion_VotesForNewerLog",
		says: "the promoted node does not lead", takes: "2 s"},
	{by: "forgotten-marks", how: unit, pkg: "node/raftstore", test: "TestStore_Marks_SurviveDeletion",
		says: "got mark 0 of a, want 3", takes: "1 s"},
	{by: "marks-of-discarded-log", how: unit, pkg: "node/raftstore", test: "TestStore_MarksInDiscardedLog_Survive",
		says: "got mark 0 of a, want 3", takes: "1 s"},
	{by: "notice-too-early", how: unit, pkg: "transport/saferaft", test: heldOnly,
		says: "got notices [a 5:7], want []", takes: "1 s"},
	{by: "notice-too-early", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "1 min", byHand: true},
	{by: "notice-of-another-term", how: unit, pkg: "node/propose", test: "TestAnnounce_LaterTerm_IsNotAnnounced",
		says: "an entry of a later term: got announcements", takes: "1 s"},
	{by: "unbounded-commit", how: unit, pkg: "transport", test: "TestRaft_CommitIndex_IsLimitedAndPassedAhead",
		says: "want {prev:7 entries:0 commit:7}", takes: "1 s"},
	{by: "denial-not-looked-up", how: unit, pkg: "fsm", test: "TestRevokeJWT_GrantOrSession_EndsLaterTokens",
		says: "later token of the grant: got inactive false, want true", takes: "1 s"},
	{by: "denial-not-looked-up", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "2 s"},
	{by: "jti-ends-no-grant", how: unit, pkg: "fsm", test: "TestDenyJTI_RegisteredToken_EndsPermanently",
		says: "verdict of r-a1: got 1, want 2", takes: "1 s"},
	{by: "jti-ends-no-grant", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "3 s"},
	{by: "denial-before-its-grants", how: unit, pkg: "fsm", test: "TestDenyJTI_ManyGrants_EndBeforeTheDenial",
		says: "verdict of a-5: got 1, want 2", takes: "1 s"},
	{by: "denial-before-its-grants", how: "model, random histories", pkg: "fsm",
		test: "TestDenyJTI_RandomHistory_NeverActiveAgain", says: "got active, want inactive", takes: "5 s"},
	{by: "denial-ends-newer-tokens", how: unit, pkg: "fsm", test: "TestExpire_JTIOfCutOffToken_KeepsGrantActive",
		says: "verdict of r-other: got 2, want 1", takes: "1 s"},
	{by: "extended-denial-is-stray", how: unit, pkg: "fsm", test: "TestExpire_GrantWithTwoJTIs_Succeeds",
		says: "does not match its row", takes: "1 s"},
	{by: "jtis-of-the-unit", how: unit, pkg: "fsm", test: "TestDenyJTI_RegisteredToken_EndsPermanently",
		says: "verdict of r-d1: got 1, want 2", takes: "1 s"},
	{by: "cached-key-state", how: unit, pkg: "node/bearer", test: "TestStatus_Change_EndsCachedJWT/key_banned",
		says: "after: got verdict 1, want 2", takes: "1 s"},
	{by: "cached-key-state", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "3 s"},
	{by: "no-cutoff-of-claims", how: unit, pkg: "fsm", test: "TestCutoff_Whole_CoversJWTsByIssuedAt",
		says: "got 1, want 2", takes: "1 s"},
	{by: "no-cutoff-of-claims", how: sim, pkg: "node", test: sims, says: breaks, env: minutes, takes: "4 s"},
	{by: "no-tombstone-of-jwt", how: unit, pkg: "fsm", test: "TestTombstone_UnverifiedJWT_RevokesIt",
		says: "got inactive false, want true", takes: "1 s"},
	{by: "denial-expires-by-clock", how: unit, pkg: "fsm", test: "TestExpire_AheadOfStamp_KeepsDenials",
		says: "got 1, want 2", takes: "1 s"},
	{by: "ban-ends-by-fetch", how: unit, pkg: "fsm", test: "TestBanIssuerKey_LaterFetch_StaysBanned",
		says: "key a: got state active, want banned", takes: "1 s"},
	{by: "ban-ends-by-fetch", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "20 s", byHand: true},
	{by: "lowered-skew", how: unit, pkg: "fsm", test: "TestPutIssuer_LoweredSkew_KeepsCutoffs",
		says: "got 1, want 2", takes: "1 s"},
	{by: "earlier-mapping-ignored", how: unit, pkg: "fsm", test: "TestPutIssuer_ChangedMapping_TokensStayRevoked",
		says: "got 1, want 2", takes: "1 s"},
	{by: "earlier-mapping-ignored", how: "model, random histories", pkg: "fsm",
		test: "TestIssuer_RandomChanges_TokensStayRevoked", says: "got active, want inactive", takes: "5 s"},
	{by: "earlier-mapping-ignored", how: sim, pkg: "node", test: sims, says: breaks, env: hour, takes: "1 min",
		byHand: true},
	{by: "claims-of-another-mapping", how: unit, pkg: "fsm", test: "TestPutIssuer_ChangedMapping_BothMappingsApply",
		says: "stale claims", takes: "1 s"},
	{by: "audit-skips-no-change", how: unit, pkg: "fsm", test: "TestAudit_Operations_OneEntryEach",
		says: "done no change", takes: "1 s"},
	{by: "audit-skips-no-change", how: "model, random histories", pkg: "fsm",
		test: "TestAudit_RandomHistories_AreComplete", says: "want one entry", takes: "5 s"},
	{by: "operator-makes-clients", how: unit, pkg: "fsm", test: "TestApply_OperationsByRole_MatchTheTable",
		says: "put_client by ops: got", takes: "2 s"},
	{by: "leader-trusts-forwarder", how: cluster, pkg: "node", test: "TestForwarded_ChangesByRole_TheLeaderDecides",
		says: "REMOVE by eye: got", takes: "3 s"},
	{by: "roles-without-field", how: unit, pkg: "fsm/command", test: "TestCheckClient_NewerRoles_NeedTheField",
		says: "operator without the field", takes: "1 s"},
	{by: "viewer-sees-cutoff", how: unit, pkg: "api", test: "TestExplain_Viewer_SeesNoUser",
		says: "want no subject and no session", takes: "1 s"},
	{by: "recover-without-cutoff", how: cluster, pkg: "node", test: "TestRecover_QuorumLost_RevokesEarlierTokens/cut-off",
		says: "got active true, want false", takes: "5 s"},
	{by: "recover-without-tail", how: cluster, pkg: "node", test: "TestRecover_UncommittedTail_IsApplied",
		says: "the token of the last entry: got active", takes: "15 s"},
	{by: "recover-keeps-cluster", how: cluster, pkg: "node", test: "TestRecover_QuorumLost_RevokesEarlierTokens/cut-off",
		says: "a reader of the old feed resumes", takes: "5 s"},
}
