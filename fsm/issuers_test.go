package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
)

const testIss = "https://as.example"

// thumb returns the thumbprint of the key named c.
func thumb(c string) string { return strings.Repeat(c, 43) }

// issuerKeys returns keys with the names in list, in the order of their thumbprints.
func issuerKeys(list ...string) (keys []revoked.IssuerKey) {
	for _, c := range list {
		keys = append(keys, revoked.IssuerKey{
			KeyID: c, Thumbprint: thumb(c), Algorithm: "RS256", Public: []byte("key " + c), State: revoked.KeyActive,
		})
	}
	return keys
}

// trust creates the issuer as1 with the key a.
func (m *machine) trust(change func(*revoked.Issuer)) *revoked.Issuer {
	m.t.Helper()
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer, i.Keys = "as1", testIss, issuerKeys("a")
	if change != nil {
		change(&i)
	}
	m.must(command.PutIssuerOp(m.by("admin"), &i, 0))
	return m.f.Issuer(i.Issuer)
}

// change replaces the record of the issuer.
func (m *machine) change(change func(*revoked.Issuer)) error {
	m.t.Helper()
	i := *m.f.Issuer(testIss)
	change(&i)
	return m.do(command.PutIssuerOp(m.by("admin"), &i, i.Version))[0].Err
}

// fetched stores a set that the leader fetched.
func (m *machine) fetched(list ...string) error {
	m.t.Helper()
	i := m.f.Issuer(testIss)
	return m.do(command.PutIssuerKeysOp(i.Name, i.KeysVersion, issuerKeys(list...)))[0].Err
}

func (m *machine) wantKeys(want map[string]revoked.KeyState) {
	m.t.Helper()
	got := map[string]revoked.KeyState{}
	for _, k := range m.f.Issuer(testIss).Keys {
		got[k.KeyID] = k.State
	}
	if len(got) != len(want) {
		m.t.Errorf("keys: got %v, want %v", got, want)
	}
	for k, s := range want {
		if got[k] != s {
			m.t.Errorf("key %s: got state %v, want %v", k, got[k], s)
		}
	}
}

func fetching(i *revoked.Issuer) { i.JWKSURI, i.Keys = "https://as.example/jwks", nil }

func TestPutIssuer_NameAndIss_MustBeUnique(t *testing.T) {
	m := newMachine(t)
	first := m.trust(nil)
	if first.CreatedAt != m.now || first.Version == 0 || first.KeysVersion != first.Version {
		t.Errorf("got %+v, want it stamped", first)
	}
	put := func(by, name, iss string, version uint64) error {
		i := *first
		i.Name, i.Issuer = name, iss
		return m.do(command.PutIssuerOp(m.by(by), &i, version))[0].Err
	}
	wantErr(t, put("admin", "as1", "https://other.example", 0), revoked.ErrConflict)
	wantErr(t, put("admin", "as2", testIss, 0), revoked.ErrConflict)
	wantErr(t, put("app", "as2", "https://other.example", 0), revoked.ErrForbidden)
	wantErr(t, put("admin", "as2", "https://other.example", 7), revoked.ErrNotFound)
	wantErr(t, put("admin", "as1", testIss, first.Version+1), revoked.ErrConflict)
	wantErr(t, put("admin", "as1", "https://other.example", first.Version), revoked.ErrUnprocessable)
	wantErr(t, m.do(command.DeleteIssuerOp(m.by("app"), "as1"))[0].Err, revoked.ErrForbidden)
	wantErr(t, m.do(command.DeleteIssuerOp(m.by("admin"), "as2"))[0].Err, revoked.ErrNotFound)
	wantErr(t, m.do(command.BanIssuerKeyOp(m.by("app"), "as1", thumb("a")))[0].Err, revoked.ErrForbidden)
	wantErr(t, m.do(command.BanIssuerKeyOp(m.by("admin"), "as1", thumb("b")))[0].Err, revoked.ErrNotFound)
	if err := put("admin", "as2", "https://other.example", 0); err != nil {
		t.Fatal(err)
	}
	// Two changes in one entry: the second one has an old version.
	i := *m.f.Issuer(testIss)
	res := m.do(command.PutIssuerOp(m.by("admin"), &i, i.Version), command.PutIssuerOp(m.by("admin"), &i, i.Version))
	wantErr(t, res[1].Err, revoked.ErrConflict)
	if got := m.f.Issuers(); len(got) != 2 || got[0].Name != "as1" || got[1].Name != "as2" {
		t.Errorf("issuers: got %+v, want as1 and as2", got)
	}
	agree(t, m, 3)
}

// C31: a single set without a key may be a mistake of the server. A second one 30 seconds later
// retires the key.
func TestPutIssuerKeys_MissingTwice_Retired(t *testing.T) {
	const active, retired = revoked.KeyActive, revoked.KeyRetired
	m := newMachine(t)
	m.trust(fetching)
	fetch := func(list ...string) {
		t.Helper()
		if err := m.fetched(list...); err != nil {
			t.Fatal(err)
		}
	}
	fetch("a", "b")
	fetch("b")
	m.wantKeys(map[string]revoked.KeyState{"a": active, "b": active})
	m.later(29 * time.Second)
	fetch("b")
	m.wantKeys(map[string]revoked.KeyState{"a": active, "b": active})
	fetch("a", "b") // the key a is published again
	m.later(time.Hour)
	fetch("b")
	m.wantKeys(map[string]revoked.KeyState{"a": active, "b": active})
	m.later(30 * time.Second)
	before := m.f.Issuer(testIss).Version
	fetch("b", "c")
	m.wantKeys(map[string]revoked.KeyState{"a": retired, "b": active, "c": active})
	if v := m.f.Issuer(testIss); v.Version <= before || v.KeysVersion != v.Version {
		t.Errorf("versions: got %d and %d, want both above %d", v.Version, v.KeysVersion, before)
	}
	fetch("a", "b", "c")
	m.wantKeys(map[string]revoked.KeyState{"a": retired, "b": active, "c": active})
	m.later(100 * time.Hour) // it is still published, so it must not be dropped and become active again
	m.drain()
	m.wantKeys(map[string]revoked.KeyState{"a": retired, "b": active, "c": active})
	fetch("b", "c")
	m.later(24 * time.Hour)
	m.drain()
	m.wantKeys(map[string]revoked.KeyState{"a": retired, "b": active, "c": active})
	m.later(6 * time.Minute)
	m.drain()
	m.wantKeys(map[string]revoked.KeyState{"b": active, "c": active})

	i := m.f.Issuer(testIss)
	noop := command.PutIssuerKeysOp("as1", i.KeysVersion, issuerKeys("b", "c"))
	if r, ok := m.f.DryRun(noop); !ok || r.Err != nil {
		t.Errorf("the same set again: got %v, %v, want a no-op", r, ok)
	}
	wantErr(t, m.do(command.PutIssuerKeysOp("as1", i.KeysVersion-1, issuerKeys("b")))[0].Err, revoked.ErrConflict)
	wantErr(t, m.do(command.PutIssuerKeysOp("as2", i.KeysVersion, issuerKeys("b")))[0].Err, revoked.ErrNotFound)
	forged := command.PutIssuerKeysOp("as1", i.KeysVersion, issuerKeys("b"))
	forged.Actor = command.ActorMessage(m.by("admin"))
	wantErr(t, m.do(forged)[0].Err, revoked.ErrForbidden)
	agree(t, m, 4)
}

func TestBanIssuerKey_LaterFetch_StaysBanned(t *testing.T) {
	const active, banned = revoked.KeyActive, revoked.KeyBanned
	m := newMachine(t)
	m.trust(fetching)
	wantErr(t, m.fetched("a", "b"), nil)
	for range 2 {
		m.must(command.BanIssuerKeyOp(m.by("admin"), "as1", thumb("a")))
	}
	m.wantKeys(map[string]revoked.KeyState{"a": banned, "b": active})
	events, _, err := m.f.Events(0, 100)
	if last := events[len(events)-1]; err != nil || last.Kind != revoked.EventIssuer || last.Action != "key_banned" ||
		last.Selector.Issuer != testIss || last.Reason != "key "+thumb("a") || last.Actor != "admin" {
		t.Errorf("got the events %+v, %v, want the ban as the last one", events, err)
	}
	for range 3 {
		wantErr(t, m.fetched("b"), nil)
		m.later(time.Minute)
		m.drain()
	}
	m.later(10000 * time.Hour)
	m.drain()
	wantErr(t, m.fetched("a", "b"), nil)
	m.wantKeys(map[string]revoked.KeyState{"a": banned, "b": active})
}

func TestPutIssuer_InlineSet_RetiresImmediately(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.Keys = issuerKeys("a", "b") })
	wantErr(t, m.change(func(i *revoked.Issuer) { i.Keys = issuerKeys("b", "c") }), nil)
	want := map[string]revoked.KeyState{"a": revoked.KeyRetired, "b": revoked.KeyActive, "c": revoked.KeyActive}
	m.wantKeys(want)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.Keys = issuerKeys("a", "b", "c") }), nil)
	m.wantKeys(want)
	wantErr(t, m.change(func(i *revoked.Issuer) { i.Disabled = true }), nil)
	m.wantKeys(want)
	wantErr(t, m.fetched("d"), revoked.ErrConflict) // the leader fetches no keys for an issuer with inline keys
	var actions []string
	events, _, err := m.f.Events(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == revoked.EventIssuer {
			actions = append(actions, e.Action)
		}
	}
	if want := []string{"changed", "changed", "key_retired", "changed", "disabled"}; !slices.Equal(actions, want) {
		t.Errorf("events: got %v, want %v", actions, want)
	}
	agree(t, m, 2)
}

// C25: an increase of max_lifetime must not make a token active whose lifetime was too long before.
// The denial of the token may have expired.
func TestPutIssuer_RaisedLifetime_AffectsLaterTokens(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.MaxLifetime = time.Hour })
	long := func(iat revoked.Time, life time.Duration) *revoked.JWT {
		j := jwt("j")
		j.IssuedAt, j.ExpiresAt = iat, iat.Add(life)
		return j
	}
	raise := func(d time.Duration) {
		t.Helper()
		wantErr(t, m.change(func(i *revoked.Issuer) { i.MaxLifetime = d }), nil)
	}
	old := long(m.now, 10*time.Hour)
	m.wantJWT(old, revoked.Suspended)
	m.must(command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: testIss, JTI: "j"}, ""))
	m.later(2 * time.Hour)
	m.drain() // the denial has expired
	raise(24 * time.Hour)
	m.wantJWT(old, revoked.Suspended)
	m.wantJWT(long(m.now, 10*time.Hour), revoked.Suspended) // within the skew
	m.later(time.Minute)
	m.wantJWT(long(m.now, 10*time.Hour), revoked.Active)
	raise(48 * time.Hour)
	m.wantJWT(old, revoked.Suspended)
	m.later(time.Minute)
	m.wantJWT(long(m.now, 47*time.Hour), revoked.Active)
	raise(time.Hour)
	raise(24 * time.Hour) // lowered and raised again
	m.later(time.Minute)
	m.wantJWT(old, revoked.Suspended)
	m.wantJWT(long(m.now.Add(-time.Minute), 10*time.Hour), revoked.Suspended)
	m.wantJWT(long(m.now, 10*time.Hour), revoked.Active)
	m.later(25 * time.Hour)
	m.drain()
	wantErr(t, m.change(func(*revoked.Issuer) {}), nil)
	if i := m.f.Issuer(testIss); i.EarlierLifetime != 0 || i.LifetimeSince != 0 {
		t.Errorf("got %v since %v, want the increase dropped once every earlier token has expired", i.EarlierLifetime,
			i.LifetimeSince)
	}
}

// A token that a cut-off has revoked stays revoked if clock_skew is lowered, although a cut-off
// covers fewer tokens from then on.
func TestPutIssuer_LoweredSkew_KeepsCutoffs(t *testing.T) {
	m := newMachine(t)
	m.trust(func(i *revoked.Issuer) { i.ClockSkew = time.Minute })
	at := func(iat revoked.Time) *revoked.JWT {
		j := jwt("j")
		j.IssuedAt, j.ExpiresAt = iat, iat.Add(10*time.Hour)
		return j
	}
	skew := func(d time.Duration) {
		t.Helper()
		wantErr(t, m.change(func(i *revoked.Issuer) { i.ClockSkew = d }), nil)
	}
	cut := func(before revoked.Time) {
		t.Helper()
		m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "alice"}, before, ""))
	}
	first := m.now
	cut(first)
	m.later(2 * time.Minute)
	early, late := at(first.Add(time.Minute)), at(first.Add(61*time.Second))
	m.wantJWT(early, revoked.Dead)
	m.wantJWT(late, revoked.Active)
	skew(10 * time.Second)
	m.wantJWT(early, revoked.Dead)
	m.wantJWT(late, revoked.Active)
	skew(0)
	m.wantJWT(early, revoked.Dead)
	cut(first.Add(time.Second)) // replaces the first one, and must not cover fewer tokens
	m.wantJWT(early, revoked.Dead)
	m.wantJWT(late, revoked.Dead)
	m.sameAs(m.replayed(3))
	m.later(10 * time.Minute)
	second := m.now
	cut(second) // after all tokens of the wider skew
	m.later(time.Minute)
	m.wantJWT(at(second), revoked.Dead)
	m.wantJWT(at(second.Add(time.Second)), revoked.Active)
	m.wantJWT(early, revoked.Dead)
	m.later(25 * time.Hour)
	m.drain()
	skew(0)
	if i := m.f.Issuer(testIss); i.EarlierSkew != 0 || i.SkewSince != 0 {
		t.Errorf("got %v since %v, want the earlier skew dropped once every earlier token has expired", i.EarlierSkew,
			i.SkewSince)
	}
}

// C36: the tokens of a deleted issuer stay inactive, and can be revoked until they have expired.
func TestDeleteIssuer_Tokens_StayInactive(t *testing.T) {
	m := newMachine(t)
	m.trust(nil)
	j, other := jwt("1"), jwt("2")
	j.ExpiresAt, other.ExpiresAt = m.now.Add(24*time.Hour), m.now.Add(24*time.Hour)
	m.register(pair("1")) // registered tokens of the same iss
	m.wantJWT(j, revoked.Active)
	m.must(command.DeleteIssuerOp(m.by("admin"), "as1"))
	m.must(command.DeleteIssuerOp(m.by("admin"), "as1"))
	m.want("a-1", revoked.Dead)
	m.wantJWT(j, revoked.Dead)
	again := revoked.DefaultIssuer()
	again.Issuer, again.Keys = testIss, issuerKeys("a")
	for _, name := range []string{"as1", "as2"} {
		again.Name = name
		wantErr(t, m.do(command.PutIssuerOp(m.by("admin"), &again, 0))[0].Err, revoked.ErrConflict)
	}
	wantErr(t, m.change(func(*revoked.Issuer) {}), revoked.ErrNotFound)
	if i := m.f.Issuer(testIss); i == nil || i.DeletedAt != m.now || i.Key(thumb("a")) == nil {
		t.Fatalf("got %+v, want the record with its key", i)
	}
	m.must(command.RevokeJWTOp(m.by("admin"), j, ""))
	wantErr(t, m.do(command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: testIss, JTI: "x"}, ""))[0].Err,
		revoked.ErrUnprocessable)
	m.later(24 * time.Hour)
	m.drain()
	wantErr(t, m.do(command.PutIssuerOp(m.by("admin"), &again, 0))[0].Err, revoked.ErrConflict)
	m.later(6 * time.Minute)
	m.drain()
	if got := m.f.Issuer(testIss); got != nil {
		t.Fatalf("got %+v, want it dropped", got)
	}
	wantErr(t, m.do(command.DeleteIssuerOp(m.by("admin"), "as1"))[0].Err, revoked.ErrNotFound)
	m.must(command.PutIssuerOp(m.by("admin"), &again, 0))
	for _, old := range []*revoked.JWT{j, other} {
		m.wantJWT(old, revoked.Dead)
	}
	m.wantJWT(jwt("3"), revoked.Dead) // issued at the start
	fresh := jwt("4")
	fresh.IssuedAt, fresh.ExpiresAt = m.now, m.now.Add(time.Hour)
	m.wantJWT(fresh, revoked.Active)
	agree(t, m, 5)
}

func TestWriteSnapshot_Issuers_GoldenBytes(t *testing.T) {
	m := newMachine(t, command.RegisterRules)
	m.trust(func(i *revoked.Issuer) {
		fetching(i)
		i.GrantClaim, i.RequiredClaims = "gid", map[string]string{"use": "access", "typ": "Bearer"}
	})
	wantErr(t, m.fetched("a", "b"), nil)
	wantErr(t, m.fetched("b"), nil)
	m.must(command.RevokeJWTOp(m.by("admin"), jwt("1"), "why"))
	golden := goldenSnapshot(t, m, "snapshot-issuers")
	h, err := snapshot.Read(bytes.NewReader(golden), nil)
	if err != nil || h.Commands != 3 {
		t.Errorf("head: got version %d, %v, want 3", h.Commands, err)
	}
	r := empty(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(golden))); err != nil {
		t.Fatal(err)
	}
	r.now = m.now
	r.wantJWT(jwt("1"), revoked.Dead)
	r.wantJWT(jwt("2"), revoked.Active)
	r.wantKeys(map[string]revoked.KeyState{"a": revoked.KeyActive, "b": revoked.KeyActive})
}

// noRows is a state without rows.
type noRows struct{}

func (noRows) Get([]byte) ([]byte, error) { return nil, nil }

func (noRows) Scan(_, _ []byte, _ func(key, val []byte) (bool, error)) error { return nil }

func TestReadSnapshot_OfNewerProgram_NamesTheVersion(t *testing.T) {
	var b bytes.Buffer
	h := snapshot.Header{Commands: command.Version + 1}
	if _, err := snapshot.Write(t.Context(), noRows{}, h, &b); err != nil {
		t.Fatal(err)
	}
	_, err := snapshot.Read(&b, nil)
	if want := fmt.Sprintf("version: got %d", command.Version+1); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
}
