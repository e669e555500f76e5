package fsm

import (
	"revoked"
	"revoked/fsm/lookup"
)

// LookupToken reads a token or its stub. It reports false if the digest is not registered.
func (f *FSM) LookupToken(d revoked.Digest) (revoked.Token, bool, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.Token{}, false, err
	}
	defer s.Release()
	return lookup.Token(s, d)
}

// LookupGrant reads a grant. It reports false if the grant does not exist.
func (f *FSM) LookupGrant(id string) (revoked.Grant, bool, error) {
	s, err := f.acquire()
	if err != nil {
		return revoked.Grant{}, false, err
	}
	defer s.Release()
	g, ok, err := lookup.Grant(s, id)
	return g.Grant, ok, err
}

// AssertionUse returns the id of the request that used an assertion. The result used is false if
// the state does not record a use of the assertion.
func (f *FSM) AssertionUse(key revoked.Digest) (request [16]byte, used bool, err error) {
	s, err := f.acquire()
	if err != nil {
		return request, false, err
	}
	defer s.Release()
	return lookup.AssertionUse(s, key)
}

// Decide applies revoked.Decide to a registered token, or to the empty record of an unknown one.
func (f *FSM) Decide(r *revoked.Record, now revoked.Time) (revoked.Decision, error) {
	f.mu.RLock()
	in := revoked.DecideInput{
		Now: now, Stamp: f.mem.Applied.Stamp, Client: f.mem.Clients[r.Grant.ClientID], Cutoff: f.covered,
	}
	trusted := len(f.mem.IssuersByID) > 0 && f.mem.IssuersByID[r.Grant.Issuer] != nil
	f.mu.RUnlock()
	if !trusted || r.Token.JTI == "" {
		return revoked.Decide(r, in), nil
	}
	s, err := f.acquire()
	if err != nil {
		return revoked.Decision{}, err
	}
	defer s.Release()
	denial, err := lookup.Denial(s.Get, jtiOf(r), false)
	if err != nil {
		return revoked.Decision{}, err
	}
	in.Denied = denial != nil
	return revoked.Decide(r, in), nil
}

// DecideJWT returns the input of revoked.Decide for a verified JWT that is not registered. The
// caller sets Key and Denied. Issuer is nil if no record of the issuer exists.
func (f *FSM) DecideJWT(j *revoked.JWT, now revoked.Time) revoked.DecideInput {
	f.mu.RLock()
	defer f.mu.RUnlock()
	in := revoked.DecideInput{
		Now: now, Stamp: f.mem.Applied.Stamp, Client: f.mem.Clients[j.ClientID], Cutoff: f.covered,
	}
	if v := f.mem.IssuersByID[j.Issuer]; v != nil {
		in.Issuer = &v.Issuer
	}
	in.ClientGone = in.Client == nil && f.mem.Deleted[j.ClientID] != nil
	for i := range j.Earlier {
		id := j.Earlier[i].ClientID
		switch c := f.mem.Clients[id]; {
		case c != nil && c.Disabled:
			in.EarlierClient = revoked.ReasonClientDisabled
		case c == nil && f.mem.Deleted[id] != nil:
			in.EarlierClient = revoked.ReasonClientUnknown
		}
	}
	return in
}

// Client returns a client. It reports false if the client does not exist. The caller must not
// change the client.
func (f *FSM) Client(id string) (*revoked.Client, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c, ok := f.mem.Clients[id]
	return c, ok
}

// Clients returns all clients, sorted by id. The caller must change neither the slice nor the
// clients.
func (f *FSM) Clients() []*revoked.Client {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Sorted
}

// Settings returns the replicated settings, or the defaults before Bootstrap.
func (f *FSM) Settings() revoked.Settings {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Settings.At(f.mem.Applied.Stamp)
}

// ClusterID returns the id of the cluster, or "" before Bootstrap.
func (f *FSM) ClusterID() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.ClusterID
}

// Stamp returns the newest stamp of the log.
func (f *FSM) Stamp() revoked.Time {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Applied.Stamp
}

// Position returns the index and the term of the last entry that the state includes.
func (f *FSM) Position() (index, term uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Applied.Index, f.mem.Applied.Term
}

// Counts returns the number of tokens in state Live and of grants that are not revoked. Expired
// tokens count until Expire turns them into stubs, and tokens that a cut-off revoked until Compact
// does.
func (f *FSM) Counts() (tokens, grants uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem.Applied.Tokens, f.mem.Applied.Grants
}

// Hashes returns the newest applied index and the two hashes at it. log is a rolling hash of the
// index, term and bytes of every command; state is the order-independent hash of the rows of the
// state. Both are equal on every member at the same index.
func (f *FSM) Hashes() (index uint64, log, state [32]byte) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := &f.mem.Applied
	return a.Index, a.LogHash, a.State.Bytes()
}

// HashesAt returns the hashes at index. It reports false unless index is among the newest few
// thousand applied since the start of the process or the last restore.
func (f *FSM) HashesAt(index uint64) (log, state [32]byte, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, ok := f.ring.at(index)
	return p.Log, p.State, ok
}
