package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
)

// asserted returns a client as an actor that authenticated with an assertion. Each value of request
// is a separate request.
func (m *machine) asserted(client, jti string, expires revoked.Time, request byte) revoked.Actor {
	m.t.Helper()
	by := m.by(client)
	by.Assertion = &revoked.AssertionUse{Key: revoked.AssertionKey(client, jti), ExpiresAt: expires,
		Request: [16]byte{request}}
	return by
}

func (m *machine) revokeBy(by revoked.Actor, token string) error {
	m.t.Helper()
	return m.do(command.RevokeOp(by, digest(token), ""))[0].Err
}

// One request may propose several operations with an assertion. Operations of another request are
// rejected.
func TestAssertion_SecondRequest_IsRejectedAsReplay(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	expires := m.now.Add(time.Minute)
	first, second := m.asserted("app", "j", expires, 1), m.asserted("app", "j", expires, 2)
	results := m.do(command.RevokeOp(first, digest("a-1"), ""), command.RevokeOp(second, digest("a-1"), ""),
		command.RevokeOp(first, digest("r-1"), ""), command.RevokeOp(second, digest("unknown"), ""))
	for i, want := range []error{nil, revoked.ErrReplayed, nil, revoked.ErrReplayed} {
		wantErr(t, results[i].Err, want)
	}
	m.want("a-1", revoked.Dead)
	wantErr(t, m.revokeBy(second, "unknown"), revoked.ErrReplayed)
	wantErr(t, m.revokeBy(m.asserted("app", "j2", expires, 2), "unknown"), nil)
	wantErr(t, m.revokeBy(m.asserted("admin", "j", expires, 3), "unknown"), nil) // another client may use the same jti
	request, used, err := m.f.AssertionUse(first.Assertion.Key)
	if !used || err != nil || request != first.Assertion.Request {
		t.Errorf("use: got %v, %v, %v, want that of the first request", request, used, err)
	}
}

// A revocation uses up its assertion even if it changes nothing or is refused.
func TestAssertion_NoChange_IsUsedUp(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))
	wantErr(t, m.revokeBy(m.by("app"), "a-1"), nil)
	expires := m.now.Add(time.Minute)
	op := command.RevokeOp(m.asserted("app", "j", expires, 1), digest("a-1"), "")
	if r, noop := m.f.DryRun(op); noop {
		t.Errorf("dry run of a second use: got a no-op %v, want an entry", r)
	}
	wantErr(t, m.do(op)[0].Err, nil)
	wantErr(t, m.revokeBy(m.asserted("app", "j", expires, 2), "a-1"), revoked.ErrReplayed)
	if r, noop := m.f.DryRun(command.RevokeOp(m.asserted("app", "j", expires, 2), digest("a-1"), "")); !noop {
		t.Errorf("dry run of a replay: got %v, want no entry", r)
	}

	put := command.PutClientOp(m.asserted("app", "k", expires, 3), confidential("x"), 0)
	wantErr(t, m.do(put)[0].Err, revoked.ErrForbidden)
	wantErr(t, m.revokeBy(m.asserted("app", "k", expires, 4), "a-1"), revoked.ErrReplayed)
}

// Apply drops a use only when every node rejects its assertion as expired, according to the stamps
// of entries.
func TestAssertion_Expired_StaysUnusable(t *testing.T) {
	m := newMachine(t)
	expires := m.now.Add(time.Minute)
	replay := func() error { return m.revokeBy(m.asserted("app", "j", expires, 2), "unknown") }
	wantErr(t, m.revokeBy(m.asserted("app", "j", expires, 1), "unknown"), nil)
	m.later(time.Minute + revoked.MaxAssertionSkew - time.Microsecond)
	m.drain()
	wantErr(t, replay(), revoked.ErrReplayed)
	m.later(testSettings().MaxClockSkew + time.Microsecond)
	m.drain()
	if _, used, err := m.f.AssertionUse(revoked.AssertionKey("app", "j")); used || err != nil {
		t.Fatalf("got %v, %v, want the use dropped", used, err)
	}
	wantErr(t, replay(), revoked.ErrReplayed)
	wantErr(t, m.revokeBy(m.asserted("app", "j", m.now.Add(time.Minute), 3), "unknown"), nil)
}

// A request with many operations may last longer than its assertion.
func TestAssertion_LongRequest_StaysAccepted(t *testing.T) {
	m := newMachine(t)
	by := m.asserted("app", "j", m.now.Add(time.Minute), 1)
	for range 40 {
		wantErr(t, m.revokeBy(by, "unknown"), nil)
		m.later(5 * time.Minute)
		m.drain()
	}
	wantErr(t, m.revokeBy(m.asserted("app", "j", m.now.Add(time.Minute), 2), "unknown"), revoked.ErrReplayed)
}

// A client at its quota cannot use new assertions, and none of its recorded uses is dropped.
func TestAssertion_Quota_PerClient(t *testing.T) {
	m := newMachine(t)
	expires := m.now.Add(time.Minute)
	m.f.SetAssertionQuota(3)
	for i := range 5 {
		want := map[bool]error{true: revoked.ErrQuota}[i >= 3]
		wantErr(t, m.revokeBy(m.asserted("app", fmt.Sprint(i), expires, byte(i)), "unknown"), want)
	}
	wantErr(t, m.revokeBy(m.asserted("app", "0", expires, 9), "unknown"), revoked.ErrReplayed)
	wantErr(t, m.revokeBy(m.asserted("admin", "x", expires, 9), "unknown"), nil)
	m.later(time.Minute + revoked.MaxAssertionSkew + testSettings().MaxClockSkew)
	m.drain()
	wantErr(t, m.revokeBy(m.asserted("app", "later", m.now.Add(time.Minute), 9), "unknown"), nil)
}

// A backup has the used assertions, and names the version that is needed to read them.
func TestWriteSnapshot_Assertions_GoldenBytes(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	robot := confidential("robot")
	robot.AuthMethods = []string{revoked.AuthPrivateKey, revoked.AuthTLS}
	robot.Keys = []revoked.IssuerKey{{KeyID: "k1", Thumbprint: thumb("k"), Public: []byte("public"),
		State: revoked.KeyActive}}
	robot.Subject = revoked.CertificateSubject{Kind: revoked.SubjectDNS, Value: "robot.example"}
	m.must(command.PutClientOp(m.by("admin"), robot, 0))
	expires := m.now.Add(time.Minute)
	wantErr(t, m.revokeBy(m.asserted("robot", "j", expires, 1), "unknown"), nil)
	golden := goldenSnapshot(t, m, "snapshot-assertions")
	h, err := snapshot.Read(bytes.NewReader(golden), nil)
	if err != nil || h.Commands != 5 {
		t.Errorf("head: got version %d, %v, want 5", h.Commands, err)
	}
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(golden))); err != nil {
		t.Fatal(err)
	}
	r.now, r.log = m.now, m.log
	wantErr(t, r.revokeBy(r.asserted("robot", "j", expires, 2), "unknown"), revoked.ErrReplayed)
	if c, _ := r.f.Client("robot"); len(c.Keys) != 1 || c.Subject != robot.Subject {
		t.Errorf("got %+v, want the keys and the certificate", c)
	}
	r.later(time.Hour)
	r.drain()
	if _, used, err := r.f.AssertionUse(revoked.AssertionKey("robot", "j")); used || err != nil {
		t.Errorf("after its expiry: got %v, %v, want no use", used, err)
	}
}
