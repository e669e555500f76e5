package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm"
)

// A model is the naive form of the rules: it forgets nothing and looks at everything.
type model struct {
	grants  map[string]*modelGrant
	tokens  map[string]*modelToken
	stones  map[string][]modelStone
	cutoffs []modelCutoff
	window  time.Duration
}

type modelGrant struct {
	client, subject string
	dead            bool
	latest          revoked.Time // refresh token's issued_at
	live            string       // refresh token
}

type modelToken struct {
	grant    string
	iat, exp revoked.Time
	came     revoked.Time
	refresh  bool
	dead     bool // for itself: rotated, or cut off when it came
}

type modelStone struct {
	client string // "": any
	until  revoked.Time
}

type modelCutoff struct {
	client, subject string
	before, at      revoked.Time
}

func (c *modelCutoff) covers(g *modelGrant, t *modelToken) bool {
	iat := t.iat
	if t.came <= c.at {
		iat = min(iat, t.came) // it was there: it was issued by then
	}
	return (c.client == "" || c.client == g.client) && (c.subject == "" || c.subject == g.subject) && iat.Unix() <= c.before.Unix()
}

func (m *model) cut(g *modelGrant, t *modelToken) bool {
	return slices.ContainsFunc(m.cutoffs, func(c modelCutoff) bool { return c.covers(g, t) })
}

func (m *model) active(name string, now revoked.Time) bool {
	t := m.tokens[name]
	if t == nil {
		return false
	}
	g := m.grants[t.grant]
	return !t.dead && !g.dead && !m.cut(g, t) && t.exp > now && (!t.refresh || g.live == name)
}

func (m *model) register(r revoked.Registration, names []string, now revoked.Time) (err bool) {
	g := m.grants[r.GrantID]
	if g != nil && (g.client != r.ClientID || r.Subject != "" && g.subject != r.Subject) {
		return true
	}
	var fresh []int
	for i, n := range names {
		if t := m.tokens[n]; t == nil {
			fresh = append(fresh, i)
			if r.Tokens[i].ExpiresAt <= now {
				return true
			}
		}
	}
	for _, n := range names {
		t := m.tokens[n]
		if t == nil {
			continue
		}
		if len(fresh) > 0 && t.grant != r.GrantID || m.grants[t.grant].client != r.ClientID {
			return true
		}
	}
	if len(fresh) == 0 {
		return false
	}
	if g == nil {
		g = &modelGrant{client: r.ClientID, subject: r.Subject}
		m.grants[r.GrantID] = g
	}
	stone := false
	for _, i := range fresh {
		spec := &r.Tokens[i]
		t := &modelToken{grant: r.GrantID, iat: spec.IssuedAt, came: now, exp: spec.ExpiresAt, refresh: spec.Kind == revoked.RefreshToken}
		t.dead = g.dead || m.cut(g, t)
		for _, s := range m.stones[names[i]] {
			stone = stone || ((s.client == "" || s.client == r.ClientID) && now < s.until)
		}
		if t.refresh && !t.dead && t.iat >= g.latest {
			g.latest, g.live = t.iat, names[i]
		}
		m.tokens[names[i]] = t
	}
	g.dead = g.dead || stone
	return false
}

func (m *model) revoke(client string, admin bool, name string, now revoked.Time) (foreign bool) {
	t := m.tokens[name]
	if t == nil {
		if admin {
			client = ""
		}
		m.stones[name] = append(m.stones[name], modelStone{client, now.Add(m.window)})
		return false
	}
	g := m.grants[t.grant]
	if g.client != client && !admin {
		return m.active(name, now)
	}
	g.dead = true
	return false
}

// TestAgainstTheModel draws histories and compares every verdict with the model's after each step, and
// in the end the state with those that a replay, a crash and a restore give. Times stay within the
// windows after which the state machine may forget, except that the clock moves on.
func TestAgainstTheModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		s := m.f.Settings()
		s.LateRegistrationWindow = 10 * time.Minute
		m.must(fsm.PutSettingsOp(m.by("admin"), s, s.Version))
		mod := &model{grants: map[string]*modelGrant{}, tokens: map[string]*modelToken{}, stones: map[string][]modelStone{}, window: 10 * time.Minute}
		names := []string{"t0", "t1", "t2", "t3", "t4", "t5"}
		clients := []string{"app", "other"}
		pick := func(l []string) string { return rapid.SampledFrom(l).Draw(r, "pick") }
		for step := range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.IntRange(0, 9).Draw(r, "what") {
			case 0, 1, 2, 3:
				toks := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 2, rapid.ID).Draw(r, "tokens")
				reg := pair("x")
				reg.GrantID, reg.ClientID, reg.Subject = pick([]string{"g0", "g1", "g2"}), pick(clients), pick([]string{"alice", "bob", ""})
				reg.Tokens = nil
				for _, n := range toks {
					// Every token has one issued_at and one life, as in the world; t3 to t5 are refresh tokens.
					i := revoked.Time(n[1] - '0')
					spec := access(n, start.Add(time.Duration(i)*time.Minute), time.Hour)
					spec.NotBefore = 0
					if i >= 3 {
						spec = refresh(n, start.Add(time.Duration(i)*time.Minute), 2*time.Hour)
					}
					reg.Tokens = append(reg.Tokens, spec)
				}
				res := m.do(fsm.RegisterOp(m.by("issuer"), reg))[0]
				if want := mod.register(reg, toks, m.now); (res.Err != nil) != want {
					r.Fatalf("step %d: register %v in %s: got %v, want refused %v", step, toks, reg.GrantID, res.Err, want)
				}
			case 4, 5, 6:
				actor := pick([]string{"app", "other", "admin"})
				name := pick(names)
				op := fsm.RevokeOp(m.by(actor), digest(name), "")
				dry, settled := m.f.Settled(op)
				_, _, before := m.f.Hashes()
				res := m.do(op)[0]
				if _, _, after := m.f.Hashes(); settled && (after != before || (dry.Err == nil) != (res.Err == nil)) {
					r.Fatalf("step %d: settled, and yet it changed something: %v, %v", step, dry.Err, res.Err)
				}
				// A foreign token that is dead by a tombstone which outlived its window is not refused.
				tomb := mod.tokens[name] != nil && anyStone(mod, mod.tokens[name].grant)
				if want := mod.revoke(actor, actor == "admin", name, m.now); (res.Err != nil) != want && !(want && tomb) {
					r.Fatalf("step %d: revoke %s by %s: got %v, want refused %v", step, name, actor, res.Err, want)
				}
			case 7:
				c := modelCutoff{before: start.Add(time.Duration(rapid.IntRange(-1, 5).Draw(r, "minute")) * time.Minute)}
				if rapid.Bool().Draw(r, "by client") {
					c.client = pick(clients)
				} else {
					c.subject = pick([]string{"alice", "bob"})
				}
				c.before, c.at = min(c.before, m.now), m.now
				m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{ClientID: c.client, Subject: c.subject}, c.before, ""))
				mod.cutoffs = append(mod.cutoffs, c)
			case 8:
				m.later(time.Duration(rapid.IntRange(1, 12).Draw(r, "minutes")) * time.Minute)
			case 9:
				if typ, msg, ok := m.f.Backlog(m.now); ok {
					m.apply(typ, msg)
				}
			}
			for _, n := range names {
				got := m.verdict(n) == revoked.Active
				want := mod.active(n, m.now)
				// What the state machine forgot was over, and a tombstone may outlive its window.
				if got && !want {
					r.Fatalf("step %d: %s is active and must not be", step, n)
				}
				if want && !got && len(mod.stones[n]) == 0 && !anyStone(mod, mod.tokens[n].grant) {
					r.Fatalf("step %d: %s is not active and must be: %v", step, n, m.verdict(n))
				}
			}
		}
		if len(m.fatal) > 0 {
			r.Fatalf("fatal: %v", m.fatal)
		}
		if rapid.IntRange(0, 2).Draw(r, "compare") == 0 {
			agree(t, m, rapid.IntRange(1, 9).Draw(r, "batch"))
		}
		if err := m.f.Close(); err != nil {
			r.Fatal(err)
		}
	})
}

// anyStone reports whether a token of the grant ever had a tombstone.
func anyStone(m *model, grant string) bool {
	for n := range m.stones {
		if t := m.tokens[n]; t != nil && t.grant == grant {
			return true
		}
	}
	return false
}

// agree compares a state with those that a replay, a crash with replay, and a restore give, and with
// the hash over all rows that InspectSnapshot computes from nothing.
func agree(t *testing.T, m *machine, n int) {
	t.Helper()
	replayed := m.replayed(n)
	m.sameAs(replayed)
	restored := empty(t)
	backup := m.backup()
	if err := restored.f.Restore(io.NopCloser(bytes.NewReader(backup))); err != nil {
		t.Fatal(err)
	}
	m.sameAs(restored)
	crashed := m.crash()
	for i := 0; i < len(m.log); i += n {
		crashed.f.ApplyBatch(m.log[i:min(i+n, len(m.log))])
	}
	m.sameAs(crashed)
	if !bytes.Equal(crashed.backup(), backup) {
		t.Error("the backup of the crashed one differs")
	}
	// The queue, which no backup shows, is the same too: time goes on alike.
	restored.log, restored.now = append([]*raft.Log(nil), m.log...), m.now
	for _, v := range []*machine{m, restored} {
		for range 3 {
			v.later(time.Hour)
			v.drain()
		}
	}
	m.sameAs(restored)
	for _, v := range []*machine{replayed, restored, crashed} {
		if err := v.f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestExpireDropsExactlyWhatIsOver registers tokens of all lengths of life and steps through time.
func TestExpireDropsExactlyWhatIsOver(t *testing.T) {
	m := newMachine(t)
	exp := map[string]revoked.Time{}
	grantExp := map[string]revoked.Time{}
	for i := range 40 {
		r := pair(fmt.Sprint(i))
		r.Tokens[0].ExpiresAt = start.Add(time.Duration(1+i*7%40) * time.Minute)
		r.Tokens[1].ExpiresAt = start.Add(time.Duration(1+i*11%90) * time.Minute)
		if i%10 == 0 {
			r.Tokens[1].ExpiresAt = 0
		}
		m.register(r)
		for j, n := range []string{"a-", "r-"} {
			name := n + fmt.Sprint(i)
			e := r.Tokens[j].ExpiresAt
			if e == 0 {
				e = revoked.MaxTime
			}
			exp[name], grantExp[r.GrantID] = e, max(grantExp[r.GrantID], e)
		}
	}
	skew := m.f.Settings().MaxClockSkew
	for range 100 {
		m.later(time.Minute)
		m.drain()
		before := m.now.Add(-skew)
		var live, grants uint64
		for name, e := range exp {
			tok, ok, err := m.f.LookupToken(digest(name))
			if err != nil {
				t.Fatal(err)
			}
			over := grantExp["g-"+name[2:]].Add(skew) <= before
			if ok == over {
				t.Fatalf("%s: there %v, its grant over %v", name, ok, over)
			}
			if ok && (tok.State == revoked.Expired) != (e <= before) {
				t.Fatalf("%s: state %v, expiry %v, before %v", name, tok.State, e, before)
			}
			if e > before {
				live++
			}
		}
		for _, e := range grantExp {
			if e.Add(skew) > before {
				grants++
			}
		}
		if gotT, gotG := m.f.Counts(); gotT != live || gotG != grants {
			t.Fatalf("got %d tokens and %d grants, want %d and %d", gotT, gotG, live, grants)
		}
	}
	m.sameAs(m.replayed(4))
}
