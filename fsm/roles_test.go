package fsm_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
)

// staff are clients with the roles of command version 4, by id.
var staff = map[string]revoked.Role{
	"ops": revoked.RoleOperator, "eye": revoked.RoleViewer, "aud": revoked.RoleAuditor,
}

// withStaff creates the clients of staff.
func withStaff(t testing.TB, rules ...uint32) *machine {
	t.Helper()
	m := newMachine(t, rules...)
	for _, id := range []string{"aud", "eye", "ops"} {
		m.must(command.PutClientOp(m.by("admin"), confidential(id, staff[id]), 0))
	}
	return m
}

// opsBy returns one operation by the client id of each kind that has an actor, and the clients that
// may propose each kind. No object may exist with the name fresh yet.
func opsBy(m *machine, id, fresh string) (ops map[string]*command.Op, may map[string][]string) {
	by := m.by(id)
	issuer := revoked.DefaultIssuer()
	issuer.Name, issuer.Issuer, issuer.JWKSURI = fresh, "https://"+fresh+".example", "https://"+fresh+".example/jwks"
	s := m.f.Settings()
	admins, issuers := []string{"admin"}, []string{"admin", "issuer", "issuer2"}
	operators := []string{"admin", "ops"}
	ops = map[string]*command.Op{
		"register":     command.RegisterOp(by, pair(fresh)),
		"delete_grant": command.DeleteGrantOp(by, "g-1", ""),
		"make_cutoff":  command.CutoffOp(by, revoked.Selector{Subject: fresh}, 0, ""),
		"put_client":   command.PutClientOp(by, confidential(fresh), 0), "delete_client": command.DeleteClientOp(by, "other"),
		"put_settings":  command.PutSettingsOp(by, s, s.Version),
		"admit_node":    command.AdmitNodeOp(by, fresh, false, time.Hour),
		"withdraw_node": command.WithdrawNodeOp(by, "node4"), "bar_node": command.BarNodeOp(by, fresh+"-b", "why"),
		"set_voting": command.SetVotingOp(by, fresh, true, 0),
		"create_join_token": command.CreateJoinTokenOp(by,
			&revoked.JoinToken{ID: fresh, Hash: revoked.DigestToken(fresh)}, time.Hour),
		"delete_join_token": command.DeleteJoinTokenOp(by, "j-1"),
		"put_issuer":        command.PutIssuerOp(by, &issuer, 0), "delete_issuer": command.DeleteIssuerOp(by, "as1"),
		"ban_issuer_key": command.BanIssuerKeyOp(by, "as1", thumb("a")),
		"note":           command.NoteOp(by, revoked.AuditEntry{Kind: revoked.AuditClusterTransfer}),
		"revoke_jwt": command.RevokeJWTOp(by,
			&revoked.JWT{Issuer: testIss, JTI: fresh, ExpiresAt: m.now.Add(time.Hour)}, ""),
	}
	may = map[string][]string{
		"register": issuers, "delete_grant": issuers, "make_cutoff": admins, "put_client": admins, "delete_client": admins,
		"put_settings": operators, "admit_node": operators, "withdraw_node": operators, "bar_node": operators,
		"set_voting": operators, "create_join_token": operators, "delete_join_token": operators, "put_issuer": admins,
		"delete_issuer": admins, "ban_issuer_key": admins, "revoke_jwt": issuers,
		"note": operators,
	}
	return ops, may
}

// Contract 6, "Roles": the test proposes each operation by a client of each role. A refusal names
// the permitted roles and changes nothing.
func TestApply_OperationsByRole_MatchTheTable(t *testing.T) {
	for _, id := range []string{"admin", "issuer", "rs", "app", "ops", "eye", "aud"} {
		m := withStaff(t)
		m.must(command.RegisterOp(m.by("issuer"), pair("1")))
		m.must(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Hour))
		m.must(command.CreateJoinTokenOp(m.by("admin"),
			&revoked.JoinToken{ID: "j-1", Hash: revoked.DigestToken("join")}, time.Hour))
		m.trust(nil)
		// The state records the version of the newest operation, even if it is refused.
		m.must(command.NoteOp(m.by("admin"), revoked.AuditEntry{Kind: revoked.AuditClusterTransfer}))
		ops, _ := opsBy(m, id, "fresh")
		for _, kind := range []string{
			"register", "put_settings", "admit_node", "withdraw_node", "bar_node", "set_voting", "create_join_token",
			"delete_join_token", "put_client", "delete_client", "put_issuer", "revoke_jwt", "make_cutoff", "ban_issuer_key",
			"delete_issuer", "delete_grant", "note",
		} {
			fresh, may := opsBy(m, id, "fresh")
			if delete(ops, kind); fresh[kind] == nil {
				t.Fatalf("%s: got no operation", kind)
			}
			_, _, before := m.f.Hashes()
			err := m.do(fresh[kind])[0].Err
			_, _, after := m.f.Hashes()
			// The issuer of the fixtures names no iss, so it may not deny a jti without its token.
			allowed := slices.Contains(may[kind], id)
			refused := errors.Is(err, revoked.ErrForbidden) && strings.Contains(err.Error(), "the caller needs the role admin")
			if refused == allowed || refused && before != after {
				t.Errorf("%s by %s: got %v, changed %v; want allowed %v", kind, id, err, before != after, allowed)
			}
			if allowed && kind != "revoke_jwt" && err != nil {
				t.Errorf("%s by %s: got %v, want success", kind, id, err)
			}
		}
		if len(ops) > 0 {
			t.Errorf("operations that were not tried: %v", ops)
		}
		m.sameAs(m.replayed(len(m.log)))
	}
}

// Every kind of operation is in the table of the test, except revoke and the kinds that no client
// may propose.
func TestOpsBy_Kinds_AreComplete(t *testing.T) {
	m := withStaff(t)
	ops, _ := opsBy(m, "admin", "fresh")
	kinds := (&command.Op{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		switch kind := string(kinds.Get(i).Name()); {
		case kind == "revoke": // the owner of the token decides
		case kind == "join_node", kind == "enroll_node", kind == "put_issuer_keys", kind == "acknowledge",
			kind == "members": // only the leader proposes these
		case ops[kind] == nil:
			t.Errorf("%s: got no operation in the table, want one", kind)
		}
	}
}

// Operators, viewers and auditors can never change a client, a cut-off, an issuer or a token of
// another client.
func TestFSM_StaffHistories_ChangeNoRights(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := withStaff(t)
		m.must(command.RegisterOp(m.by("issuer"), pair("1")))
		m.trust(nil)
		clients, _, _ := snapshotOf(m)
		for step := range rapid.IntRange(1, 20).Draw(r, "steps") {
			id := rapid.SampledFrom([]string{"ops", "eye", "aud"}).Draw(r, "actor")
			ops, _ := opsBy(m, id, rapid.SampledFrom([]string{"x0", "x1", "x2"}).Draw(r, "name"))
			kinds := make([]string, 0, len(ops))
			for kind := range ops {
				kinds = append(kinds, kind)
			}
			slices.Sort(kinds)
			op := ops[rapid.SampledFrom(kinds).Draw(r, "kind")]
			switch rapid.IntRange(0, 3).Draw(r, "twist") {
			case 0: // the client's own record with more roles
				own, _ := m.f.Client(id)
				more := *own
				more.Roles = append(slices.Clone(more.Roles), rapid.SampledFrom(revoked.Roles()[:3]).Draw(r, "role"))
				op = command.PutClientOp(m.by(id), &more, own.Version)
			case 1:
				op = command.RevokeOp(m.by(id), digest("a-1"), "")
			case 2:
				op.Actor.Admin = true // a false claim
			}
			m.do(op)
			got, issuers, live := snapshotOf(m)
			if got != clients || issuers != 1 || !live {
				r.Fatalf("step %d: %s by %s: got clients %s, %d issuers, token active %v; want no change",
					step, command.KindOf(op), id, got, issuers, live)
			}
		}
		if n := len(m.f.Admissions()); n > 6 {
			r.Fatalf("got %d admissions, want those of the names", n)
		}
		m.sameAs(m.replayed(len(m.log)))
	})
}

// snapshotOf returns the records that only an administrator may change.
func snapshotOf(m *machine) (clients string, issuers int, live bool) {
	var b strings.Builder
	for _, c := range m.f.Clients() {
		b.WriteString(command.ClientMessage(c).String() + "\n")
	}
	return b.String(), len(m.f.Issuers()), m.verdict("a-1") == revoked.Active
}

// A state with a newer role needs a program of version 4. A log without such a role keeps its
// version.
func TestWriteSnapshot_OperatorRoles_GoldenBytes(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.must(command.PutClientOp(m.by("admin"), confidential("rs2", revoked.RoleResourceServer), 0))
	if got := m.f.Version(); got != command.RegisterRules {
		t.Errorf("with the oldest roles: got version %d, want %d", got, command.RegisterRules)
	}
	for _, id := range []string{"aud", "eye", "ops"} {
		m.must(command.PutClientOp(m.by("admin"), confidential(id, revoked.RoleIssuer, staff[id]), 0))
	}
	golden := goldenSnapshot(t, m, "snapshot-operators")
	h, err := snapshot.Read(bytes.NewReader(golden), nil)
	if err != nil || h.Commands != 4 || m.f.Version() != 4 {
		t.Errorf("head: got version %d, %v, state %d, want 4", h.Commands, err, m.f.Version())
	}
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(golden))); err != nil {
		t.Fatal(err)
	}
	if got := r.f.Version(); got != 4 {
		t.Errorf("after a restore: got version %d, want 4", got)
	}
	for id, role := range staff {
		if c, ok := r.f.Client(id); !ok || !slices.Equal(c.Roles, []revoked.Role{revoked.RoleIssuer, role}) {
			t.Errorf("%s: got %+v, want the roles issuer and %s", id, c, role)
		}
	}
}

// Every version skips a bootstrap record that has a newer role without the field operator_roles.
func TestBootstrap_OperatorRoles_SetTheVersion(t *testing.T) {
	for announced, want := range map[bool]uint32{true: 4, false: 1} {
		m := empty(t)
		recs := append(clientRecords(), command.ClientMessage(confidential("ops", revoked.RoleOperator)))
		recs[len(recs)-1].OperatorRoles = announced
		m.apply(&command.Bootstrap{ClusterId: "c-1", Settings: command.SettingsMessage(testSettings()), Clients: recs})
		if _, ok := m.f.Client("ops"); ok != announced || m.f.Version() != want {
			t.Errorf("announced %v: got a client %v and version %d, want version %d", announced, ok, m.f.Version(), want)
		}
	}
}

// The last administrator cannot be removed, whatever other roles exist.
func TestPutClient_OnlyOperatorsLeft_Refused(t *testing.T) {
	m := withStaff(t)
	admin, _ := m.f.Client("admin")
	demoted := *admin
	demoted.Roles = []revoked.Role{revoked.RoleOperator, revoked.RoleViewer, revoked.RoleAuditor}
	wantErr(t, m.do(command.PutClientOp(m.by("admin"), &demoted, admin.Version))[0].Err, revoked.ErrUnprocessable)
	wantErr(t, m.do(command.DeleteClientOp(m.by("admin"), "admin"))[0].Err, revoked.ErrUnprocessable)
}
