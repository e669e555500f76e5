package fsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/await"
)

// audited returns a machine whose batches leave audit entries, with staff and a trusted issuer.
func audited(t testing.TB, rules ...uint32) *machine {
	t.Helper()
	m := withStaff(t, rules...)
	m.trust(nil)
	m.audited = true
	return m
}

// entries returns the audit entries above an index as text.
func (m *machine) entries(after uint64) (lines []string) {
	m.t.Helper()
	list, _, err := m.f.Audit(after, 1000)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range list {
		o, outcome := e.Object, "done"
		if e.Refused {
			outcome = "refused"
		}
		object := strings.Join(slices.DeleteFunc([]string{
			o.ClientID, o.GrantID, o.Subject, o.JTI, o.Name, o.Node, o.JoinToken,
		}, func(s string) bool { return s == "" }), ",")
		if !o.Digest.IsZero() {
			object += "#" + o.Digest.Prefix()
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s [%s] %s %s", e.Actor, e.Kind, object, outcome, e.Detail)))
	}
	return lines
}

// Contract 6, "Audit entry": each accepted call leaves one entry, even if it changes nothing.
// Registrations and refusals leave no entry.
func TestAudit_Operations_OneEntryEach(t *testing.T) {
	m := audited(t)
	for _, n := range []string{"1", "2", "3"} {
		m.register(pair(n))
	}
	after := m.f.Applied()
	admin := func() revoked.Actor { return m.by("admin") }
	secret := func(c *revoked.Client) { c.Secrets = append(c.Secrets, confidential("x").Secrets...) }
	put := func(id string, change func(*revoked.Client)) *command.Op {
		c, _ := m.f.Client(id)
		next := *c
		next.Secrets = slices.Clone(next.Secrets)
		change(&next)
		return command.PutClientOp(admin(), &next, c.Version)
	}
	settings := m.f.Settings()
	settings.LeaseDuration = 3 * time.Second
	for i, step := range []struct {
		op   func() *command.Op
		want string // empty: no entry
	}{
		{func() *command.Op { return command.RevokeOp(m.by("app"), digest("a-1"), "") },
			"app token.revoke [g-1#" + digest("a-1").Prefix() + "] done"},
		{func() *command.Op { return command.RevokeOp(m.by("app"), digest("r-1"), "") },
			"app token.revoke [#" + digest("r-1").Prefix() + "] done no change"},
		{func() *command.Op { return command.RevokeOp(m.by("other"), digest("a-1"), "") }, // foreign and inactive
			"other token.revoke [#" + digest("a-1").Prefix() + "] done no change"},
		{func() *command.Op { return command.RevokeOp(m.by("other"), digest("a-2"), "") }, ""}, // foreign and active
		{func() *command.Op { return command.RevokeOp(m.by("app"), digest("ghost"), "") },
			"app token.revoke [#" + digest("ghost").Prefix() + "] done unknown"},
		{func() *command.Op { return command.RevokeOp(m.by("app"), digest("ghost"), "") },
			"app token.revoke [#" + digest("ghost").Prefix() + "] done unknown"},
		{func() *command.Op { return command.RegisterOp(m.by("issuer"), pair("4")) }, ""},
		{func() *command.Op { return command.DeleteGrantOp(admin(), "g-2", "left") }, "admin grant.delete [g-2] done"},
		{func() *command.Op { return command.DeleteGrantOp(admin(), "g-2", "") }, "admin grant.delete [g-2] done no change"},
		{func() *command.Op { return command.DeleteGrantOp(admin(), "g-9", "") }, ""},
		{func() *command.Op { return command.CutoffOp(admin(), revoked.Selector{Subject: "bob"}, 0, "") },
			"admin cutoff.create [bob] done"},
		{func() *command.Op {
			return command.PutClientOp(admin(), confidential("new", revoked.RoleOperator), 0)
		}, "admin client.create [new] done roles=operator"},
		{func() *command.Op { return command.PutClientOp(admin(), confidential("new"), 0) }, ""},
		{func() *command.Op { return put("new", func(c *revoked.Client) { c.Disabled = true }) },
			"admin client.update [new] done disabled=true"},
		{func() *command.Op { return put("new", func(c *revoked.Client) { c.Disabled = true }) },
			"admin client.update [new] done no change"},
		{func() *command.Op { return put("new", secret) }, "admin client.secret [new] done secrets"},
		{func() *command.Op { return command.DeleteClientOp(admin(), "new") }, "admin client.delete [new] done"},
		{func() *command.Op { return command.DeleteClientOp(admin(), "new") }, "admin client.delete [new] done no change"},
		{func() *command.Op { return command.PutSettingsOp(m.by("ops"), settings, settings.Version) },
			"ops settings.update [] done lease_duration=3s"},
		{func() *command.Op { return command.PutSettingsOp(m.by("eye"), settings, settings.Version) }, ""},
		{func() *command.Op { return command.BanIssuerKeyOp(admin(), "as1", thumb("a")) },
			"admin issuer.key_ban [as1] done"},
		{func() *command.Op { return command.BanIssuerKeyOp(admin(), "as1", thumb("a")) },
			"admin issuer.key_ban [as1] done no change"},
		{func() *command.Op {
			return command.RevokeJWTOp(admin(), &revoked.JWT{Issuer: testIss, JTI: "j-1", ExpiresAt: m.now.Add(time.Hour)}, "")
		}, "admin jti.revoke [j-1] done"},
		{func() *command.Op {
			return command.RevokeJWTOp(admin(), &revoked.JWT{Issuer: testIss, JTI: "j-1", ExpiresAt: m.now.Add(time.Hour)}, "")
		}, "admin jti.revoke [j-1] done no change"},
		{func() *command.Op { return command.DeleteIssuerOp(admin(), "as1") }, "admin issuer.delete [as1] done"},
		{func() *command.Op { return command.AdmitNodeOp(admin(), "node4", false, time.Hour) },
			"admin cluster.admit [node4] done"},
		{func() *command.Op { return command.WithdrawNodeOp(admin(), "node4") }, "admin cluster.bar [node4] done"},
		{func() *command.Op { return command.WithdrawNodeOp(admin(), "node4") }, "admin cluster.bar [node4] done no change"},
		{func() *command.Op { return command.JoinNodeOp("node5", revoked.Digest{}) }, ""},
		{func() *command.Op {
			return command.OnBehalf(command.WithdrawNodeOp(revoked.Actor{}, "node2"), m.by("ops"))
		}, "ops cluster.leave [node2] done"},
		{func() *command.Op { return command.BarNodeOp(revoked.Actor{}, "node3", "") },
			"cluster cluster.remove [node3] done"},
		{func() *command.Op {
			return command.NoteOp(m.by("ops"), revoked.AuditEntry{Kind: revoked.AuditClientDelete, Refused: true,
				Detail: "forbidden", Object: revoked.AuditObject{Selector: revoked.Selector{ClientID: "app"}}})
		}, "ops client.delete [app] refused forbidden"},
		{func() *command.Op {
			return command.NoteOp(m.by("eye"), revoked.AuditEntry{Kind: revoked.AuditClientDelete, Refused: true})
		}, ""},
	} {
		res := m.do(step.op())[0]
		var want []string
		if step.want != "" {
			want = []string{step.want}
		}
		got := m.entries(m.f.Applied() - 1)
		if !slices.Equal(got, want) {
			t.Errorf("step %d: got %q, %v, want %q", i, got, res.Err, want)
		}
	}
	list, _, err := m.f.Audit(after, 1)
	if err != nil || len(list) != 1 || list[0].Index != after+1 || list[0].Time != m.now ||
		list[0].ActorVersion != m.by("app").Version {
		t.Errorf("first page: got %+v, %v, want the first entry", list, err)
	}
	if at, err := m.f.AuditAt(after + 1); err != nil || !slices.Equal(at, list) {
		t.Errorf("at index %d: got %+v, %v, want %+v", after+1, at, err, list)
	}
	if at, err := m.f.AuditAt(after); err != nil || len(at) != 0 {
		t.Errorf("at the index of a registration: got %+v, %v, want none", at, err)
	}
	agree(t, m, 7)
}

// An entry names the node that received the call, and the request id.
func TestAudit_Origin_IsRecorded(t *testing.T) {
	m := audited(t)
	by := m.by("admin")
	by.RequestID = "req-1"
	op := command.DeleteClientOp(by, "other")
	op.Origin.Node = "node2"
	m.must(op)
	e, err := m.f.AuditAt(m.f.Applied())
	if err != nil || len(e) != 1 || e[0].Node != "node2" || e[0].RequestID != "req-1" {
		t.Errorf("got %+v, %v, want node2 and req-1", e, err)
	}
}

// The lines of an import that share a log entry share an audit entry, which counts the accepted
// lines.
func TestAudit_Chunk_OneEntryWithCount(t *testing.T) {
	m := audited(t)
	deny := func(request, jti string) *command.Op {
		by := m.by("admin")
		by.RequestID = request
		op := command.RevokeJWTOp(by, &revoked.JWT{Issuer: testIss, JTI: jti, ExpiresAt: m.now.Add(time.Hour)}, "")
		op.Origin.Chunk = true
		return op
	}
	check := func(what string, want ...string) {
		t.Helper()
		list, err := m.f.AuditAt(m.f.Applied())
		var got []string
		for _, e := range list {
			got = append(got, strings.TrimSpace(fmt.Sprint(e.RequestID, " ", e.Object.Count, e.Object.JTI, " ", e.Detail)))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", what, got, err, want)
		}
	}
	m.do(deny("r1", "a"), deny("r1", "b"), deny("r1", "b"), deny("r2", "c"),
		command.RevokeOp(m.by("app"), digest("x"), ""))
	check("two imports and a revocation", "r1 3", "r2 1", "0 unknown")
	m.do(deny("r1", "a"), deny("r1", "b"))
	check("a second request", "r1 2 no change")
	unknown := deny("r1", "d")
	unknown.GetRevokeJwt().Issuer = "https://other.example"
	m.do(unknown)
	check("refused lines only")
}

// While a member does not support the audit log, batches are not audited and leave no audit entry.
func TestAudit_OlderBatches_LeaveNoEntry(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.revoke("app", "ghost")
	if n := m.f.Audits(); n != 0 || m.f.Version() >= command.Audit {
		t.Errorf("got %d entries and version %d, want none", n, m.f.Version())
	}
	if _, noop := m.f.DryRun(command.RevokeOp(m.by("app"), digest("ghost"), "")); !noop {
		t.Error("second request: got a change, want a no-op")
	}
	m.audited = true
	m.revoke("app", "ghost")
	if n := m.f.Audits(); n != 1 || m.f.Version() != command.Audit {
		t.Errorf("got %d entries and version %d, want 1 and %d", n, m.f.Version(), command.Audit)
	}
}

func TestAudit_NewCluster_FirstEntry(t *testing.T) {
	m := empty(t)
	m.apply(&command.Bootstrap{
		ClusterId: "c-1", Settings: command.SettingsMessage(testSettings()), Clients: clientRecords(), Audited: true,
	})
	want := []string{"bootstrap settings.update [] done cluster created with 6 clients"}
	if got := m.entries(0); !slices.Equal(got, want) {
		t.Errorf("bootstrap: got %q, want %q", got, want)
	}
	old := newMachine(t) // its backup has no audit log
	for _, test := range []struct {
		opts fsm.SeedOptions
		want string
	}{
		{fsm.SeedOptions{Before: m.now, Reason: "disk lost"}, "restore restore [] done every token issued before has ended"},
		{fsm.SeedOptions{AcceptLoss: true, Reason: "a test", Recovered: true},
			"recover recover [] done tokens stay active, also those revoked since the backup"},
	} {
		dir := t.TempDir() + "/state"
		test.opts.ClusterID = "c-2"
		h, err := fsm.Seed(dir, bytes.NewReader(old.backup()), test.opts)
		if err != nil || h.Audits != 1 || h.Commands != command.Audit {
			t.Fatalf("got %+v, %v, want one entry that needs version %d", h, err, command.Audit)
		}
		s := &machine{t: t, dir: dir, now: m.now}
		s.open()
		if got := s.entries(0); !slices.Equal(got, []string{test.want}) {
			t.Errorf("got %q, want %q", got, test.want)
		}
		s.backup()
		if err := s.f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// WaitAudit returns at the next audit entry. Registrations and ticks do not wake it.
func TestWaitAudit_OtherEntries_DoNotWake(t *testing.T) {
	m := audited(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel() // WaitAudit then reports whether it would block
	at := m.f.Applied()
	m.register(pair("1"))
	m.apply(&command.Tick{})
	if err := m.f.WaitAudit(ended, at); !errors.Is(err, context.Canceled) {
		t.Errorf("a registration: got %v, want %v", err, context.Canceled)
	}
	woken := make(chan error, 1)
	go func() { woken <- m.f.WaitAudit(context.Background(), at) }()
	s := m.f.Settings()
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version)) // no event of the feed
	if err := await.Receive(t, woken, "the end of WaitAudit"); err != nil {
		t.Errorf("settings: got %v, want nil", err)
	}
}

// A log leads to the same state with and without audit, apart from the audit entries. An accepted
// operation leaves exactly one entry. Its detail is "no change" if and only if the operation does
// not change the state without audit.
func TestAudit_RandomHistories_AreComplete(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m, twin := audited(t), withStaff(t)
		twin.trust(nil)
		want := uint64(0)
		for step := range rapid.IntRange(1, 40).Draw(r, "steps") {
			op := anyOp(r, m)
			_, _, before := twin.f.Hashes()
			res, same := m.do(op)[0], twin.do(op)[0]
			_, _, after := twin.f.Hashes()
			if fmt.Sprint(res) != fmt.Sprint(same) {
				r.Fatalf("step %d: %v: got %v, want %v as without audit", step, op, res, same)
			}
			list, err := m.f.AuditAt(m.f.Applied())
			if err != nil {
				r.Fatal(err)
			}
			if res.Err != nil || op.GetRegister() != nil || op.GetSetVoting() != nil {
				if len(list) > 0 {
					r.Fatalf("step %d: %v: got %v, %+v, want no entry", step, op, res.Err, list)
				}
				continue
			}
			if want++; len(list) != 1 || list[0].Actor != op.Actor.ClientId || list[0].Refused {
				r.Fatalf("step %d: %v: got %+v, want one entry", step, op, list)
			}
			detail := list[0].Detail
			// A replaced record gets a new version, even if nothing else differs.
			replaces := op.GetPutClient() != nil || op.GetPutSettings() != nil
			if noChange := detail == revoked.AuditNoChange; res.Unknown != (detail == revoked.AuditUnknown) ||
				!res.Unknown && !replaces && op.GetNote() == nil && op.GetBarNode() == nil && noChange != (before == after) {
				r.Fatalf("step %d: %v: got detail %q, changed %v, unknown %v", step, op, detail, before != after, res.Unknown)
			}
		}
		if n := m.f.Audits(); n != want {
			r.Fatalf("got %d entries, want %d", n, want)
		}
		if rapid.IntRange(0, 3).Draw(r, "compare") == 0 {
			agree(t, m, rapid.IntRange(1, 9).Draw(r, "batch"))
		}
		if err := errors.Join(m.f.Close(), twin.f.Close()); err != nil || len(m.fatal)+len(twin.fatal) > 0 {
			r.Fatalf("got %v, %v, %v", err, m.fatal, twin.fatal)
		}
	})
}

// anyOp returns an operation of any kind by any client, on a few objects.
func anyOp(r *rapid.T, m *machine) *command.Op {
	id := rapid.SampledFrom([]string{"admin", "admin", "admin", "issuer", "ops", "app", "other", "eye"}).Draw(r, "actor")
	if _, exists := m.f.Client(id); !exists {
		id = "admin" // an earlier operation deleted it
	}
	name := rapid.SampledFrom([]string{"x0", "x1", "x2"}).Draw(r, "name")
	ops, _ := opsBy(m, id, name)
	ops["revoke"] = command.RevokeOp(m.by(id), digest("a-"+name), "")
	ops["delete_grant"] = command.DeleteGrantOp(m.by(id), "g-"+name, "")
	ops["withdraw_node"] = command.WithdrawNodeOp(m.by(id), name)
	ops["delete_join_token"] = command.DeleteJoinTokenOp(m.by(id), name)
	if c, exists := m.f.Client(name); exists && rapid.Bool().Draw(r, "update") {
		next := *c
		next.Disabled = rapid.Bool().Draw(r, "disabled")
		ops["put_client"] = command.PutClientOp(m.by(id), &next, c.Version)
	}
	ops["delete_client"] = command.DeleteClientOp(m.by(id), name)
	kinds := make([]string, 0, len(ops))
	for kind := range ops {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return ops[rapid.SampledFrom(append(kinds, "revoke", "register", "revoke")).Draw(r, "kind")]
}

// Expire drops the entries beyond audit_max_entries, the oldest first, and those older than
// audit_retention. A reader that is behind gets ErrGone, and every member drops the same entries.
func TestExpire_Audit_KeepsTheNewest(t *testing.T) {
	m := audited(t)
	s := m.f.Settings()
	s.AuditMaxEntries, s.AuditRetention = 1000, 2*time.Hour
	if op := command.PutSettingsOp(m.by("admin"), s, s.Version); command.VersionOf(op) != command.Audit {
		t.Errorf("settings of the audit log: got version %d, want %d", command.VersionOf(op), command.Audit)
	}
	m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
	first := m.f.Applied()
	for range 10 {
		ops := make([]*command.Op, 120)
		for i := range ops {
			ops[i] = command.RevokeOp(m.by("app"), digest("ghost"), "")
		}
		m.do(ops...)
		m.now = m.now.Add(time.Minute)
	}
	m.later(time.Minute)
	m.drain()
	if n := m.f.Audits(); n != 1000 {
		t.Errorf("got %d entries, want 1000", n)
	}
	_, _, err := m.f.Audit(first, 10)
	wantErr(t, err, revoked.ErrGone)
	list, _, err := m.f.Audit(m.f.Applied()-1, 10)
	if err != nil || len(list) > 0 {
		t.Errorf("at the end: got %v, %v, want no entry", list, err)
	}
	m.sameAs(m.replayed(5))
	m.later(3 * time.Hour)
	m.drain()
	if n := m.f.Audits(); n != 0 {
		t.Errorf("after audit_retention: got %d entries, want none", n)
	}
	m.revoke("app", "ghost")
	if n := m.f.Audits(); n != 1 {
		t.Errorf("a new entry: got %d, want 1", n)
	}
	agree(t, m, 7)
}

// AuditBefore returns the index just before the first entry of a second.
func TestAuditBefore_Times_FindTheirEntries(t *testing.T) {
	m := audited(t)
	var at []uint64
	for range 30 {
		m.revoke("app", "ghost")
		at = append(at, m.f.Applied())
		m.apply(&command.Tick{})
		m.now = m.now.Add(10 * time.Second)
	}
	for i := range at {
		for _, offset := range []time.Duration{0, -5 * time.Second} {
			moment := start.Add(time.Duration(i)*10*time.Second + offset)
			after, err := m.f.AuditBefore(moment)
			list, _, _ := m.f.Audit(after, 1)
			if err != nil || len(list) != 1 || list[0].Index != at[i] {
				t.Errorf("entry %d, %v: got index %d and %+v, %v, want the entry at %d", i, offset, after, list, err, at[i])
			}
		}
	}
	after, err := m.f.AuditBefore(m.now)
	if list, _, _ := m.f.Audit(after, 1); err != nil || len(list) != 0 {
		t.Errorf("after the last entry: got %+v, %v, want none", list, err)
	}
}

// The state with audit entries of each kind of object has golden bytes.
func TestWriteSnapshot_Audit_GoldenBytes(t *testing.T) {
	m := audited(t, command.RegisterRules)
	m.register(pair("1"))
	by := m.by("admin")
	by.RequestID = "req-1"
	jwt := command.RevokeJWTOp(by, &revoked.JWT{Issuer: testIss, JTI: "j-1", ExpiresAt: m.now.Add(time.Hour)}, "leak")
	chunk := command.RevokeJWTOp(by, &revoked.JWT{Issuer: testIss, JTI: "j-2", ExpiresAt: m.now.Add(time.Hour)}, "leak")
	chunk.Origin.Chunk, chunk.Origin.Node = true, "node1"
	m.do(
		command.RevokeOp(by, digest("a-1"), "why"), command.RevokeOp(by, digest("ghost"), ""),
		command.CutoffOp(by, revoked.Selector{Subject: "bob", Session: "s"}, 0, "left"), jwt, chunk,
		command.BanIssuerKeyOp(by, "as1", thumb("a")), command.AdmitNodeOp(by, "node4", true, time.Hour),
		command.CreateJoinTokenOp(by, &revoked.JoinToken{ID: "j-1", Hash: digest("join")}, time.Hour),
		command.NoteOp(by, revoked.AuditEntry{Kind: revoked.AuditSnapshotSave, Refused: true, Detail: "forbidden"}),
		command.DeleteClientOp(by, "other"),
	)
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(goldenSnapshot(t, m, "snapshot-audit")))); err != nil {
		t.Fatal(err)
	}
	if got, want := r.entries(0), m.entries(0); len(got) != 10 || !slices.Equal(got, want) {
		t.Errorf("got %q, want the 10 entries %q", got, want)
	}
}

// A state with a configuration, and with a call that waits for its entry, has golden bytes.
func TestWriteSnapshot_Members_GoldenBytes(t *testing.T) {
	m := audited(t, command.RegisterRules)
	by := m.by("ops")
	by.RequestID, by.Via = "req-1", "node2"
	list := []command.NotedMember{
		{Server: "node1/a", Address: "host1:7601", Voter: true}, {Server: "node4/b", Address: "host4:7601"},
	}
	m.must(command.MembersOp(list, 0))
	since := m.f.Applied()
	m.must(command.SetVotingOp(by, "node4", false, command.VoteAsked))
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(goldenSnapshot(t, m, "snapshot-members")))); err != nil {
		t.Fatal(err)
	}
	if got, index := r.f.NotedMembers(); index != since || !slices.Equal(got, list) {
		t.Errorf("got %v of index %d, want %v of %d", got, index, list, since)
	}
	list[1].Voter = true
	r.now, r.log = m.now, m.log
	r.must(command.MembersOp(list, since))
	e, err := r.f.AuditAt(r.f.Applied())
	if err != nil || len(e) != 1 || e[0].Actor != "ops" || e[0].RequestID != "req-1" || e[0].Node != "node2" {
		t.Errorf("got %+v, %v, want the call of ops at node2", e, err)
	}
}

// Contract 6, "Audit entry": no entry has the subject, the session or the username of a token.
func TestAudit_Tokens_NotInEntries(t *testing.T) {
	m := audited(t)
	r := pair("1")
	r.Subject, r.Session, r.Username = "canary-subject", "canary-session", "canary-name"
	m.register(r)
	m.revoke("app", "a-1")
	j := jwt("t1")
	j.Subject, j.Session, j.ClientID = "canary-subject", "canary-session", "app"
	m.must(command.RevokeJWTOp(m.by("admin"), j, ""))
	m.must(command.PutClientOp(m.by("admin"), confidential("new"), 0))
	list, _, err := m.f.Audit(0, 1000)
	if text := fmt.Sprintf("%+v", list); err != nil || len(list) < 3 || strings.Contains(text, "canary") ||
		strings.Contains(text, "salt") {
		t.Errorf("got %s, %v, want no property of a token and no hash", text, err)
	}
}

// Each change of the configuration leaves one entry: that of the call that requested it, or one of
// the cluster.
func TestAudit_Members_OneEntryForEachChange(t *testing.T) {
	m := audited(t)
	since := uint64(0)
	conf := map[string]string{"node1/a": "h1 voter", "node2/b": "h2 voter", "node3/c": "h3"}
	note := func(want ...string) {
		t.Helper()
		var list []command.NotedMember
		for _, server := range slices.Sorted(maps.Keys(conf)) {
			address, voter, _ := strings.Cut(conf[server], " ")
			list = append(list, command.NotedMember{Server: server, Address: address, Voter: voter != ""})
		}
		m.must(command.MembersOp(list, since))
		since = m.f.Applied()
		if got := m.entries(since - 1); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if res := m.do(command.MembersOp(list, since-1))[0]; !errors.Is(res.Err, revoked.ErrConflict) {
			t.Errorf("a late retry: got %v, want %v", res.Err, revoked.ErrConflict)
		}
	}
	vote := func(request string, nonVoter bool, call uint32, want ...string) {
		t.Helper()
		by := m.by("ops")
		by.RequestID = request
		m.must(command.SetVotingOp(by, "node3", nonVoter, call))
		if got := m.entries(m.f.Applied() - 1); !slices.Equal(got, want) {
			t.Errorf("step %d of %s: got %q, want %q", call, request, got, want)
		}
	}
	note()
	conf["node3/c"] = "h3 voter"
	note("cluster cluster.promote [node3] done it had caught up")
	vote("r1", true, command.VoteAsked)
	conf["node3/c"] = "h3"
	note("ops cluster.demote [node3] done")
	vote("r1", true, command.VoteSettled)
	vote("r2", true, command.VoteAsked)
	vote("r3", false, command.VoteAsked)
	vote("r3", true, command.VoteUndone)
	vote("r2", true, command.VoteSettled, "ops cluster.demote [node3] done no change")
	vote("r4", false, command.VoteAsked)
	vote("r4", false, command.VoteSettled, "ops cluster.promote [node3] done")
	conf["node3/c"] = "h3 voter"
	note("cluster cluster.promote [node3] done it had caught up")
	conf["node3/c"] = "h3"
	note("cluster cluster.demote [node3] done configured as a non-voter")
	conf["node3/c"] = "h33"
	note("cluster cluster.join [node3] done address h33, was h3")
	conf["node2/x"] = "h2"
	note("cluster cluster.join [node2] done new instance x, in addition to b")
	delete(conf, "node2/b")
	note("cluster cluster.remove [node2] done instance b, replaced by x")
	conf["node2/y"] = "h2"
	note("cluster cluster.join [node2] done new instance y, in addition to x")
	m.must(command.BarNodeOp(m.by("ops"), "node2", "disk"))
	delete(conf, "node2/x")
	note()
	delete(conf, "node2/y")
	conf["node4/d"] = "h4" // its entry is that of JoinNode
	note()
	agree(t, m, 5)
}

// The use of a join token with a key leaves an entry that names the token and the member that signs
// the certificate.
func TestAudit_JoinTokenUsed_NamesTheToken(t *testing.T) {
	m := audited(t)
	for _, id := range []string{"t1", "t2"} {
		m.must(command.CreateJoinTokenOp(m.by("ops"), &revoked.JoinToken{ID: id, Hash: digest(id), HasKey: true}, time.Hour))
	}
	after := m.f.Applied()
	m.must(command.JoinWithKeyOp("node4", digest("t1")))
	for range 2 {
		m.must(command.EnrollNodeOp("node5", digest("t2"), digest("key"), "node1"))
	}
	m.must(command.DeleteJoinTokenOp(m.by("ops"), "t2"))
	want := []string{"cluster cluster.join [node4,t1] done", "cluster cluster.admit [node5,t2] done certificate by node1",
		"ops cluster.token [node5,t2] done deleted"}
	if got := m.entries(after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// If a leader fails after it has used up an admission, the join still leaves only one entry.
func TestAudit_JoinRetried_OneEntry(t *testing.T) {
	m := audited(t)
	m.must(command.AdmitNodeOp(m.by("ops"), "node4", false, time.Hour))
	after := m.f.Applied()
	m.do(command.JoinNodeOp("node4", revoked.Digest{}), command.JoinNodeOp("node4", revoked.Digest{}))
	m.must(command.JoinNodeOp("node4", revoked.Digest{}))
	if got := m.entries(after); !slices.Equal(got, []string{"cluster cluster.join [node4] done"}) {
		t.Errorf("got %q, want one entry", got)
	}
}
