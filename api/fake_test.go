package api_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
	"time"

	"revoked"
	"revoked/api"
)

var _ api.Backend = (*fakeNode)(nil)

// fakeNode is a node in memory: one lock, no replication, the rules of the contract in their shortest form.
// fail, when set, is asked before every call and its error is returned; it is given the name of the
// method.
type fakeNode struct {
	mu       sync.Mutex
	fail     func(method string) error
	now      func() time.Time
	index    uint64
	applied  chan struct{} // closed and replaced whenever index grows
	clients  map[string]*revoked.Client
	deleted  map[string]bool
	grants   map[string]*revoked.Grant
	tokens   map[revoked.Digest]*revoked.Token
	members  map[string][]revoked.Digest // of a grant
	tombs    map[revoked.Digest]revoked.Actor
	cutoffs  []*revoked.Cutoff
	events   []revoked.Event
	oldest   uint64 // the feed holds what comes after
	settings revoked.Settings
	ready    revoked.Readiness
	status   revoked.NodeStatus
	nodes    []revoked.Member
	calls    []string // of cluster methods, with their arguments
	batches  []int    // sizes of Register calls
	snapshot func(w io.Writer) error
	discard  bool // Register keeps nothing
	behind   bool // the clients are not known to be all
	// elsewhere is what happened at other nodes and this one hears of when it proves its copy current.
	// It holds the lock.
	elsewhere func(*fakeNode)
}

func newFakeNode() *fakeNode {
	f := &fakeNode{
		now: time.Now, index: 10, applied: make(chan struct{}),
		clients: map[string]*revoked.Client{}, deleted: map[string]bool{}, grants: map[string]*revoked.Grant{},
		tokens: map[revoked.Digest]*revoked.Token{}, members: map[string][]revoked.Digest{},
		tombs: map[revoked.Digest]revoked.Actor{}, settings: revoked.DefaultSettings(),
		ready: revoked.Readiness{CanAnswer: true, CanRevoke: true, Checks: []revoked.Check{{Name: "lease", OK: true}}},
	}
	f.settings.Version = 1
	return f
}

// put stores a client as bootstrap would.
func (f *fakeNode) put(c revoked.Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(c)
}

// set is put under the lock.
func (f *fakeNode) set(c revoked.Client) {
	if c.Type == "" {
		c.Type = revoked.Confidential
	}
	c.CreatedAt = revoked.TimeOf(f.now())
	c.Version = f.next()
	f.clients[c.ID] = &c
}

// next moves the index. The lock is held.
func (f *fakeNode) next() uint64 {
	f.index++
	close(f.applied)
	f.applied = make(chan struct{})
	return f.index
}

func (f *fakeNode) check(method string) error {
	if f.fail != nil {
		return f.fail(method)
	}
	return nil
}

func (f *fakeNode) actor(by revoked.Actor) error {
	c, ok := f.clients[by.ClientID]
	if !ok || c.Disabled || c.Version != by.Version {
		return fmt.Errorf("%w: %q", revoked.ErrActorChanged, by.ClientID)
	}
	return nil
}

func (f *fakeNode) cutOff(g *revoked.Grant, tok *revoked.Token) bool {
	return slices.ContainsFunc(f.cutoffs, func(c *revoked.Cutoff) bool { return c.Covers(g, tok) })
}

func (f *fakeNode) verdict(d revoked.Digest) (revoked.Verdict, revoked.Record) {
	t, ok := f.tokens[d]
	if !ok {
		return revoked.Unknown, revoked.Record{}
	}
	r := revoked.Record{Found: true, Token: *t, Grant: *f.grants[t.GrantID]}
	now := revoked.TimeOf(f.now())
	return revoked.Decide(&r, revoked.Circumstances{Now: now, Stamp: now, Client: f.clients[r.Grant.ClientID], CutOff: f.cutOff}), r
}

// end flags a grant. The lock is held.
func (f *fakeNode) end(g *revoked.Grant, by revoked.Actor, reason string) {
	if g.Revoked != nil {
		return
	}
	now := revoked.TimeOf(f.now())
	g.Revoked = &revoked.Revocation{At: now, By: by.ClientID, Reason: reason, Index: f.next()}
	e := revoked.Event{Index: f.index, Time: now, Kind: revoked.EventGrant, Actor: by.ClientID, Reason: reason,
		Selector: revoked.Selector{GrantID: g.ID, ClientID: g.ClientID, Subject: g.Subject, Session: g.Session, Issuer: g.Issuer}}
	for _, d := range f.members[g.ID] {
		e.Digests = append(e.Digests, d)
		e.Audiences = append(e.Audiences, f.tokens[d].Audience)
	}
	f.events = append(f.events, e)
}

func (f *fakeNode) Revoke(_ context.Context, by revoked.Actor, d revoked.Digest) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("Revoke"); err != nil {
		return 0, err
	}
	if err := f.actor(by); err != nil {
		return 0, err
	}
	v, r := f.verdict(d)
	switch {
	case v == revoked.Unknown:
		if _, ok := f.tombs[d]; !ok {
			f.tombs[d] = by
			f.events = append(f.events, revoked.Event{Index: f.next(), Time: revoked.TimeOf(f.now()), Kind: revoked.EventToken,
				Digests: []revoked.Digest{d}, Audiences: [][]string{nil}, Actor: by.ClientID})
		}
		return f.index, nil
	case !by.Admin && r.Grant.ClientID != by.ClientID:
		if v == revoked.Dead || v == revoked.PastExpiry {
			return f.index, nil
		}
		return 0, revoked.ErrForeignToken
	}
	f.end(f.grants[r.Grant.ID], by, "")
	return f.index, nil
}

func (f *fakeNode) DeleteGrant(_ context.Context, by revoked.Actor, id, reason string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("DeleteGrant"); err != nil {
		return 0, err
	}
	if err := f.actor(by); err != nil {
		return 0, err
	}
	g, ok := f.grants[id]
	switch {
	case !ok:
		return 0, fmt.Errorf("%w: no such grant", revoked.ErrNotFound)
	case !by.Admin && g.RegisteredBy != by.ClientID:
		return 0, fmt.Errorf("%w: registered by another issuer", revoked.ErrForbidden)
	}
	f.end(g, by, reason)
	return f.index, nil
}

func (f *fakeNode) RevokeMatching(_ context.Context, by revoked.Actor, req revoked.CutoffRequest) (revoked.CutoffResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("RevokeMatching"); err != nil {
		return revoked.CutoffResult{}, err
	}
	if err := f.actor(by); err != nil {
		return revoked.CutoffResult{}, err
	}
	now := revoked.TimeOf(f.now())
	res := revoked.CutoffResult{Index: f.index}
	if req.DryRun || req.Expect != nil {
		n := 0
		for _, g := range f.grants {
			if g.Revoked == nil && req.Matches(g) {
				n++
			}
		}
		res.Matched = &n
		if req.Expect != nil && *req.Expect != n {
			return res, fmt.Errorf("%w: %d match", revoked.ErrExpectation, n)
		}
		if req.DryRun {
			return res, nil
		}
	}
	c := &revoked.Cutoff{Selector: req.Selector, IssuedBefore: req.IssuedBefore, At: now, By: by.ClientID, Reason: req.Reason, Index: f.next()}
	if c.IssuedBefore == 0 {
		c.IssuedBefore = now
	}
	f.cutoffs = append(f.cutoffs, c)
	f.events = append(f.events, revoked.Event{Index: f.index, Time: now, Kind: revoked.EventCutoff, Selector: c.Selector,
		IssuedBefore: c.IssuedBefore, Actor: by.ClientID, Reason: req.Reason})
	res.Index = f.index
	return res, nil
}

func (f *fakeNode) Status(_ context.Context, d revoked.Digest) (revoked.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, r := f.verdict(d)
	if err := f.check("Status"); err != nil && v != revoked.Dead {
		return revoked.Status{}, err
	}
	f.hear()
	return revoked.Status{Verdict: v, Record: r}, nil
}

func (f *fakeNode) Peek(d revoked.Digest) (revoked.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, r := f.verdict(d)
	return r, f.check("Peek")
}

func (f *fakeNode) Register(_ context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("Register"); err != nil {
		return nil, err
	}
	f.batches = append(f.batches, len(regs))
	f.next()
	out := make([]revoked.RegisterResult, len(regs))
	for i := range regs {
		out[i] = f.register(by, &regs[i])
	}
	return out, nil
}

func (f *fakeNode) register(by revoked.Actor, reg *revoked.Registration) revoked.RegisterResult {
	res := revoked.RegisterResult{GrantID: reg.GrantID, Index: f.index}
	if f.discard {
		res.Created = true
		return res
	}
	if res.Err = f.actor(by); res.Err != nil {
		return res
	}
	if c := f.clients[by.ClientID]; !by.Admin && len(c.Issuers) > 0 && !slices.Contains(c.Issuers, reg.Issuer) {
		res.Err = fmt.Errorf("%w: may not register for this issuer", revoked.ErrForbidden)
		return res
	}
	if _, ok := f.clients[reg.ClientID]; !ok {
		res.Err = fmt.Errorf("%w: client_id", revoked.ErrUnknownClient)
		return res
	}
	g, ok := f.grants[reg.GrantID]
	if ok && (g.ClientID != reg.ClientID || g.Subject != reg.Subject || g.Session != reg.Session || g.Issuer != reg.Issuer) {
		res.Err = fmt.Errorf("%w: grant has another client, subject, session or issuer", revoked.ErrConflict)
		return res
	}
	for i := range reg.Tokens {
		if t, ok := f.tokens[reg.Tokens[i].Digest]; ok && f.grants[t.GrantID].ClientID != reg.ClientID {
			res.Err = fmt.Errorf("%w: token is another client's", revoked.ErrConflict)
			return res
		}
	}
	now := revoked.TimeOf(f.now())
	if g == nil {
		g = &revoked.Grant{ID: reg.GrantID, ClientID: reg.ClientID, Subject: reg.Subject, Session: reg.Session, Issuer: reg.Issuer,
			RegisteredBy: by.ClientID, CreatedAt: now, CreatedIndex: f.index}
	}
	for _, spec := range reg.Tokens {
		if t, ok := f.tokens[spec.Digest]; ok {
			res.GrantID = t.GrantID
			res.Revoked = f.grants[t.GrantID].Revoked != nil
			continue
		}
		res.Created = true
		f.grants[g.ID] = g
		t := &revoked.Token{Digest: spec.Digest, Kind: spec.Kind, State: revoked.Live, GrantID: g.ID, IssuedAt: spec.IssuedAt,
			ExpiresAt: spec.ExpiresAt, NotBefore: spec.NotBefore, Scope: reg.Scope, Username: reg.Username, Audience: reg.Audience,
			JTI: spec.JTI, CNF: spec.CNF}
		if t.IssuedAt == 0 {
			t.IssuedAt = now
		}
		g.TokenCount++
		g.LatestExpiry = max(g.LatestExpiry, t.ExpiresAt)
		if t.ExpiresAt == 0 {
			g.LatestExpiry = revoked.MaxTime
		}
		if t.Kind == revoked.RefreshToken {
			if old, ok := f.tokens[g.LiveRefresh]; ok && g.RefreshIat >= t.IssuedAt {
				t.State = revoked.Rotated
			} else {
				if ok {
					old.State = revoked.Rotated
				}
				g.LiveRefresh, g.RefreshIat = t.Digest, t.IssuedAt
			}
		}
		f.tokens[t.Digest] = t
		f.members[g.ID] = append(f.members[g.ID], t.Digest)
		if who, ok := f.tombs[t.Digest]; ok && (who.Admin || who.ClientID == g.ClientID) {
			f.end(g, who, "late")
		}
		res.Revoked = res.Revoked || g.Revoked != nil || f.cutOff(g, t)
	}
	return res
}

func (f *fakeNode) Grant(_ context.Context, id string) (revoked.GrantView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("Grant"); err != nil {
		return revoked.GrantView{}, err
	}
	g, ok := f.grants[id]
	if !ok {
		return revoked.GrantView{}, fmt.Errorf("%w: no such grant", revoked.ErrNotFound)
	}
	v := revoked.GrantView{Grant: *g, State: revoked.Expired}
	for _, d := range f.members[id] {
		t := *f.tokens[d]
		state := t.State
		switch verdict, _ := f.verdict(d); verdict {
		case revoked.Dead:
			if state == revoked.Live {
				state = revoked.Revoked
			}
		case revoked.PastExpiry:
			state = revoked.Expired
		default:
			v.State = revoked.Live
		}
		v.Tokens = append(v.Tokens, revoked.TokenView{Token: t, State: state})
	}
	if g.Revoked != nil {
		v.State = revoked.Revoked
	}
	for _, c := range f.cutoffs {
		if c.Matches(g) && v.State != revoked.Live {
			v.State, v.ByCutoff = revoked.Revoked, c
		}
	}
	return v, nil
}

func (f *fakeNode) Events(_ context.Context, after uint64, limit int) ([]revoked.Event, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("Events"); err != nil {
		return nil, 0, err
	}
	if after < f.oldest {
		return nil, 0, fmt.Errorf("%w: the oldest index held is %d", revoked.ErrGone, f.oldest)
	}
	var out []revoked.Event
	upTo := f.index
	for _, e := range f.events {
		if e.Index <= after {
			continue
		}
		if len(out) == limit {
			// What was cut off may share its index with the last one taken.
			upTo = e.Index - 1
			break
		}
		out = append(out, e)
	}
	return out, max(upTo, after), nil
}

// Newest asks fail under the lock: a test may make the node catch up in it.
func (f *fakeNode) Newest(context.Context) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("Newest"); err != nil {
		return 0, err
	}
	return f.index, nil
}

func (f *fakeNode) WaitApplied(ctx context.Context, index uint64) error {
	for {
		f.mu.Lock()
		have, ch, err := f.index, f.applied, f.check("WaitApplied")
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if have >= index {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeNode) Client(id string) (*revoked.Client, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.clients[id]
	return c, ok
}

// Current brings what was done elsewhere.
func (f *fakeNode) Current(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("Current"); err != nil {
		return err
	}
	f.hear()
	return nil
}

func (f *fakeNode) hear() {
	if f.elsewhere != nil {
		f.elsewhere(f)
		f.elsewhere = nil
	}
}

func (f *fakeNode) ClientsCurrent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.behind
}

func (f *fakeNode) Clients(context.Context) ([]*revoked.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*revoked.Client
	for _, c := range f.clients {
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, f.check("Clients")
}

func (f *fakeNode) CreateClient(_ context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("CreateClient"); err != nil {
		return nil, 0, err
	}
	if err := f.actor(by); err != nil {
		return nil, 0, err
	}
	if _, ok := f.clients[c.ID]; ok {
		return nil, 0, fmt.Errorf("%w: client_id is taken", revoked.ErrConflict)
	}
	c.CreatedAt, c.Version = revoked.TimeOf(f.now()), f.next()
	f.clients[c.ID] = &c
	return &c, f.index, nil
}

func (f *fakeNode) UpdateClient(_ context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("UpdateClient"); err != nil {
		return nil, 0, err
	}
	if err := f.actor(by); err != nil {
		return nil, 0, err
	}
	old, ok := f.clients[c.ID]
	switch {
	case !ok:
		return nil, 0, fmt.Errorf("%w: no such client", revoked.ErrNotFound)
	case old.Version != c.Version:
		return nil, 0, fmt.Errorf("%w: client was changed meanwhile", revoked.ErrConflict)
	}
	c.Version = f.next()
	f.clients[c.ID] = &c
	if c.Disabled != old.Disabled {
		action := "enabled"
		if c.Disabled {
			action = "disabled"
		}
		f.events = append(f.events, revoked.Event{Index: f.index, Time: revoked.TimeOf(f.now()), Kind: revoked.EventClient,
			Selector: revoked.Selector{ClientID: c.ID}, Action: action, Actor: by.ClientID})
	}
	return &c, f.index, nil
}

func (f *fakeNode) DeleteClient(_ context.Context, by revoked.Actor, id string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("DeleteClient"); err != nil {
		return 0, err
	}
	if err := f.actor(by); err != nil {
		return 0, err
	}
	if _, ok := f.clients[id]; !ok && !f.deleted[id] {
		return 0, fmt.Errorf("%w: no such client", revoked.ErrNotFound)
	}
	if _, ok := f.clients[id]; ok {
		delete(f.clients, id)
		f.deleted[id] = true
		f.next()
	}
	return f.index, nil
}

func (f *fakeNode) Settings() revoked.Settings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings
}

func (f *fakeNode) UpdateSettings(_ context.Context, by revoked.Actor, s revoked.Settings) (revoked.Settings, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("UpdateSettings"); err != nil {
		return revoked.Settings{}, 0, err
	}
	if s.Version != f.settings.Version {
		return revoked.Settings{}, 0, fmt.Errorf("%w: settings were changed meanwhile", revoked.ErrConflict)
	}
	s.Version = f.next()
	f.settings = s
	return s, f.index, f.actor(by)
}

func (f *fakeNode) Members(context.Context) ([]revoked.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes, f.check("Members")
}

func (f *fakeNode) NodeStatus(context.Context) revoked.NodeStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.AppliedIndex = f.index
	return s
}

func (f *fakeNode) Readiness(context.Context) revoked.Readiness {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

func (f *fakeNode) called(method, call string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(method); err != nil {
		return 0, err
	}
	f.calls = append(f.calls, call)
	return f.next(), nil
}

func (f *fakeNode) Join(_ context.Context, addresses []string) (uint64, error) {
	return f.called("Join", fmt.Sprint("join ", addresses))
}

func (f *fakeNode) Leave(context.Context) (uint64, error) { return f.called("Leave", "leave") }

func (f *fakeNode) Remove(_ context.Context, node string, force bool, reason string) (uint64, error) {
	return f.called("Remove", fmt.Sprintf("remove %s %t %q", node, force, reason))
}

func (f *fakeNode) TransferLeader(_ context.Context, node string) (uint64, error) {
	return f.called("TransferLeader", fmt.Sprintf("transfer-leader %q", node))
}

func (f *fakeNode) Snapshot(_ context.Context, w io.Writer) error {
	f.mu.Lock()
	err, write := f.check("Snapshot"), f.snapshot
	f.mu.Unlock()
	if err != nil || write == nil {
		return err
	}
	return write(w)
}
