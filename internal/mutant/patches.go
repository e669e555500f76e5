package mutant

import (
	"fmt"
	"strings"
)

// All lists the mutants. When you move or change a patched line, change its patch here: the test
// TestMutants_EveryPatch_Applies names it.
var All = []Mutant{
	{"no-ack-wait", "a revocation is acknowledged without waiting for any lease", []Edit{{
		"node/lease/table.go",
		"func (m *reservation) blocks(now Instant, index uint64) bool {\n",
		"func (m *reservation) blocks(now Instant, index uint64) bool {\n\tif true {\n\t\treturn false\n\t}\n",
	}}},
	{"repeat-acked-at-once", "a repeated revocation is acknowledged while the first request still waits", []Edit{{
		"node/propose/proposer.go",
		"\tp.check(s)\n",
		"\tp.check(s)\n\tif len(s.ops) > 0 && !slices.ContainsFunc(s.ops, func(op *command.Op) bool {\n" +
			"\t\tr, ok := p.cfg.State.DryRun(op)\n\t\treturn !ok || r.Err != nil\n\t}) {\n" +
			"\t\ts.finish(0, nil)\n\t\treturn nil\n\t}\n",
	}}},
	{"join-sent-call", "a read joins a barrier that was sent before it", []Edit{{
		"node/propose/router.go",
		"\tout, err := r.Propose(ctx, nil, false)\n",
		"\tout, err := r.joinSent(ctx)\n",
	}, {
		"node/propose/router.go",
		"// Serve proposes the operations",
		`func (r *Router) joinSent(ctx context.Context) (fsm.Outcome, error) {
	mine := &sentCall{done: make(chan struct{})}
	if c, sent := sentCalls.LoadOrStore(r, mine); sent {
		<-c.(*sentCall).done
		return c.(*sentCall).out, c.(*sentCall).err
	}
	mine.out, mine.err = r.Propose(ctx, nil, false)
	sentCalls.Delete(r)
	close(mine.done)
	return mine.out, mine.err
}

type sentCall struct {
	done chan struct{}
	out  fsm.Outcome
	err  error
}

var sentCalls sync.Map // *Router to *sentCall

// Serve proposes the operations`,
	}, {
		"node/propose/router.go", "import (\n", "import (\n\t\"sync\"\n",
	}}},
	{"join-begun-barrier", "a lookup of an unknown token joins its caller's barrier after that barrier has begun", []Edit{{
		"node/propose/pacer.go",
		"\t\tp.begin(a)\n\t\tif b.err == nil {\n\t\t\tb.err = barrier()\n\t\t}\n",
		"\t\tif b.err == nil {\n\t\t\tb.err = barrier()\n\t\t}\n\t\tp.begin(a)\n",
	}}},
	{"clear-newer-reservation", "adopting a term also clears the reservation made in that term", []Edit{{
		"node/lease/table.go", "\tm.inherited = 0\n", "\tm.inherited, m.until = 0, 0\n",
	}}},
	{"reserve-at-reply", "a lease is reserved when the reply is sent, not when the request is admitted", []Edit{{
		"node/lease/table.go", "\tt.reserve(now, m, r)\n\treturn Admitted\n", "\treturn Admitted\n",
	}, {
		"node/lease/table.go", "// floor returns",
		"func (t *Table) ReserveLate(now Instant, a Admission) Admission {\n\tif m := t.reservations[a.Request.Server]; m != nil {\n" +
			"\t\tt.reserve(now, m, a.Request)\n\t}\n\treturn a\n}\n\n// floor returns",
	}, {
		"node/renewal.go", "\treturn t.table.Grant(a), lease.Admitted\n",
		"\tl.mu.Lock()\n\tdefer l.mu.Unlock()\n\treturn t.table.Grant(t.table.ReserveLate(l.now(), a)), lease.Admitted\n",
	}, {
		"node/lease/steps_test.go", "if w.s.off == reserveBeforeBarrier {", "if true {",
	}}},
	{"reply-on-state", "State() == Leader replaces the committed entry of a read barrier", []Edit{{
		"node/propose/proposer.go",
		"\ts := newProposal(nil, false)\n\ts.lease = true\n",
		"\tif true {\n\t\treturn p.cfg.Log.(interface{ State() raft.RaftState }).State() == raft.Leader\n\t}\n\ts := newProposal(nil, false)\n\ts.lease = true\n",
	}}},
	{"verify-leader", "VerifyLeader replaces the committed entry of a read barrier", []Edit{{
		"node/propose/proposer.go",
		"\ts := newProposal(nil, false)\n\ts.lease = true\n",
		"\tif true {\n\t\treturn p.cfg.Log.(interface{ VerifyLeader() raft.Future }).VerifyLeader().Error() == nil\n\t}\n\ts := newProposal(nil, false)\n\ts.lease = true\n",
	}}},
	{"no-new-leader-wait", "a new leader assumes that no older lease is in force", []Edit{{
		"node/lease/table.go", "&reservation{inherited: n.Since.Add(ReservedFor(longest))}", "&reservation{}",
	}}},
	{"leader-adopts-late", "a leader adopts its term after it has proposed the first command", []Edit{{
		"node/leader.go", "\tl.leases.adopt(term)\n", "",
	}, {
		"node/renewal.go", "\tdefer t.rounds.Stop()\n", "\tl.adopt(term)\n\tdefer t.rounds.Stop()\n",
	}}},
	{"bound-of-older-leader", "the wait for a leader's own lease uses the bound of an older leader", []Edit{{
		"fsm/leaders.go", "\t\tl.newest, l.second = n, l.newest\n",
		"\t\tif l.second.Term == 0 {\n\t\t\tl.second = l.newest\n\t\t}\n\t\tl.newest = n\n",
	}}},
	{"wait-from-first-entry", "the wait for old leases begins at the first entry that a log received, not at the last", []Edit{{
		"node/lease/intake.go", "\ti.latest = now\n", "",
	}}},
	{"wait-forgets-own-entries", "the wait for old leases ignores entries that the new leader proposed in earlier terms", []Edit{{
		"node/intake.go", "\tl.intake.Took(low, high, l.steady())\n",
		"\tif l.term == nil {\n\t\tl.intake.Took(low, high, l.steady())\n\t}\n",
	}}},
	{"wait-forgets-restart", "the wait for old leases may begin before the new leader's process started", []Edit{{
		"node/lease/intake.go", "Intake{latest: now, earlier: now}", "Intake{latest: now - 1<<42, earlier: now - 1<<42}",
	}}},
	{"wait-forgets-snapshot", "the wait for old leases ignores entries that came in a snapshot", []Edit{{
		"node/raftstore/snapshots.go", "\tif received != nil {\n", "\tif received != nil && false {\n",
	}}},
	{"check-before-read", "the lease is checked before the record is read", []Edit{{
		"node/read.go", "\tmark := n.leases.mark()\n", "\tmark := n.leases.mark()\n\tearly := n.leases.covers(mark)\n",
	}, {
		"node/read.go", "st.Verdict != revoked.Unknown && n.leases.covers(mark):",
		"st.Verdict != revoked.Unknown && (early || n.leases.covers(mark)):",
	}}},
	{"timer-flag", "a flag that a timer sets, not the clock, decides whether the lease is in force", []Edit{{
		"node/leases.go",
		"\treturn l.holder.Covers(now, skew, mark)\n",
		"\tif true {\n\t\treturn l.held // as watch saw it last\n\t}\n\treturn l.holder.Covers(now, skew, mark)\n",
	}}},
	{"no-epoch-check", "a cached record is used even if the stored record has changed since", []Edit{{
		"node/cache/cache.go",
		"func (c *Cache) current(e *entry) bool {\n",
		"func (c *Cache) current(e *entry) bool {\n\tif true {\n\t\treturn true\n\t}\n",
	}}},
	{"no-tombstones", "the revocation of an unknown token is not stored", []Edit{{
		"fsm/rules/revoke.go",
		"func (a *Applier) addTombstone(actor *revoked.Client, m *command.Revoke) Result {\n",
		"func (a *Applier) addTombstone(actor *revoked.Client, m *command.Revoke) Result {\n\tif true {\n\t\treturn Result{}\n\t}\n",
	}}},
	{"as-of-ignores-cutoff", "an answer about the past ignores cut-offs", []Edit{{
		"asof.go",
		"\treturn slices.ContainsFunc(h.Cutoffs, func(c Moment) bool { return c.At <= at })\n",
		"\treturn at < 0 && slices.ContainsFunc(h.Cutoffs, func(c Moment) bool { return c.At <= at })\n",
	}}},
	{"filter-without-commits", "the filter of absent rows is not updated with committed rows", []Edit{{
		"fsm/store/filter.go", "[...]*keySet{s, f.building}", "[...]*keySet{f.building}",
	}}},
	{"scan-without-commits", "a new filter of absent rows lacks rows committed while it was built", []Edit{{
		"fsm/store/filter.go", "[...]*keySet{s, f.building}", "[...]*keySet{s}",
	}}},
	{"serve-during-restore", "a snapshot's index is published while reads still use the old state", []Edit{{
		"fsm/restore.go", "\tmem, err := memory.Load(s)\n", "\tf.progress.Advance(h.Index)\n\tmem, err := memory.Load(s)\n",
	}}},
	{"heartbeat-handler", "heartbeats bypass Raft's main loop", []Edit{{
		"transport/saferaft/transport.go",
		"func (s *Transport) SetHeartbeatHandler(func(raft.RPC)) {}\n",
		"func (s *Transport) SetHeartbeatHandler(f func(raft.RPC)) { s.NetworkTransport.SetHeartbeatHandler(f) }\n",
	}}},
	{"any-instance", "a node that lost its disk votes as its previous instance", []Edit{{
		"transport/admission.go", "to != a.cfg.Instance {\n", "to != a.cfg.Instance && false {\n",
	}}},
	{"two-votes", "a new instance is promoted while the old one votes", []Edit{{
		"node/roster/rules.go",
		"if nodeOf(s.ID) == nodeOf(id) && s.ID != id {",
		"if false {",
	}, {
		"node/roster/voters.go", " || votes[s.Name]\n", "\n",
	}}},
	{"assertion-used-twice", "the log does not bind an assertion to the request that used it", []Edit{{
		"fsm/rules/denials.go", "\tif v.Request != use.Request {\n", "\tif v.Request != use.Request && false {\n",
	}}},
	{"no-admission", "a certificate of the cluster's CA suffices to join", []Edit{{
		"node/roster/admission.go",
		"\t\terr = t.Commit(ctx, command.Via(token.joinOp(h.NodeId), h.NodeId))\n",
		"\t\t_ = t.Commit(ctx, token.joinOp(h.NodeId))\n",
	}}},
	{"proof-on-any-connection", "the proof of a join token is not bound to the connection", []Edit{{
		"transport/call.go",
		"\tbinding, err := state.ExportKeyingMaterial(bindingLabel, nil, bindingSize)\n",
		"\tbinding, err := state.ExportKeyingMaterial(bindingLabel, nil, bindingSize)\n\tbinding = make([]byte, len(binding))\n",
	}, {
		"transport/call.go",
		"\treturn r.TLS.ExportKeyingMaterial(bindingLabel, nil, bindingSize)\n",
		"\treturn make([]byte, bindingSize), nil\n",
	}}},
	{"any-member-enrolls", "a node without a certificate trusts a member whose CA its token does not name", []Edit{{
		"transport/pki/enroll.go",
		"func(c *x509.Certificate) bool { return KeyHash(c) == p.Hash })\n",
		"func(*x509.Certificate) bool { return true })\n",
	}}},
	{"any-key-renews", "a certificate is renewed for a key other than the one in the admission", []Edit{{
		"node/certify/signer.go",
		"\tcase a.Key.IsZero() || a.Key != key:\n",
		"\tcase a.Key.IsZero():\n",
	}}},
	{"removed-comes-back", "autopilot promotes a server that was removed before", []Edit{{
		"node/roster/voters.go", "\tindex, err := p.changes.promote(id)\n",
		"\tif true {\n\t\treturn p.Raft.AddVoter(id, addr, 0, 0)\n\t}\n\tindex, err := p.changes.promote(id)\n",
	}}},
	{"rolled-back-vote", "a voter whose disk was rolled back votes for any candidate", []Edit{{
		"node/roster/marks.go", "\tvar n nodepb.VoteNote\n", "\tif true {\n\t\treturn true\n\t}\n\tvar n nodepb.VoteNote\n",
	}}},
	{"unknown-promotion", "a voter rejects a candidate whose promotion it has not stored", []Edit{{
		"transport/saferaft/transport.go", "\t\t\tguard.standIn(&req.RPCHeader)\n\t\tcase", "\t\tcase",
	}}},
	{"forgotten-marks", "marks are deleted with the log entries that contain them", []Edit{{
		"node/raftstore/marks.go", "\tif err := l.keep(first, last); err != nil {\n\t\treturn err\n\t}\n", "",
	}}},
	{"marks-of-discarded-log", "marks are deleted with a log that does not lead to a received snapshot", []Edit{{
		"node/raftstore/checkedlog.go", "\t\tif err := l.DeleteRange(first, last); err != nil {\n",
		"\t\tif err := l.LogStore.(*markedLog).LogStore.DeleteRange(first, last); err != nil {\n",
	}}},
	{"notice-too-early", "a notice lets a follower commit entries that it has stored but a majority has not", []Edit{{
		"transport/saferaft/notices.go",
		"\tn.start(f)\n}\n\n// announce",
		"\tif req.Term > n.term || req.Term == n.term && f.held > n.index {\n\t\tn.term, n.index = req.Term, f.held\n\t}\n" +
			"\tn.start(f)\n}\n\n// announce",
	}}},
	{"notice-of-another-term", "a commit is announced in a term to which the entry may not belong", []Edit{{
		"node/propose/proposer.go", "\tif term != p.term || lease ||", "\tif lease ||",
	}}},
	{"unbounded-commit", "a message commits entries beyond the last one that it covers", []Edit{{
		"transport/saferaft/transport.go",
		"min(req.LeaderCommitIndex, matched(req))", "max(req.LeaderCommitIndex, min(0, matched(req)))",
	}}},
	{"denial-not-looked-up", "introspection of a JWT ignores its denials", []Edit{{
		"fsm/lookup/denials.go", "range j.DenialKeys() {\n", "range j.DenialKeys()[:0] {\n",
	}}},
	{"jti-ends-no-grant", "the denial of a jti does not revoke registered grants", []Edit{{
		"fsm/rules/revokejwt.go", "\tif a.endsByJTI() {\n\t\tended, _", "\tif false {\n\t\tended, _",
	}}},
	{"index-marked-early", "the index of jtis is marked as complete while an older program may open the store", []Edit{{
		"fsm/rules/entry.go", "version.Commands >= command.JTIRules", "version.Commands >= command.Audit",
	}}},
	{"denial-before-its-grants", "a denial expires before the registered grants with its jti", []Edit{{
		"fsm/rules/denials.go", "\tif a.endsByJTI() {\n", "\tif false {\n",
	}}},
	{"jtis-of-the-unit", "the denial of a jti misses tokens that are registered in the same commit", []Edit{{
		"fsm/rules/revokejwt.go", "range a.jtis[id] {\n", "range a.jtis[id][:0] {\n",
	}}},
	{"denial-ends-newer-tokens", "an expiring denial revokes the grant of a token that is already inactive", []Edit{{
		"fsm/rules/revokejwt.go", "(!live || tokens[i].State == revoked.Live)", "(!live || tokens[i].State != 0)",
	}}},
	{"extended-denial-is-stray", "one command extends a denial that it then expires", []Edit{{
		"fsm/rules/denials.go", "\tif row != nil && v.Until > due {", "\tif row == nil && v.Until > due {",
	}}},
	{"cached-key-state", "a cached JWT keeps the issuer and the key state with which it was verified", []Edit{{
		"node/bearer/bearer.go", "\t\tif in.Issuer == j.Issuer {\n", "\t\tif in.Issuer = j.Issuer; true {\n",
	}}},
	{"no-cutoff-of-claims", "cut-offs do not cover JWTs", []Edit{{
		"fsm/lookup.go", "Client: f.mem.Clients[j.ClientID], Cutoff: f.covered,", "Client: f.mem.Clients[j.ClientID],",
	}}},
	{"no-tombstone-of-jwt", "a tombstone applies to registrations only, not to JWTs", []Edit{{
		"fsm/lookup/denials.go",
		"range j.Digests {\n\t\tt, err := tombstone", "range j.Digests[:0] {\n\t\tt, err := tombstone",
	}}},
	{"denial-expires-by-clock", "rows expire by the leader's clock, not by the stamps of the log", []Edit{{
		"fsm/rules/expire.go", "\tbefore = min(before, a.Stamp)\n", "",
	}, {
		"fsm/backlog.go", "\tbefore := min(now, stamp).Add(-skew)\n", "\tbefore := now.Add(-skew)\n",
	}, {
		"fsm/backlog.go", "&command.Expire{Stamp: int64(now),", "&command.Expire{Stamp: int64(stamp),",
	}, {
		"fsm/backlog.go", "&command.Compact{Stamp: int64(now),", "&command.Compact{Stamp: int64(stamp),",
	}, {
		"node/leader.go", "l.fsm, l.roster.Clock.Stamp)", "l.fsm, l.roster.Clock.Wall)",
	}, {
		"node/propose/clock.go", "// Reset starts a term",
		"func (c *Clock) Wall() revoked.Time { return revoked.TimeOf(c.now()) }\n\n// Reset starts a term",
	}}},
	{"ban-ends-by-fetch", "a fetched key set makes a banned key active again", []Edit{{
		"fsm/rules/issuers.go", "set[i].Algorithm, 0\n", "set[i].Algorithm, 0\n\t\t\tk.State = revoked.KeyActive\n",
	}}},
	{"lowered-skew", "a lower clock_skew reactivates tokens that a cut-off has revoked", []Edit{{
		"decide.go", "in.Issuer.CutoffSkew(r.Token.IssuedAt)", "in.Issuer.ClockSkew",
	}}},
	{"earlier-mapping-ignored", "a change of an issuer's claims reactivates tokens revoked by the earlier claims",
		[]Edit{{
			"mapping.go", "range i.Earlier {\n\t\tm := &i.Earlier[n]", "range i.Earlier[:0] {\n\t\tm := &i.Earlier[n]",
		}}},
	{"claims-of-another-mapping", "a JWT is revoked by claims that were read with an earlier claim mapping", []Edit{{
		"fsm/rules/revokejwt.go", "\tif j.MappingVersion != iss.MappingVersion {", "\tif false {",
	}}},
	{"operator-makes-clients", "an operator may change clients, issuers and cut-offs", []Edit{{
		"fsm/rules/entry.go", "\treturn actor.Require(revoked.RoleAdmin)\n",
		"\treturn actor.Require(revoked.RoleAdmin, revoked.RoleOperator)\n",
	}}},
	{"leader-trusts-forwarder", "the leader changes the membership for any client that the forwarder names", []Edit{{
		"node/roster/authority.go", "\treturn client.Require(revoked.RoleAdmin, revoked.RoleOperator)\n", "\treturn nil\n",
	}}},
	{"roles-without-field", "a record with a newer role lacks the field that makes older programs stop", []Edit{{
		"fsm/command/limits.go", "\tif c.GetOperatorRoles() {\n", "\tif true {\n",
	}}},
	{"viewer-sees-cutoff", "an explanation shows a viewer which user a cut-off selects", []Edit{{
		"api/tokens/explain.go", "\tif v.Cutoff != nil {\n", "\tif false {\n",
	}}},
	{"audit-skips-no-change", "an accepted call that changes nothing leaves no audit entry", []Edit{{
		"fsm/rules/audit.go", "\t\te.Detail = revoked.AuditNoChange\n", "\t\treturn r\n",
	}}},
	{"recover-without-cutoff", "a recovery that may have lost revocations does not revoke the earlier tokens", []Edit{{
		"node/recovery/recover.go", "fsm.SeedOptions{AcceptLoss: r.AcceptLoss,", "fsm.SeedOptions{AcceptLoss: true,",
	}}},
	{"recover-without-tail", "a recovery drops log entries whose commit is uncertain", []Edit{{
		"node/recovery/recover.go", ", Replay: d.store.Replay}", "}",
	}}},
	{"recover-keeps-cluster", "a recovered node keeps the id of its cluster", []Edit{{
		"node/recovery/recover.go", "fsm.SeedOptions{AcceptLoss", "fsm.SeedOptions{ClusterID: r.Before.ClusterID, AcceptLoss",
	}, {
		"node/recovery/seed.go", "\to.ClusterID, o.Before = hex.EncodeToString(b), revoked.TimeOf(time.Now())\n",
		"\to.Before = revoked.TimeOf(time.Now())\n\tif o.ClusterID == \"\" {\n\t\to.ClusterID = hex.EncodeToString(b)\n\t}\n",
	}}},
}

// Find returns the mutant with that name.
func Find(name string) (Mutant, error) {
	var names []string
	for _, m := range All {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Mutant{}, fmt.Errorf("unknown mutant %q (want one of %s)", name, strings.Join(names, ", "))
}
