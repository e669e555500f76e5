package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// beginHistory applies the operation that begins the history.
func (m *machine) beginHistory() { m.must(command.AcknowledgeOp(nil)) }

// asOf returns the state of a token at a given time.
func (m *machine) asOf(token string, at revoked.Time) revoked.PastAnswer {
	m.t.Helper()
	h, err := m.f.History(digest(token))
	if err != nil {
		m.t.Fatal(err)
	}
	return revoked.AsOf(&h, at)
}

// recorded is the decision of introspection at a given time.
type recorded struct {
	at       revoked.Time
	decision revoked.Decision
}

// state returns the past state of a decision.
func (r *recorded) state() revoked.PastState {
	switch r.decision.Verdict {
	case revoked.Active:
		return revoked.PastActive
	case revoked.Unknown:
		return revoked.PastUnknown
	}
	return revoked.PastInactive
}

// A record has the decisions of introspection after each entry, by token. It is the model of AsOf.
type record map[string][]recorded

// take records the current decisions.
func (rec record) take(m *machine, names []string) {
	m.t.Helper()
	for _, n := range names {
		r, err := lookup(m.f, digest(n))
		if err != nil {
			m.t.Fatal(err)
		}
		d, err := m.f.Decide(&r, m.now)
		if err != nil {
			m.t.Fatal(err)
		}
		rec[n] = append(rec[n], recorded{m.now, d})
	}
}

// compare checks AsOf against every recorded decision. Only removed records may give not_held.
func (rec record) compare(t *rapid.T, m *machine, what string) {
	for name, list := range rec {
		h, err := m.f.History(digest(name))
		if err != nil {
			t.Fatal(err)
		}
		byTime := map[revoked.Time]*recorded{}
		for i := range list {
			byTime[list[i].at] = &list[i]
		}
		for i := range list {
			r := &list[i]
			got := revoked.AsOf(&h, r.at)
			want := r.state()
			switch {
			case got.State == revoked.PastNotHeld && !h.Record.Found && r.at < h.Reaped:
				continue
			case got.State == revoked.PastNotHeld && r.at < h.Undenied:
				continue // a denial of the token may have been dropped
			case want == revoked.PastUnknown && got.State == revoked.PastInactive && !h.Record.Found && h.Ended != nil:
				continue // a tombstone or a denial has a reason that introspection did not give
			case got.State != want:
				t.Fatalf("%s: %s at %d: got %+v, want %s (%s)\nhistory %+v", what, name, r.at-start, got, want,
					r.decision.Reason, h)
			}
			if !h.Record.Found { // a denial that outlived the record: it has a reason of its own
				continue
			}
			since := byTime[got.Since] // before Undenied the token may have been denied, too
			if since != nil && since.decision.Reason != got.Reason && got.Since >= h.Undenied {
				t.Fatalf("%s: %s at %d: got reason %q since %d, want %q", what, name, r.at-start, got.Reason,
					got.Since-start, since.decision.Reason)
			}
			if got.State != revoked.PastUnknown {
				rec.checkSpan(t, name, r, got, h.Undenied)
			}
		}
	}
}

// checkSpan checks that the state did not change between Since and Until, and changed at Until.
// Before undenied, a token may have been denied for a while. Until is then unknown.
func (rec record) checkSpan(t *rapid.T, name string, r *recorded, got revoked.PastAnswer, undenied revoked.Time) {
	for i := range rec[name] {
		o := &rec[name][i]
		if got.Since == 0 && o.at < undenied { // unknown
			continue
		}
		within := o.at >= got.Since && (got.Until == 0 && (o.at <= r.at || r.at >= undenied) || o.at < got.Until)
		if within && o.state() != got.State || o.at == got.Until && o.state() == got.State {
			t.Fatalf("%s at %d: got %+v, but at %d it was %s", name, r.at-start, got, o.at-start, o.state())
		}
	}
}

// In random histories, the past states match what introspection returned at that time, even after
// expiry, a backup and a replay.
func TestAsOf_RandomHistories_MatchIntrospection(t *testing.T) {
	names := []string{"t0", "t1", "t2", "t3", "t4", "t5"}
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		m.trust(nil)
		m.beginHistory()
		rec := record{}
		pick := func(l ...string) string { return rapid.SampledFrom(l).Draw(r, "pick") }
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 1000).Draw(r, "ms")) * time.Millisecond)
			m.apply(&command.Tick{})
			rec.take(m, names)
			m.now++
			m.pastStep(r, names, pick)
			rec.take(m, names)
		}
		rec.compare(r, m, "as it is")
		for range 3 { // later changes do not affect the past
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 50).Draw(r, "minutes")) * time.Minute)
			m.apply(&command.Tick{})
			rec.take(m, names)
			m.now++
			m.drain()
			rec.take(m, names)
		}
		rec.compare(r, m, "after expiry")
		restored := empty(t)
		if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
			r.Fatal(err)
		}
		rec.compare(r, restored, "after a restore")
		replayed := m.replayed(rapid.IntRange(1, 9).Draw(r, "batch"))
		m.sameAs(replayed)
		m.sameAs(restored)
		rec.compare(r, replayed, "after a replay")
		if len(m.fatal) > 0 {
			r.Fatalf("fatal: got %v, want none", m.fatal)
		}
		for _, v := range []*machine{m, restored, replayed} {
			if err := v.f.Close(); err != nil {
				r.Fatal(err)
			}
		}
	})
}

// pastStep applies one random entry.
func (m *machine) pastStep(r *rapid.T, names []string, pick func(...string) string) {
	switch rapid.IntRange(0, 15).Draw(r, "step") {
	case 0, 1, 2, 3:
		m.registerRandom(r, names, pick)
	case 4:
		m.do(command.RevokeOp(m.by(pick("admin", "issuer")), digest(pick(names...)), ""))
	case 5, 6:
		sel := revoked.Selector{ClientID: pick("app", "other")}
		switch rapid.IntRange(0, 2).Draw(r, "selector") {
		case 1:
			sel = revoked.Selector{Subject: pick("alice", "bob")}
		case 2:
			sel.GrantID = pick("g0", "g1")
		}
		before := start.Add(time.Duration(rapid.IntRange(-3, 3).Draw(r, "minute")) * time.Minute)
		m.do(command.CutoffOp(m.by("admin"), sel, min(before, m.now), ""))
	case 7, 8:
		m.changeClient(pick("app", "other"))
	case 9:
		m.do(command.DeleteClientOp(m.by("admin"), pick("app", "other")))
	case 10:
		j := revoked.JWT{Issuer: testIss, JTI: "jti-" + pick(names...)}
		if minutes := rapid.IntRange(0, 60).Draw(r, "denied for minutes"); minutes > 0 {
			j.ExpiresAt = m.now.Add(time.Duration(minutes) * time.Minute)
		}
		m.do(command.RevokeJWTOp(m.by("admin"), &j, ""))
	case 11:
		if c := m.f.Backlog(m.now, atMost); c != nil {
			m.apply(c)
		}
	case 12:
		m.do(command.DeleteGrantOp(m.by("admin"), pick("g0", "g1", "g2"), ""))
	case 13:
		m.do(command.DeleteIssuerOp(m.by("admin"), pick("as1", "as2")))
	case 14:
		i := revoked.DefaultIssuer()
		i.Name, i.Issuer, i.Keys = pick("as1", "as2"), testIss, issuerKeys("a")
		i.MaxLifetime = time.Duration(rapid.IntRange(1, 60).Draw(r, "lifetime")) * time.Minute
		version := uint64(0)
		if old := m.f.Issuer(testIss); old != nil && old.Name == i.Name {
			version = old.Version
		}
		m.do(command.PutIssuerOp(m.by("admin"), &i, version))
	case 15:
		m.do(command.BanIssuerKeyOp(m.by("admin"), pick("as1", "as2"), thumb("a")))
	}
}

// registerRandom registers one or two tokens, each with its own issued_at.
func (m *machine) registerRandom(r *rapid.T, names []string, pick func(...string) string) {
	reg := pair("x")
	reg.GrantID, reg.ClientID, reg.Subject = pick("g0", "g1", "g2"), pick("app", "other"), pick("alice", "bob", "")
	reg.Issuer, reg.Tokens = pick(testIss, "https://as.example"), nil
	for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 2, rapid.ID).Draw(r, "tokens") {
		i := time.Duration(n[1]-'0') - 2
		spec := access(n, start.Add(i*time.Minute), time.Duration(20-5*i)*time.Minute)
		spec.NotBefore = start.Add(time.Duration(rapid.IntRange(-1, 1).Draw(r, "nbf")) * 3 * time.Second)
		if n >= "t3" {
			spec = refresh(n, start.Add((i-3)*time.Second), 2*time.Hour)
			spec.JTI = "jti-" + n
		}
		reg.Tokens = append(reg.Tokens, spec)
	}
	m.do(command.RegisterOp(m.by("issuer"), reg))
}

// changeClient disables a client, enables it, or creates it.
func (m *machine) changeClient(id string) {
	if c, ok := m.f.Client(id); ok {
		next := *c
		next.Disabled = !next.Disabled
		m.do(command.PutClientOp(m.by("admin"), &next, c.Version))
		return
	}
	m.do(command.PutClientOp(m.by("admin"), confidential(id), 0))
}

func TestAsOf_TokensOfALargeGrant_EndWithItsTombstone(t *testing.T) {
	m := newMachine(t)
	m.beginHistory()
	reg := pair("1")
	reg.Tokens = nil
	var names []string
	for i := range 70 {
		names = append(names, fmt.Sprint("a-", i))
	}
	for _, part := range [][]string{names[:60], names[60:]} {
		reg.Tokens = nil
		for _, n := range part {
			reg.Tokens = append(reg.Tokens, access(n, start, time.Hour))
		}
		m.register(reg)
	}
	m.later(time.Second)
	m.revoke("app", "last") // not registered yet
	m.later(time.Second)
	before := m.now
	reg.Tokens = []revoked.TokenRegistration{access("last", start, time.Hour)}
	m.now = m.now.Add(time.Second)
	index := m.register(reg).Index
	ended := m.now
	m.later(time.Minute)
	for _, when := range []string{"before compaction", "after it"} {
		for _, n := range []string{"a-3", "a-69"} {
			if got := m.asOf(n, before); got.State != revoked.PastActive || got.Until != ended {
				t.Errorf("%s %s: got %+v before the registration, want active until %d", n, when, got, ended)
			}
			got := m.asOf(n, m.now)
			if got.State != revoked.PastInactive || got.Reason != revoked.ReasonRevoked || got.Since != ended ||
				got.Index != index {
				t.Errorf("%s %s: got %+v, want inactive since %d by index %d", n, when, got, ended, index)
			}
		}
		m.drain()
	}
}

// A second cut-off replaces the first one in the state, but tokens stay inactive since the first.
func TestAsOf_SuccessiveCutoffs_InactiveSinceFirst(t *testing.T) {
	m := newMachine(t)
	m.beginHistory()
	m.register(pair("1"))
	var ended []revoked.Time
	for range 2 {
		m.later(time.Minute)
		m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, 0, ""))
		ended = append(ended, m.now)
	}
	index := uint64(len(m.log) - 2) // index of the first cut-off: a tick and the second cut-off follow
	m.later(time.Minute)
	for _, when := range []string{"before compaction", "after it"} {
		for _, at := range []revoked.Time{ended[0], ended[1] - 1, ended[1], m.now} {
			got := m.asOf("a-1", at)
			if got.State != revoked.PastInactive || got.Since != ended[0] || got.Reason != revoked.ReasonCutOff ||
				got.Index != index {
				t.Errorf("at %d %s: got %+v, want inactive since the first cut-off, index %d", at-start, when, got, index)
			}
		}
		if got := m.asOf("a-1", ended[0]-1); got.State != revoked.PastActive || got.Until != ended[0] {
			t.Errorf("before %s: got %+v, want active until the first cut-off", when, got)
		}
		m.drain()
	}
}

func TestAsOf_WithoutAHistory_NotHeld(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	if got := m.asOf("a-1", m.now); got.State != revoked.PastNotHeld {
		t.Errorf("without a history: got %+v, want not_held", got)
	}
	m.later(time.Second)
	m.beginHistory()
	since := m.now
	if got := m.asOf("a-1", since-1); got.State != revoked.PastNotHeld {
		t.Errorf("before the history: got %+v, want not_held", got)
	}
	m.later(time.Second)
	if got := m.asOf("a-1", m.now); got.State != revoked.PastActive || got.Since != 0 {
		t.Errorf("registered before the history: got %+v, want active since an unknown time", got)
	}
	m.revoke("app", "a-1")
	ended := m.now
	m.later(time.Second)
	if got := m.asOf("a-1", m.now); got.State != revoked.PastInactive || got.Since != ended {
		t.Errorf("revoked: got %+v, want inactive since %d", got, ended)
	}
	if got := m.asOf("a-1", ended-1); got.State != revoked.PastActive || got.Until != ended {
		t.Errorf("before: got %+v, want active until %d", got, ended)
	}
}

func TestAsOf_TokenRecordDropped_NotHeldBefore(t *testing.T) {
	m := newMachine(t)
	m.beginHistory()
	m.register(pair("1"))
	m.later(time.Minute)
	live := m.now
	m.later(25 * time.Hour)
	m.drain()
	reaped := m.now
	m.later(time.Second)
	for at, want := range map[revoked.Time]revoked.PastState{
		live: revoked.PastNotHeld, reaped - 1: revoked.PastNotHeld, reaped: revoked.PastUnknown, m.now: revoked.PastUnknown,
	} {
		if got := m.asOf("a-1", at); got.State != want {
			t.Errorf("at %d: got %+v, want %s", at-start, got, want)
		}
	}
}

func TestFinalAt_Records_ExactOrLaterBound(t *testing.T) {
	m := newMachine(t)
	for len(m.log) < 50 {
		m.later(time.Millisecond)
	}
	record := func(list ...revoked.Acknowledgement) { m.must(command.AcknowledgeOp(list)) }
	final := func(index uint64, at revoked.Time) revoked.Acknowledgement {
		return revoked.Acknowledgement{Index: index, AppliedAt: at - 5, At: at, WaitedFor: []string{"node2", "node3"}}
	}
	record(final(40, start+10), final(44, start+30))
	record(final(42, start+25)) // recorded after 44, because its goroutine ran later
	record(final(50, start+50))
	replayed, restored := m.replayed(7), empty(t)
	if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatal(err)
	}
	for index, want := range map[uint64]struct{ exact, before revoked.Time }{
		39: {0, start + 10}, 40: {start + 10, 0}, 41: {0, start + 25}, 42: {start + 25, 0}, 43: {0, start + 30},
		44: {start + 30, 0}, 45: {0, start + 50}, 50: {start + 50, 0}, 51: {},
	} {
		for _, f := range []*fsm.FSM{m.f, replayed.f, restored.f} {
			exact, before, err := f.FinalAt(index)
			if err != nil {
				t.Fatal(err)
			}
			var at revoked.Time
			if exact != nil {
				at = exact.At
				if !slices.Equal(exact.WaitedFor, []string{"node2", "node3"}) {
					t.Errorf("index %d: got a wait for %v, want node2 and node3", index, exact.WaitedFor)
				}
			}
			if at != want.exact || before != want.before {
				t.Errorf("index %d: got %d or before %d, want %d or before %d", index, at, before, want.exact, want.before)
			}
		}
	}
	m.register(pair("1"))
	m.later(m.f.Settings().CutoffRetention + time.Hour)
	m.drain()
	if exact, before, err := m.f.FinalAt(40); exact != nil || before != 0 || err != nil {
		t.Errorf("after the retention: got %v, %d, %v, want nothing", exact, before, err)
	}
	m.sameAs(m.replayed(3))
}

// The rows about clients and replaced cut-offs are dropped after their retention. AsOf then returns
// not_held for earlier times.
func TestAsOf_RowsOfTheHistoryDropped_NotHeldBefore(t *testing.T) {
	m := newMachine(t)
	m.beginHistory()
	reg := pair("1")
	reg.Tokens[0].ExpiresAt, reg.Tokens[1].ExpiresAt = 0, 0
	m.register(reg)
	for range 3 {
		m.later(time.Minute)
		m.changeClient("app")
	}
	m.changeClient("app")
	m.later(time.Minute)
	m.do(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, start, ""))
	m.later(time.Minute)
	m.do(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, ""))
	old := m.now
	if got := m.asOf("a-1", start.Add(90*time.Second)); got.Reason != revoked.ReasonClientDisabled || got.Index == 0 {
		t.Errorf("got %+v, want inactive: client_disabled", got)
	}
	m.later(m.f.Settings().CutoffRetention + time.Hour)
	m.drain()
	if got := m.asOf("a-1", old-1); got.State != revoked.PastNotHeld {
		t.Errorf("before the floor: got %+v, want not_held", got)
	}
	if got := m.asOf("a-1", m.now); got.State != revoked.PastActive {
		t.Errorf("now: got %+v, want active", got)
	}
	m.sameAs(m.replayed(3))
}

// The history, and the times at which entries became final, stay as long as the audit log or the
// cut-offs, whichever is longer. After that, AsOf returns not_held.
func TestAsOf_Retention_FollowsAuditRetention(t *testing.T) {
	for _, test := range []struct{ cutoffs, audit time.Duration }{{24 * time.Hour, 72 * time.Hour},
		{72 * time.Hour, 24 * time.Hour}} {
		m := newMachine(t)
		m.beginHistory()
		s := m.f.Settings()
		s.CutoffRetention, s.AuditRetention = test.cutoffs, test.audit
		m.must(command.PutSettingsOp(m.by("admin"), s, s.Version))
		reg := pair("1")
		reg.Tokens[0].ExpiresAt, reg.Tokens[1].ExpiresAt = 0, 0
		m.register(reg)
		m.later(time.Minute)
		m.changeClient("app") // disabled
		index, disabled := m.f.Applied()-1, m.now
		m.must(command.AcknowledgeOp([]revoked.Acknowledgement{{Index: index, AppliedAt: m.now, At: m.now}}))
		m.later(time.Minute)
		m.changeClient("app")
		m.later(71 * time.Hour)
		m.drain()
		exact, _, err := m.f.FinalAt(index)
		if got := m.asOf("a-1", disabled); got.State != revoked.PastInactive || got.Reason != revoked.ReasonClientDisabled ||
			err != nil || exact == nil {
			t.Errorf("%v: before the end: got %+v, %v, %v, want inactive, and when that was final", test, got, exact, err)
		}
		m.later(2 * time.Hour)
		m.drain()
		exact, before, err := m.f.FinalAt(index)
		if got := m.asOf("a-1", disabled); got.State != revoked.PastNotHeld || err != nil || exact != nil || before != 0 {
			t.Errorf("%v: after the end: got %+v, %v, %v, %v, want not_held", test, got, exact, before, err)
		}
		if got := m.asOf("a-1", m.now); got.State != revoked.PastActive {
			t.Errorf("%v: now: got %+v, want active", test, got)
		}
	}
}

// Under older rules, a denial of a jti may end before the registered token, which is then active
// again. For the time before that, the state is unknown. A token that had ended before is not
// affected.
func TestAsOf_DenialDropped_NotHeldBefore(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.trust(nil)
	m.beginHistory()
	for _, n := range []string{"1", "2", "3"} {
		reg := pair(n)
		reg.Issuer = testIss
		reg.Tokens[0].ExpiresAt = reg.Tokens[0].IssuedAt.Add(3 * time.Hour)
		if n == "3" {
			reg.Issuer = "https://not-trusted.example"
		}
		m.register(reg)
	}
	m.later(time.Second)
	active := m.now
	m.must(command.RevokeJWTOp(m.by("admin"),
		&revoked.JWT{Issuer: testIss, JTI: "jti-a-1", ExpiresAt: m.now.Add(time.Minute)}, ""))
	m.revoke("app", "a-2")
	m.later(time.Second)
	denied := m.now
	if got := m.asOf("a-1", denied); got.State != revoked.PastInactive || got.Reason != revoked.ReasonDenied {
		t.Errorf("while denied: got %+v, want inactive: denied", got)
	}
	m.drain()
	m.later(2 * time.Minute)
	m.drain()
	dropped := m.now
	m.later(time.Second)
	for _, test := range []struct {
		token string
		at    revoked.Time
		want  revoked.PastState
	}{
		{"a-1", denied, revoked.PastNotHeld}, {"a-1", dropped, revoked.PastActive}, {"a-1", m.now, revoked.PastActive},
		{"a-2", active - 1, revoked.PastActive}, {"a-2", denied, revoked.PastInactive},
		{"a-3", denied, revoked.PastActive}, {"r-1", denied, revoked.PastActive}, // no jti, or no trusted issuer
	} {
		if got := m.asOf(test.token, test.at); got.State != test.want {
			t.Errorf("%s at %d: got %+v, want %s", test.token, test.at-start, got, test.want)
		}
	}
	m.sameAs(m.replayed(3))
}

// A restore keeps the history of the backup. The time from the backup to the restore is a gap.
func TestAsOf_AfterARestore_GapIsNotHeld(t *testing.T) {
	for _, accept := range []bool{false, true} {
		m := newMachine(t)
		m.beginHistory()
		m.register(pair("1"))
		m.register(pair("2"))
		m.later(time.Second)
		m.revoke("app", "a-2")
		m.later(time.Second)
		backed := m.now
		dir := filepath.Join(t.TempDir(), "state")
		moment := backed.Add(time.Minute)
		_, err := fsm.Seed(dir, bytes.NewReader(m.backup()),
			fsm.SeedOptions{ClusterID: "c-2", Before: moment, AcceptLoss: accept, Reason: "test"})
		if err != nil {
			t.Fatal(err)
		}
		r := &machine{t: t, dir: dir, now: moment}
		r.open()
		defer r.f.Close()
		after := revoked.PastInactive
		if accept {
			after = revoked.PastActive
		}
		for at, want := range map[revoked.Time]revoked.PastState{
			backed: revoked.PastActive, backed.Add(time.Second): revoked.PastNotHeld, moment: after,
		} {
			if got := r.asOf("a-1", at); got.State != want {
				t.Errorf("loss accepted %t: at %d: got %+v, want %s", accept, at-start, got, want)
			}
		}
		if got := r.asOf("a-2", backed.Add(time.Second)); got.State != revoked.PastInactive {
			t.Errorf("loss accepted %t: revoked before the backup: got %+v, want inactive", accept, got)
		}
	}
}

// Only the cluster itself proposes an acknowledgement, so the audit log has no entry of it.
func TestAcknowledge_AuditedBatch_LeavesNoEntry(t *testing.T) {
	m := newMachine(t)
	m.audited = true
	m.beginHistory()
	m.must(command.AcknowledgeOp([]revoked.Acknowledgement{{Index: 1, AppliedAt: start, At: start}}))
	restored := empty(t)
	if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatalf("got %v, want a snapshot with valid rows", err)
	}
	if command.IsAudited(command.AcknowledgeOp(nil)) {
		t.Error("got an audited operation, want none")
	}
}
