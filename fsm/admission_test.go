package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

func (m *machine) token(id, secret, node string, nonVoter bool, ttl time.Duration) *command.Op {
	return command.CreateJoinTokenOp(m.by("admin"),
		&revoked.JoinToken{ID: id, Hash: revoked.DigestToken(secret), Node: node, NonVoter: nonVoter}, ttl)
}

// join applies the join of a node with a token; an empty secret means no token.
func (m *machine) join(node, secret string) error {
	var hash revoked.Digest
	if secret != "" {
		hash = revoked.DigestToken(secret)
	}
	return m.do(command.JoinNodeOp(node, hash))[0].Err
}

// The highest version of a command in the log is part of the state: it survives a replay and a
// snapshot. The rules of a batch and its operations both raise it.
func TestVersion_NewerCommand_IsRecorded(t *testing.T) {
	for name, newer := range map[string]func(*machine){
		"rules": func(m *machine) {
			m.rules = command.RegisterRules
			m.do(command.DeleteGrantOp(m.by("admin"), "none", ""))
		},
		"operation": func(m *machine) { m.must(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.rules = 0
			m.do(command.DeleteGrantOp(m.by("admin"), "none", ""))
			if got := m.f.Version(); got != 1 {
				t.Errorf("before: got %d, want 1", got)
			}
			newer(m)
			m.rules = 0
			m.do(command.DeleteGrantOp(m.by("admin"), "none", ""))
			replayed, restored := m.replayed(3), empty(t)
			if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
				t.Fatal(err)
			}
			m.sameAs(replayed)
			for at, v := range map[string]*machine{"": m, "replayed": replayed, "restored": restored} {
				if got := v.f.Version(); got != 2 {
					t.Errorf("%s: got %d, want 2", at, got)
				}
			}
		})
	}
}

func TestJoinNode_Admission_UsedOnce(t *testing.T) {
	m := newMachine(t)
	err := m.join("node4", "")
	wantErr(t, err, revoked.ErrForbidden)
	want := "node4 is not admitted: admit it with `revoked admit node4`, or give it a join token"
	if revoked.Detail(err) != want {
		t.Errorf("got %q, want %q", revoked.Detail(err), want)
	}
	m.must(command.AdmitNodeOp(m.by("admin"), "node4", true, time.Hour))
	if a, ok := m.f.Admission("node4"); !ok || !a.Open(m.now) || a.ExpiresAt != m.now.Add(time.Hour) || a.By != "admin" {
		t.Errorf("got %+v, %v, want an admission by admin for an hour", a, ok)
	}
	for range 2 { // a retry of an unfinished join
		if err := m.join("node4", ""); err != nil {
			t.Fatalf("join: got %v, want success", err)
		}
	}
	if a, _ := m.f.Admission("node4"); a.State != revoked.Joined || !a.NonVoter || a.By != "admin" {
		t.Errorf("got %+v, want it joined as a non-voter", a)
	}
	m.must(command.WithdrawNodeOp(revoked.Actor{}, "node4")) // the node left
	wantErr(t, m.join("node4", ""), revoked.ErrForbidden)
	m.sameAs(m.replayed(3))
}

func TestJoinNode_ExpiredAdmission_Refused(t *testing.T) {
	m := newMachine(t)
	m.must(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Minute))
	m.later(time.Minute)
	wantErr(t, m.join("node4", ""), revoked.ErrForbidden)
	m.later(time.Minute)
	m.drain()
	if list := m.f.Admissions(); len(list) != 0 {
		t.Errorf("got %+v, want it expired", list)
	}
}

func TestBarNode_UntilAdmitted_Refused(t *testing.T) {
	m := newMachine(t)
	m.must(m.token("old", "old secret", "node4", false, time.Hour))
	m.must(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Hour))
	m.must(command.BarNodeOp(revoked.Actor{}, "node4", "stolen"))
	m.must(m.token("open", "open secret", "", false, time.Hour))
	for _, secret := range []string{"", "old secret", "open secret"} {
		wantErr(t, m.join("node4", secret), revoked.ErrForbidden)
	}
	m.later(1000 * time.Hour)
	m.drain()
	if a, ok := m.f.Admission("node4"); !ok || a.State != revoked.Barred || a.Reason != "stolen" {
		t.Errorf("got %+v, %v, want it barred", a, ok)
	}
	m.must(command.WithdrawNodeOp(m.by("admin"), "node4"))
	if a, _ := m.f.Admission("node4"); a.State != revoked.Barred {
		t.Errorf("after a withdrawal: got %+v, want it barred", a)
	}
	m.must(m.token("new", "new secret", "node4", false, time.Hour))
	if err := m.join("node4", "new secret"); err != nil {
		t.Errorf("token that names the barred node: got %v, want success", err)
	}
	m.must(command.BarNodeOp(m.by("admin"), "node4", ""))
	m.must(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Hour))
	if err := m.join("node4", ""); err != nil {
		t.Errorf("admitted again: got %v, want success", err)
	}
}

func TestJoinToken_OneNode_OneUse(t *testing.T) {
	m := newMachine(t)
	m.must(m.token("t1", "secret 1", "", true, time.Hour))
	m.must(m.token("t1", "secret 1", "", true, time.Hour)) // a retry
	wantErr(t, m.do(m.token("t1", "secret 2", "", true, time.Hour))[0].Err, revoked.ErrConflict)
	wantErr(t, m.do(m.token("t2", "secret 1", "", true, time.Hour))[0].Err, revoked.ErrConflict)
	m.must(m.token("t2", "secret 2", "node5", false, time.Hour))
	m.must(m.token("t3", "secret 3", "", false, time.Hour))
	m.must(command.DeleteJoinTokenOp(m.by("admin"), "t3"))
	m.must(command.DeleteJoinTokenOp(m.by("admin"), "t3"))
	wantErr(t, m.do(command.DeleteJoinTokenOp(m.by("admin"), "t9"))[0].Err, revoked.ErrNotFound)

	wantErr(t, m.join("node4", "secret 2"), revoked.ErrForbidden) // the token is for another node
	wantErr(t, m.join("node4", "secret 3"), revoked.ErrForbidden) // the token was deleted
	wantErr(t, m.join("node4", "no such"), revoked.ErrForbidden)
	// If two nodes join in one entry, only the first one may use the token.
	h := revoked.DigestToken("secret 1")
	res := m.do(command.JoinNodeOp("node4", h), command.JoinNodeOp("node6", h), command.JoinNodeOp("node4", h))
	if res[0].Err != nil || res[2].Err != nil {
		t.Errorf("join and retry: got %v and %v, want success", res[0].Err, res[2].Err)
	}
	wantErr(t, res[1].Err, revoked.ErrForbidden)
	tok, ok := m.f.JoinToken("t1")
	if !ok || tok.UsedBy != "node4" || tok.UsedAt != m.now || tok.State(m.now) != revoked.JoinTokenUsed || tok.Hash != h {
		t.Errorf("got %+v, %v, want it used by node4", tok, ok)
	}
	if a, _ := m.f.Admission("node4"); !a.NonVoter || a.By != "admin" {
		t.Errorf("got %+v, want a non-voter, admitted by admin", a)
	}
	m.must(command.WithdrawNodeOp(revoked.Actor{}, "node4"))
	wantErr(t, m.join("node4", "secret 1"), revoked.ErrForbidden)

	m.later(time.Hour)
	wantErr(t, m.join("node5", "secret 2"), revoked.ErrForbidden)
	if tok, _ := m.f.JoinToken("t2"); tok.State(m.now) != revoked.JoinTokenExpired {
		t.Errorf("got %+v, want it expired", tok)
	}
	m.later(23*time.Hour - time.Minute)
	m.drain()
	if list := m.f.JoinTokens(); len(list) != 3 {
		t.Errorf("tokens within a day: got %+v, want 3", list)
	}
	m.later(2 * time.Hour)
	m.drain()
	if list := m.f.JoinTokens(); len(list) != 0 {
		t.Errorf("tokens after a day: got %+v, want none", list)
	}
	m.sameAs(m.replayed(2))
}

func (m *machine) keyToken(id, key, node string) *command.Op {
	return command.CreateJoinTokenOp(m.by("admin"),
		&revoked.JoinToken{ID: id, Hash: revoked.DigestToken(key), HasKey: true, Node: node}, time.Hour)
}

// The public key of a token is not secret, so it must not be accepted as a token of the older form.
func TestJoinToken_OtherForm_Refused(t *testing.T) {
	m := newMachine(t)
	m.must(m.keyToken("t1", "key", ""))
	m.must(m.token("t2", "secret", "", false, time.Hour))
	wantErr(t, m.join("node4", "key"), revoked.ErrForbidden)
	wantErr(t, m.do(command.JoinWithKeyOp("node4", revoked.DigestToken("secret")))[0].Err, revoked.ErrForbidden)
	m.must(command.JoinWithKeyOp("node4", revoked.DigestToken("key")))
	if err := m.join("node5", "secret"); err != nil {
		t.Errorf("older form: got %v, want success", err)
	}
	if a, _ := m.f.Admission("node4"); a.JoinToken != "t1" || a.State != revoked.Joined {
		t.Errorf("got %+v, want it joined with t1", a)
	}
	if a, _ := m.f.Admission("node5"); a.JoinToken != "" {
		t.Errorf("older form: got %+v, want no token", a)
	}
	restored := empty(t)
	if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatal(err)
	}
	m.sameAs(restored)
	m.sameAs(m.replayed(3))
}

// A join token admits one node for a certificate with one key. The node then joins with that
// admission.
func TestEnrollNode_OneNodeAndKey_UntilTheTokenEnds(t *testing.T) {
	m := newMachine(t)
	key, other := revoked.DigestToken("node key"), revoked.DigestToken("other key")
	enroll := func(node, token string, key revoked.Digest) error {
		return m.do(command.EnrollNodeOp(node, revoked.DigestToken(token), key, "node1"))[0].Err
	}
	want := func(what string, err, sentinel error, text string) {
		t.Helper()
		wantErr(t, err, sentinel)
		if got := revoked.Detail(err); got != text {
			t.Errorf("%s: got %q, want %q", what, got, text)
		}
	}
	const ended, used = "join token: unknown, deleted or expired: create another",
		"join token: another node or another key has used it"
	m.must(m.keyToken("t1", "t1", ""))
	m.must(m.keyToken("named", "named", "node9"))
	m.must(m.keyToken("gone", "gone", ""))
	m.must(m.token("older", "older", "", false, time.Hour))
	m.must(command.DeleteJoinTokenOp(m.by("admin"), "gone"))
	want("unknown", enroll("node4", "none", key), revoked.ErrForbidden, ended)
	want("deleted", enroll("node4", "gone", key), revoked.ErrForbidden, ended)
	want("without a key", enroll("node4", "older", key), revoked.ErrForbidden, ended)
	want("for another node", enroll("node4", "named", key), revoked.ErrForbidden, "join token is for another node")
	for range 2 { // idempotent
		if err := enroll("node4", "t1", key); err != nil {
			t.Fatalf("got %v, want success", err)
		}
	}
	tok, _ := m.f.JoinToken("t1")
	a, _ := m.f.Admission("node4")
	if a.State != revoked.Admitted || a.Key != key || a.JoinToken != "t1" || a.ExpiresAt != tok.ExpiresAt ||
		tok.UsedBy != "node4" {
		t.Errorf("got %+v and %+v, want node4 admitted until the token ends, with its key", a, tok)
	}
	want("another key", enroll("node4", "t1", other), revoked.ErrForbidden, used)
	want("another node", enroll("node5", "t1", key), revoked.ErrForbidden, used)
	m.must(command.JoinWithKeyOp("node4", revoked.DigestToken("t1"))) // the node presents its token again
	if a, _ := m.f.Admission("node4"); a.State != revoked.Joined || a.Key != key || a.JoinToken != "t1" {
		t.Errorf("got %+v, want it joined with its key", a)
	}
	want("joined", enroll("node4", "t1", key), revoked.ErrConflict,
		"node4 has joined already and cannot get a certificate from a join token")

	m.must(m.keyToken("t2", "t2", ""))
	m.must(command.MembersOp([]command.NotedMember{{Server: "node1/1", Address: "node1:1"}}, 0))
	want("the name of an initial member", enroll("node1", "t2", key), revoked.ErrConflict,
		"node1 has joined already and cannot get a certificate from a join token")
	m.must(command.BarNodeOp(m.by("admin"), "node7", "stolen"))
	want("barred", enroll("node7", "t2", key), revoked.ErrForbidden, "node7 is not admitted: admit it with "+
		"`revoked admit node7`, or give it a join token created for it")
	if err := enroll("node6", "t2", other); err != nil {
		t.Fatal(err)
	}
	m.must(command.DeleteJoinTokenOp(m.by("admin"), "t2"))
	if a, _ := m.f.Admission("node6"); a.State != revoked.Withdrawn || a.Key != other {
		t.Errorf("token deleted: got %+v, want it withdrawn, with the key", a)
	}
	want("deleted after its use", enroll("node6", "t2", other), revoked.ErrForbidden, ended)
	m.must(m.keyToken("t3", "t3", ""))
	m.later(time.Hour)
	want("expired", enroll("node8", "t3", key), revoked.ErrForbidden, ended)
	restored := empty(t)
	if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatal(err)
	}
	m.sameAs(restored)
	m.sameAs(m.replayed(3))
}

// Members identify a node by the name in its certificate. So no other key gets the name while a
// certificate from a join token may be valid. This holds for another token, for an admission, and
// after the deletion of the token.
func TestEnrollNode_OtherKey_IsRefused(t *testing.T) {
	const text = "node4 has a certificate with another key from a join token, valid until 2026-09-21T15:13:20Z: " +
		"use another name until then"
	for name, end := range map[string]func(m *machine){
		"open":      func(*machine) {},
		"deleted":   func(m *machine) { m.must(command.DeleteJoinTokenOp(m.by("admin"), "leaked")) },
		"withdrawn": func(m *machine) { m.must(command.WithdrawNodeOp(m.by("admin"), "node4")) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			thief, own := revoked.DigestToken("thief"), revoked.DigestToken("own")
			enroll := func(key revoked.Digest) error {
				return m.do(command.EnrollNodeOp("node4", revoked.DigestToken("t2"), key, "node1"))[0].Err
			}
			m.must(m.keyToken("leaked", "leaked", ""))
			m.must(command.EnrollNodeOp("node4", revoked.DigestToken("leaked"), thief, "node1"))
			end(m)
			m.must(m.keyToken("t2", "t2", ""))
			refused := map[string]error{
				"another certificate": enroll(own),
				"an admission":        m.do(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Hour))[0].Err,
			}
			if name != "open" {
				refused["a join"] = m.do(command.JoinWithKeyOp("node4", revoked.DigestToken("t2")))[0].Err
			}
			for what, err := range refused {
				wantErr(t, err, revoked.ErrConflict)
				if got := revoked.Detail(err); got != text {
					t.Errorf("%s: got %q, want %q", what, got, text)
				}
			}
			m.later(time.Hour)
			m.must(m.keyToken("t3", "t3", ""))
			m.must(command.EnrollNodeOp("node4", revoked.DigestToken("t3"), own, "node1"))
			m.sameAs(m.replayed(3))
		})
	}
	m := newMachine(t) // the same key may use another token
	key := revoked.DigestToken("own")
	m.must(m.keyToken("t1", "t1", ""))
	m.must(m.keyToken("t2", "t2", ""))
	m.must(command.EnrollNodeOp("node4", revoked.DigestToken("t1"), key, "node1"))
	m.must(command.DeleteJoinTokenOp(m.by("admin"), "t1"))
	m.must(command.EnrollNodeOp("node4", revoked.DigestToken("t2"), key, "node1"))
	m.must(m.keyToken("t3", "t3", ""))
	m.must(command.AdmitNodeOp(m.by("admin"), "node5", false, time.Hour))
	wantErr(t, m.do(command.EnrollNodeOp("node5", revoked.DigestToken("t3"), key, "node1"))[0].Err,
		revoked.ErrUnprocessable)
}

// A node may use several tokens with one key. Its name is reserved until its last certificate
// expires, even if a later token expires earlier.
func TestEnrollNode_SecondToken_KeepsLongerReservation(t *testing.T) {
	const (
		held = "node4 has a certificate with another key from a join token, valid until 2026-10-21T14:13:20Z: " +
			"use another name until then"
		longer = "join token t1 already admits node4 with this key until 2026-10-21T14:13:20Z, which is later: " +
			"use that token or delete it first"
	)
	own, thief := revoked.DigestToken("own"), revoked.DigestToken("thief")
	for name, tt := range map[string]struct {
		end  func(m *machine) // ends the token that lasts longer
		want string           // error of the shorter token; empty: the token is used
	}{
		"open":      {func(*machine) {}, longer},
		"deleted":   {func(m *machine) { m.must(command.DeleteJoinTokenOp(m.by("admin"), "t1")) }, ""},
		"withdrawn": {func(m *machine) { m.must(command.WithdrawNodeOp(m.by("admin"), "node4")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			enroll := func(token string, key revoked.Digest) error {
				return m.do(command.EnrollNodeOp("node4", revoked.DigestToken(token), key, "node1"))[0].Err
			}
			refused := func(what string, err error, text string) {
				t.Helper()
				wantErr(t, err, revoked.ErrConflict)
				if got := revoked.Detail(err); got != text {
					t.Errorf("%s: got %q, want %q", what, got, text)
				}
			}
			m.must(command.CreateJoinTokenOp(m.by("admin"),
				&revoked.JoinToken{ID: "t1", Hash: revoked.DigestToken("t1"), HasKey: true}, revoked.MaxAdmissionTTL))
			m.must(m.keyToken("t2", "t2", ""))
			m.must(command.EnrollNodeOp("node4", revoked.DigestToken("t1"), own, "node1"))
			first, _ := m.f.Admission("node4")
			tt.end(m)
			if tt.want != "" {
				refused("shorter token", enroll("t2", own), tt.want)
				if tok, _ := m.f.JoinToken("t2"); tok.UsedBy != "" {
					t.Errorf("got %+v, want the shorter token unused", tok)
				}
			} else {
				m.must(command.EnrollNodeOp("node4", revoked.DigestToken("t2"), own, "node1"))
				tok, _ := m.f.JoinToken("t2")
				a, _ := m.f.Admission("node4")
				if a.JoinToken != "t2" || a.ExpiresAt != tok.ExpiresAt || a.KeyUntil != first.KeyUntil {
					t.Errorf("got %+v, want it admitted until t2 ends, and its key until t1 would have ended", a)
				}
			}
			m.later(25 * time.Hour) // the record of the tokens expires too
			m.drain()
			m.must(m.keyToken("t3", "t3", ""))
			refused("another key", enroll("t3", thief), held)
			refused("an admission", m.do(command.AdmitNodeOp(m.by("admin"), "node4", false, time.Hour))[0].Err, held)
			m.must(command.WithdrawNodeOp(m.by("admin"), "node4"))
			refused("withdrawn", enroll("t3", thief), held)
			m.later(revoked.MaxAdmissionTTL)
			m.drain()
			m.must(m.keyToken("t4", "t4", ""))
			m.must(command.EnrollNodeOp("node4", revoked.DigestToken("t4"), thief, "node1"))
			restored := empty(t)
			if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
				t.Fatal(err)
			}
			m.sameAs(restored)
			m.sameAs(m.replayed(3))
		})
	}
}

// A leader may fail after a node has used its token and before the node is a member.
func TestDeleteJoinToken_Used_WithdrawsUnlessJoined(t *testing.T) {
	m := newMachine(t)
	members := func(since uint64, nodes ...string) {
		list := []command.NotedMember{}
		for _, n := range nodes {
			list = append(list, command.NotedMember{Server: n + "/1", Address: n + ":1"})
		}
		m.must(command.MembersOp(list, since))
	}
	use := func(id, node string) {
		m.must(m.keyToken(id, id, ""))
		m.must(command.JoinWithKeyOp(node, revoked.DigestToken(id)))
	}
	del := func(id string) { m.must(command.DeleteJoinTokenOp(m.by("admin"), id)) }
	state := func(node string, want revoked.AdmissionState) {
		t.Helper()
		if a, _ := m.f.Admission(node); a.State != want {
			t.Errorf("%s: got %+v, want state %d", node, a, want)
		}
	}
	use("t1", "node4")
	del("t1") // the state has no members yet
	state("node4", revoked.Joined)
	members(0, "node1", "node4")
	use("t2", "node5")
	del("t2")
	state("node5", revoked.Withdrawn)
	if a, _ := m.f.Admission("node5"); a.By != "admin" || a.JoinToken != "" {
		t.Errorf("got %+v, want it withdrawn by admin", a)
	}
	wantErr(t, m.do(command.JoinWithKeyOp("node5", revoked.DigestToken("t2")))[0].Err, revoked.ErrForbidden)
	use("t3", "node4") // joined already: the token stays unused
	del("t1")
	state("node4", revoked.Joined)
	use("t4", "node6")
	m.must(command.AdmitNodeOp(m.by("admin"), "node6", false, time.Hour)) // a later decision
	del("t4")
	state("node6", revoked.Admitted)
	use("t5", "node6") // it was admitted without the token
	del("t5")
	state("node6", revoked.Joined)

	_, since := m.f.NotedMembers()
	m.must(command.AdmitNodeOp(m.by("admin"), "node7", true, time.Hour))
	m.must(command.WithdrawNodeOp(m.by("admin"), "node7"))
	use("t6", "node7")
	m.must(command.SetVotingOp(m.by("admin"), "node7", true, 0))
	del("t6")
	state("node7", revoked.Withdrawn)
	members(since, "node1", "node4", "node7") // Raft had added the node
	state("node7", revoked.Joined)
	if a, _ := m.f.Admission("node7"); !a.NonVoter || a.By != "admin" {
		t.Errorf("got %+v, want a member that does not vote", a)
	}
	_, since = m.f.NotedMembers()
	m.must(command.WithdrawNodeOp(revoked.Actor{}, "node7")) // the node leaves
	members(since, "node1", "node4", "node7")
	state("node7", revoked.Withdrawn)
	m.sameAs(m.replayed(3))
}

// A used token can be deleted until it would have expired, so its row stays until then.
func TestJoinToken_Used_RowOutlivesTheToken(t *testing.T) {
	m := newMachine(t)
	m.must(command.CreateJoinTokenOp(m.by("admin"),
		&revoked.JoinToken{ID: "t1", Hash: revoked.DigestToken("key"), HasKey: true}, 48*time.Hour))
	m.must(command.JoinWithKeyOp("node4", revoked.DigestToken("key")))
	m.later(47 * time.Hour)
	m.drain()
	m.must(command.DeleteJoinTokenOp(m.by("admin"), "t1"))
	m.later(23 * time.Hour)
	m.drain()
	if _, ok := m.f.JoinToken("t1"); !ok {
		t.Error("a day after its deletion has not passed: got no row, want one")
	}
	m.later(2 * time.Hour)
	m.drain()
	if _, ok := m.f.JoinToken("t1"); ok {
		t.Error("a day after its deletion: got a row, want none")
	}
	m.sameAs(m.replayed(3))
}

func TestMembershipOps_BadRequests_Refused(t *testing.T) {
	m := newMachine(t)
	admin := m.by("admin")
	long := strings.Repeat("n", 65)
	m.must(m.keyToken("first", "first key", "")) // the next operation records its version
	m.must(command.EnrollNodeOp("first", revoked.DigestToken("first key"), revoked.DigestToken("k"), "node1"))
	for _, tt := range []struct {
		name string
		op   *command.Op
		err  error
	}{
		{"admit by an issuer", command.AdmitNodeOp(m.by("issuer"), "n", false, time.Hour), revoked.ErrForbidden},
		{"admit without an actor", command.AdmitNodeOp(revoked.Actor{}, "n", false, time.Hour), revoked.ErrForbidden},
		{"admit an empty name", command.AdmitNodeOp(admin, "", false, time.Hour), revoked.ErrInvalid},
		{"admit a path", command.AdmitNodeOp(admin, "../n", false, time.Hour), revoked.ErrInvalid},
		{"admit a long name", command.AdmitNodeOp(admin, long, false, time.Hour), revoked.ErrInvalid},
		{"admit with a zero ttl", command.AdmitNodeOp(admin, "n", false, 0), revoked.ErrUnprocessable},
		{"admit for a year", command.AdmitNodeOp(admin, "n", false, 9000*time.Hour), revoked.ErrUnprocessable},
		{"withdraw an unknown name", command.WithdrawNodeOp(admin, "n"), revoked.ErrNotFound},
		{"bar by an issuer", command.BarNodeOp(m.by("issuer"), "n", ""), revoked.ErrForbidden},
		{"bar with a long reason", command.BarNodeOp(admin, "n", strings.Repeat("x", 2000)), revoked.ErrInvalid},
		{"set voting without an actor", command.SetVotingOp(revoked.Actor{}, "n", true, 0), revoked.ErrForbidden},
		{"token without an actor", command.CreateJoinTokenOp(revoked.Actor{}, &revoked.JoinToken{ID: "t"}, time.Hour),
			revoked.ErrForbidden},
		{"token without an id", m.token("", "s", "", false, time.Hour), revoked.ErrInvalid},
		{"token for a bad name", m.token("t", "s", "a b", false, time.Hour), revoked.ErrInvalid},
		{"token for too long", m.token("t", "s", "", false, 9000*time.Hour), revoked.ErrUnprocessable},
		{"certificate by a client", &command.Op{Actor: command.ActorMessage(admin), Kind: command.EnrollNodeOp(
			"n", revoked.DigestToken("t"), revoked.DigestToken("k"), "node1").Kind}, revoked.ErrForbidden},
		{"join with a key by a client", &command.Op{Actor: command.ActorMessage(admin), Kind: &command.Op_JoinNode{
			JoinNode: &command.JoinNode{Node: "n", TokenHash: make([]byte, 32), HasKey: true}}}, revoked.ErrForbidden},
		{"stale actor", command.WithdrawNodeOp(revoked.Actor{ClientID: "admin", Version: 99}, "n"), revoked.ErrActorChanged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, before := m.f.Hashes()
			wantErr(t, m.do(tt.op)[0].Err, tt.err)
			if _, _, after := m.f.Hashes(); before != after {
				t.Error("state after a refusal: got a change, want none")
			}
		})
	}
}

func TestMembershipOps_Limits_Unprocessable(t *testing.T) {
	m := newMachine(t)
	by := m.by("admin")
	fill := func(n int, op func(i int) *command.Op) {
		var ops []*command.Op
		for i := range n {
			ops = append(ops, op(i))
		}
		for i, r := range m.do(ops...) {
			if r.Err != nil {
				t.Fatalf("operation %d: got %v, want success", i, r.Err)
			}
		}
		wantErr(t, m.do(op(n))[0].Err, revoked.ErrUnprocessable)
	}
	fill(revoked.MaxAdmissions, func(i int) *command.Op {
		return command.AdmitNodeOp(by, fmt.Sprint("n", i), false, time.Hour)
	})
	m.must(command.AdmitNodeOp(by, "n0", true, time.Hour)) // a renewal
	fill(revoked.MaxJoinTokens, func(i int) *command.Op {
		return m.token(fmt.Sprint("t", i), fmt.Sprint("secret ", i), "", false, time.Hour)
	})
	m.later(26 * time.Hour)
	m.drain()
	m.must(command.AdmitNodeOp(by, "late", false, time.Hour))
	m.must(m.token("late", "late secret", "", false, time.Hour))
}

func TestSetVoting_InitialMember_IsKept(t *testing.T) {
	m := newMachine(t)
	by := m.by("admin")
	m.must(command.SetVotingOp(by, "node1", false, 0))
	if _, ok := m.f.Admission("node1"); ok {
		t.Error("promotion of a voter: got a row, want none")
	}
	m.must(command.SetVotingOp(by, "node1", true, 0))
	if a, _ := m.f.Admission("node1"); !a.NonVoter || a.State != revoked.Joined {
		t.Errorf("got %+v, want a member that does not vote", a)
	}
	m.must(command.SetVotingOp(by, "node1", false, 0))
	if a, _ := m.f.Admission("node1"); a.NonVoter {
		t.Errorf("got %+v, want a member that may vote", a)
	}
}

// A restore begins a new cluster, whose only member is the seeded node.
func TestSeed_Admissions_Dropped(t *testing.T) {
	m := admitted(t)
	dir := t.TempDir()
	h, err := fsm.Seed(dir, bytes.NewReader(m.backup()), fsm.SeedOptions{ClusterID: "c-2", Before: m.now})
	if err != nil {
		t.Fatal(err)
	}
	s := &machine{t: t, dir: dir, now: m.now}
	s.open()
	t.Cleanup(func() { s.f.Close() })
	if len(s.f.Admissions()) != 0 || len(s.f.JoinTokens()) != 0 {
		t.Errorf("got %v and %v, want neither admissions nor tokens", s.f.Admissions(), s.f.JoinTokens())
	}
	if _, _, state := s.f.Hashes(); state != h.State.Bytes() {
		t.Error("state hash: got a different one than in the header")
	}
}

func TestEpoch_Recovered_DropsAdmissions(t *testing.T) {
	m := admitted(t)
	// One ApplyBatch applies the epoch together with an admission, which is not committed yet.
	l := m.entry(&command.Batch{Ops: []*command.Op{command.AdmitNodeOp(m.by("admin"), "late", false, time.Hour)}})
	e := m.entry(&command.Epoch{Term: 2, Node: "n", EndsBefore: int64(m.now), Reason: "quorum lost"})
	for _, out := range m.f.ApplyBatch(append(m.log[:0:0], l, e)) {
		if _, ok := out.(*fsm.Outcome); !ok {
			t.Fatal(out)
		}
	}
	if len(m.f.Admissions()) != 0 || len(m.f.JoinTokens()) != 0 {
		t.Errorf("got %v and %v, want neither admissions nor tokens", m.f.Admissions(), m.f.JoinTokens())
	}
	m.sameAs(m.replayed(1))
	m.sameAs(m.replayed(100))
	m.later(48 * time.Hour)
	m.drain()
	if len(m.fatal) != 0 {
		t.Errorf("fatal: got %v, want none", m.fatal)
	}
}

// admitted returns a machine with an admission in every state and a token in every state.
func admitted(t testing.TB, rules ...uint32) *machine {
	m := newMachine(t, rules...)
	by := m.by("admin")
	m.must(command.AdmitNodeOp(by, "node4", true, time.Hour))
	m.must(command.AdmitNodeOp(by, "node5", false, time.Hour))
	m.must(command.WithdrawNodeOp(by, "node5"))
	m.must(command.BarNodeOp(by, "node6", "broken"))
	m.must(m.token("open", "open secret", "", false, time.Hour))
	m.must(m.token("used", "used secret", "node7", true, time.Hour))
	m.must(m.token("deleted", "deleted secret", "", false, time.Hour))
	m.must(command.DeleteJoinTokenOp(by, "deleted"))
	if err := m.join("node7", "used secret"); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRestore_Admissions_SameState(t *testing.T) {
	m := admitted(t)
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatal(err)
	}
	m.sameAs(r)
	got, want := fmt.Sprint(r.f.Admissions(), r.f.JoinTokens()), fmt.Sprint(m.f.Admissions(), m.f.JoinTokens())
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if strings.Contains(string(m.backup()), "used secret") {
		t.Error("snapshot: got a raw token, want digests only")
	}
	agree(t, m, 3)
}

// modelNode is the model of an admission.
type modelNode struct {
	state    string // "", admitted, joined, withdrawn, barred
	expires  revoked.Time
	barredAt int
}

type modelJoinToken struct {
	node    string
	expires revoked.Time
	gone    bool // used or deleted
	made    int
}

// The test draws histories of admissions and compares every result with that of a simple model.
func TestMembershipOps_RandomHistories_MatchModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		by := m.by("admin")
		nodes, tokens := map[string]modelNode{}, map[string]*modelJoinToken{}
		pick := func(l ...string) string { return rapid.SampledFrom(l).Draw(r, "pick") }
		for step := range rapid.IntRange(1, 40).Draw(r, "steps") {
			node, id := pick("n1", "n2", "n3"), pick("t1", "t2", "t3")
			n, tok := nodes[node], tokens[id]
			var op *command.Op
			refused := false
			switch pick("admit", "withdraw", "bar", "join", "join", "join", "create", "delete", "later") {
			case "admit":
				n = modelNode{state: "admitted", expires: m.now.Add(time.Hour)}
				op = command.AdmitNodeOp(by, node, rapid.Bool().Draw(r, "non-voter"), time.Hour)
			case "withdraw":
				op = command.WithdrawNodeOp(revoked.Actor{}, node)
				if n.state == "admitted" || n.state == "joined" {
					n.state = "withdrawn"
				}
			case "bar":
				op = command.BarNodeOp(by, node, "")
				if n.state != "barred" {
					n.state, n.barredAt = "barred", step
				}
			case "join":
				secret := pick("", id)
				var hash revoked.Digest
				usable := false
				if secret != "" {
					hash = revoked.DigestToken(secret)
					usable = tok != nil && !tok.gone && m.now < tok.expires && (tok.node == "" || tok.node == node) &&
						(n.state != "barred" || tok.node == node && tok.made > n.barredAt)
				}
				op = command.JoinNodeOp(node, hash)
				may := n.state == "joined" || n.state == "admitted" && m.now < n.expires
				refused = !may && !usable
				if usable && n.state != "joined" {
					tok.gone = true
				}
				if !refused {
					n.state = "joined"
				}
			case "create":
				op = m.token(id, id, pick("", node), false, 2*time.Hour)
				if tok != nil {
					continue
				}
				tokens[id] = &modelJoinToken{node: op.GetCreateJoinToken().Node, expires: m.now.Add(2 * time.Hour), made: step}
			case "delete":
				op = command.DeleteJoinTokenOp(by, id)
				if refused = tok == nil; !refused {
					tok.gone = true
				}
			case "later":
				m.later(time.Duration(rapid.IntRange(1, 60).Draw(r, "minutes")) * time.Minute)
				m.drain()
				continue
			}
			nodes[node] = n
			res := m.do(op)[0]
			if (res.Err != nil) != refused {
				r.Fatalf("step %d: %v: got %v, want refused %v", step, op, res.Err, refused)
			}
			for name, n := range nodes {
				a, _ := m.f.Admission(name)
				want := n.state == "joined" || n.state == "admitted" && m.now < n.expires
				if a.Open(m.now) != want || (a.State == revoked.Barred) != (n.state == "barred") {
					r.Fatalf("step %d: %s: got %+v, want open %v in state %q", step, name, a, want, n.state)
				}
			}
		}
		if len(m.fatal) > 0 {
			r.Fatalf("fatal: got %v, want none", m.fatal)
		}
		agree(t, m, rapid.IntRange(1, 9).Draw(r, "batch"))
		if err := m.f.Close(); err != nil {
			r.Fatal(err)
		}
	})
}
