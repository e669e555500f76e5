package fsm

import (
	"context"
	"errors"
	"fmt"

	"revoked"
	"revoked/fsm/lookup"
	"revoked/fsm/rows"
)

// View returns a grant with all its tokens, each with its state at the time now. It returns
// ErrNotFound if the grant does not exist.
func (f *FSM) View(id string, now revoked.Time) (revoked.GrantView, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.GrantView{}, err
	}
	defer s.Release()
	g, ok, err := lookup.Grant(s, id)
	if err != nil {
		return revoked.GrantView{}, err
	}
	if !ok {
		return revoked.GrantView{}, fmt.Errorf("%w: grant %q", revoked.ErrNotFound, id)
	}
	return f.view(s, &g, now, true)
}

// view returns a grant with its state at the time now. If all is set, the result includes the
// tokens. Otherwise view reads only as many tokens as it needs to determine the state.
func (f *FSM) view(s lookup.Reader, g *rows.Grant, now revoked.Time, all bool) (revoked.GrantView, error) {
	v := revoked.GrantView{Grant: g.Grant, State: revoked.Expired}
	if g.Revoked != nil {
		v.State = revoked.Revoked
	}
	if g.Revoked != nil && !all {
		return v, nil
	}
	now = max(now, f.Stamp())
	var ended, live bool
	var failed error
	err := lookup.EachToken(s, g, func(t *revoked.Token) bool {
		var state revoked.TokenState
		if state, failed = f.stateOf(s, g, t, now); failed != nil {
			return false
		}
		ended, live = ended || state == revoked.Revoked, live || state == revoked.Live
		if all {
			v.Tokens = append(v.Tokens, revoked.TokenView{Token: *t, State: state})
		}
		return all || !live
	})
	switch {
	case err != nil || failed != nil:
		return revoked.GrantView{}, errors.Join(err, failed)
	case g.Revoked != nil:
	case live:
		v.State = revoked.Live
	case ended:
		v.State = revoked.Revoked
		v.ByCutoff = f.endedBy(&g.Grant)
	}
	return v, nil
}

// stateOf returns the state of a token of g. The state accounts for the revocation of the grant,
// the cut-offs, and the denial of the token's jti.
func (f *FSM) stateOf(s lookup.Reader, g *rows.Grant, t *revoked.Token, now revoked.Time) (revoked.TokenState, error) {
	switch {
	case t.State != revoked.Live:
		return t.State, nil
	case g.Revoked != nil, f.isCovered(&g.Grant, t, 0):
		return revoked.Revoked, nil
	case t.JTI != "" && f.Issuer(g.Issuer) != nil:
		denial, err := lookup.Denial(s.Get, &revoked.JWT{Issuer: g.Issuer, JTI: t.JTI}, false)
		if err != nil || denial != nil {
			return revoked.Revoked, err
		}
	}
	if t.ExpiresAt != 0 && t.ExpiresAt <= now {
		return revoked.Expired, nil
	}
	return revoked.Live, nil
}

// maxPageRows is the number of rows after which a page of grants ends. A page exceeds it only by
// the rows of its last grant.
const maxPageRows = 10_000

// A countingReader counts the rows that it reads.
type countingReader struct {
	lookup.Reader
	rows int
}

func (c *countingReader) Get(key []byte) ([]byte, error) {
	c.rows++
	return c.Reader.Get(key)
}

func (c *countingReader) Scan(prefix, start []byte, fn func(key, val []byte) (bool, error)) error {
	return c.Reader.Scan(prefix, start, func(key, val []byte) (bool, error) {
		c.rows++
		return fn(key, val)
	})
}

// Grants returns the grants that q selects, each with its state at the time now and without its
// tokens, in the order of their ids. It reads a bounded number of rows of a snapshot. So a page
// before the last one may have fewer grants than q.Limit, or none. It stops when ctx ends.
func (f *FSM) Grants(ctx context.Context, q *revoked.GrantQuery, now revoked.Time) (page revoked.GrantPage, err error) {
	st, err := f.acquire()
	if err != nil {
		return page, err
	}
	defer st.Release()
	snap := st.Snapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	var cursor []byte
	if q.After != "" {
		cursor = append(rows.SelectorPrefix(&q.Selector), q.After...)
	}
	read, last := &countingReader{Reader: snap}, ""
	err = lookup.EachGrant(read, &q.Selector, cursor, func(_ []byte, g *rows.Grant) (bool, error) {
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case last != "" && (read.rows > maxPageRows || len(page.Grants) == q.Limit):
			page.Next = last
			return false, nil
		}
		last = g.ID
		if !q.Matches(&g.Grant) {
			return true, nil
		}
		v, err := f.view(read, g, now, false)
		if err == nil && (q.State == 0 || q.State == v.State) {
			page.Grants = append(page.Grants, v)
		}
		return true, err
	})
	return page, err
}

// endedBy returns the newest cut-off that revoked a token of g, or nil.
func (f *FSM) endedBy(g *revoked.Grant) *revoked.Cutoff {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c := f.mem.Cutoffs.Find(g, &revoked.Token{}, 0)
	if c == nil {
		return nil
	}
	out := c.Cutoff
	return &out
}

// CountMatching counts the grants that a cut-off with selector s and issuedBefore (0: now) would
// affect. Such a grant has a token that is active at the time now and that the cut-off would end.
// It scans the index of the most selective property, or all grants if s names only an issuer, and
// stops when ctx ends.
func (f *FSM) CountMatching(ctx context.Context, s revoked.Selector, issuedBefore, now revoked.Time) (int, error) {
	st, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer st.Release()
	now = max(now, f.Stamp())
	if issuedBefore == 0 {
		issuedBefore = now
	}
	c := revoked.Cutoff{Selector: s, IssuedBefore: issuedBefore, At: now}
	n, seen := 0, 0
	err = lookup.EachGrant(st, &s, nil, func(_ []byte, g *rows.Grant) (bool, error) {
		if seen++; seen%256 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if g.Revoked != nil || !s.Matches(&g.Grant) {
			return true, nil
		}
		ends := false
		err := lookup.EachToken(st, g, func(t *revoked.Token) bool {
			ends = t.State == revoked.Live && c.Covers(&g.Grant, t, 0) &&
				(t.ExpiresAt == 0 || t.ExpiresAt > now) && !f.isCovered(&g.Grant, t, 0)
			return !ends
		})
		if ends {
			n++
		}
		return true, err
	})
	return n, err
}
