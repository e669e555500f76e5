package fsm

import (
	"context"
	"fmt"

	"revoked"
)

// LookupToken reads a token, or its stub. It reports false when the digest is not registered.
func (f *FSM) LookupToken(d revoked.Digest) (revoked.Token, bool, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.Token{}, false, err
	}
	defer s.release()
	return s.token(d)
}

// LookupGrant reads a grant. It reports false when there is none with that id.
func (f *FSM) LookupGrant(id string) (revoked.Grant, bool, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.Grant{}, false, err
	}
	defer s.release()
	g, ok, err := s.grant(id)
	return g.Grant, ok, err
}

// Lookup reads a token and then its grant. The two reads are not of one moment, but whatever ended
// either before the call is seen: a token and a grant that are over never come back.
func (f *FSM) Lookup(d revoked.Digest) (revoked.Record, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.Record{}, err
	}
	defer s.release()
	for range 2 {
		tok, ok, err := s.token(d)
		if err != nil || !ok {
			return revoked.Record{}, err
		}
		g, ok, err := s.grant(tok.GrantID)
		if err != nil {
			return revoked.Record{}, err
		}
		if ok {
			return revoked.Record{Found: true, Token: tok, Grant: g.Grant}, nil
		}
		// The grant went between the two reads; so its tokens did.
	}
	return revoked.Record{}, fmt.Errorf("token %s has no grant: %w", d.Prefix(), errRow)
}

func (s *store) token(d revoked.Digest) (revoked.Token, bool, error) {
	var key [33]byte
	row, err := s.get(tokenKey(key[:0], d))
	if err != nil || row == nil {
		return revoked.Token{}, false, err
	}
	tok, err := parseToken(d, row)
	return tok, err == nil, err
}

func (s *store) grant(id string) (grantRow, bool, error) {
	row, err := s.get(grantKey(nil, id))
	if err != nil || row == nil {
		return grantRow{}, false, err
	}
	g, err := parseGrant(id, row)
	return g, err == nil, err
}

// Circumstances returns what revoked.Decide needs beside the record of a token of that client. CutOff
// looks at the state when it is called.
func (f *FSM) Circumstances(clientID string, now revoked.Time) revoked.Circumstances {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return revoked.Circumstances{
		Now: now, Stamp: f.mem.applied.Stamp, Client: f.mem.clients[clientID], CutOff: f.covers,
	}
}

func (f *FSM) cutOff(g *revoked.Grant, tok *revoked.Token) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.cutoffs.find(g, tok) != nil
}

// Client returns a client as the state has it. Nobody may change what is pointed to.
func (f *FSM) Client(id string) (*revoked.Client, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c, ok := f.mem.clients[id]
	return c, ok
}

// Clients returns all clients by id. Nobody may change the slice or what it points to.
func (f *FSM) Clients() []*revoked.Client {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.sorted
}

// ClientDeleted reports whether a client with that id was there and was deleted, as long as
// cutoff_retention remembers it.
func (f *FSM) ClientDeleted(id string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, ok := f.mem.deleted[id]
	return ok && f.mem.clients[id] == nil
}

// Settings returns the replicated settings; before Bootstrap, the defaults.
func (f *FSM) Settings() revoked.Settings {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.settings.at(f.mem.applied.Stamp)
}

// ClusterID returns the id of the cluster, "" before Bootstrap.
func (f *FSM) ClusterID() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.clusterID
}

// Stamp returns the newest time that the log has brought.
func (f *FSM) Stamp() revoked.Time {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.applied.Stamp
}

// Counts returns how many tokens have a live row, and how many grants are not revoked. What has expired
// counts until Expire has seen it; what a cut-off ended, until Reap has.
func (f *FSM) Counts() (tokens, grants uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.applied.Tokens, f.mem.applied.Grants
}

// View returns a grant with all of its tokens, each in the state that holds at now. ErrNotFound.
func (f *FSM) View(id string, now revoked.Time) (revoked.GrantView, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.GrantView{}, err
	}
	defer s.release()
	g, ok, err := s.grant(id)
	if err != nil {
		return revoked.GrantView{}, err
	}
	if !ok {
		return revoked.GrantView{}, fmt.Errorf("%w: grant %q", revoked.ErrNotFound, id)
	}
	v := revoked.GrantView{Grant: g.Grant, State: revoked.Expired}
	now = max(now, f.Stamp())
	var covered bool
	err = s.members(&g, func(d revoked.Digest) error {
		tok, ok, err := s.token(d)
		if err != nil || !ok {
			return err
		}
		state := tok.State
		if state == revoked.Live {
			cut := f.cutOff(&g.Grant, &tok)
			covered = covered || cut
			switch {
			case g.Revoked != nil || cut:
				state = revoked.Revoked
			case tok.ExpiresAt != 0 && tok.ExpiresAt <= now:
				state = revoked.Expired
			default:
				v.State = revoked.Live
			}
		}
		covered = covered || tok.State == revoked.Revoked
		v.Tokens = append(v.Tokens, revoked.TokenView{Token: tok, State: state})
		return nil
	})
	if err != nil {
		return revoked.GrantView{}, err
	}
	if g.Revoked != nil {
		v.State = revoked.Revoked
	} else if v.State != revoked.Live && covered {
		v.State = revoked.Revoked
		v.ByCutoff = f.endedBy(&g.Grant)
	}
	return v, nil
}

// endedBy returns the newest cut-off that ended something of g.
func (f *FSM) endedBy(g *revoked.Grant) *revoked.Cutoff {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c := f.mem.cutoffs.find(g, &revoked.Token{})
	if c == nil {
		return nil
	}
	out := c.Cutoff
	return &out
}

// members calls fn with every token of g, dead ones included, in the order of registration for the
// inline ones and of digests for the rest.
func (s *store) members(g *grantRow, fn func(d revoked.Digest) error) error {
	for _, d := range g.Tokens {
		if err := fn(d); err != nil {
			return err
		}
	}
	if !g.overflow() {
		return nil
	}
	prefix := memberPrefix(nil, g.ID)
	return s.scan(prefix, func(key, _ []byte) (bool, error) {
		d, err := memberOf(prefix, key)
		if err != nil {
			return false, err
		}
		return true, fn(d)
	})
}

func memberOf(prefix, key []byte) (d revoked.Digest, err error) {
	if len(key) != len(prefix)+len(d) {
		return d, fmt.Errorf("member: %w", errRow)
	}
	copy(d[:], key[len(prefix):])
	return d, nil
}

// CountMatching counts the grants with at least one token that is active at now and that a cut-off of s
// and issuedBefore (0: now) would end. It walks the index of the most selective property, or all grants
// when only an issuer is given, and stops with ctx.
func (f *FSM) CountMatching(ctx context.Context, s revoked.Selector, issuedBefore, now revoked.Time) (int, error) {
	st, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer st.release()
	now = max(now, f.Stamp())
	if issuedBefore == 0 {
		issuedBefore = now
	}
	c := revoked.Cutoff{Selector: s, IssuedBefore: issuedBefore, At: now}
	n, seen := 0, 0
	err = st.matching(&s, nil, func(_ []byte, g *grantRow) (bool, error) {
		if seen++; seen%256 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if g.Revoked != nil || !s.Matches(&g.Grant) {
			return true, nil
		}
		hit, err := f.anyCovered(st, g, &c, now)
		if hit {
			n++
		}
		return true, err
	})
	return n, err
}

func (f *FSM) anyCovered(st *store, g *grantRow, c *revoked.Cutoff, now revoked.Time) (bool, error) {
	found := false
	err := st.members(g, func(d revoked.Digest) error {
		if found {
			return nil
		}
		tok, ok, err := st.token(d)
		if err != nil || !ok {
			return err
		}
		found = tok.State == revoked.Live && c.Covers(&g.Grant, &tok) &&
			(tok.ExpiresAt == 0 || tok.ExpiresAt > now) && !f.cutOff(&g.Grant, &tok)
		return nil
	})
	return found, err
}

// matching calls fn with every grant that a selector may name, from the first after cursor; cursor is
// the key that fn was given for the last grant it had.
func (s *store) matching(sel *revoked.Selector, cursor []byte, fn func(key []byte, g *grantRow) (bool, error)) error {
	var prefix []byte
	switch {
	case sel.GrantID != "":
		key := grantKey(nil, sel.GrantID)
		g, ok, err := s.grant(sel.GrantID)
		if err != nil || !ok || string(cursor) == string(key) {
			return err
		}
		_, err = fn(key, &g)
		return err
	case sel.Session != "":
		prefix = indexPrefix(nil, bySession, sel.Session)
	case sel.Subject != "":
		prefix = indexPrefix(nil, bySubject, sel.Subject)
	case sel.ClientID != "":
		prefix = indexPrefix(nil, byClient, sel.ClientID)
	default:
		prefix = []byte{famGrant}
	}
	start := prefix
	if cursor != nil {
		start = append(append([]byte(nil), cursor...), 0)
	}
	return s.scanFrom(prefix, start, func(key, val []byte) (bool, error) {
		id := string(key[len(prefix):])
		if key[0] == famGrant {
			g, err := parseGrant(id, val)
			if err != nil {
				return false, err
			}
			return fn(key, &g)
		}
		g, ok, err := s.grant(id)
		if err != nil || !ok {
			return true, err
		}
		return fn(key, &g)
	})
}
