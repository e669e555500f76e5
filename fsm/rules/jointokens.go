package rules

import (
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/rows"
)

// tokenFor returns the join token of m if it admits the node, else nil. old is the admission of the
// node. A barred node needs a token that was created for it after the bar.
func (a *Applier) tokenFor(m *command.JoinNode, old *revoked.Admission) *revoked.JoinToken {
	if len(m.TokenHash) == 0 {
		return nil
	}
	t := a.joinTokenByHash(revoked.Digest(m.TokenHash))
	// The public key of a token is not secret. So it must not be accepted as a token of the older
	// form.
	if t == nil || t.HasKey != m.HasKey || !t.Admits(m.Node, a.Stamp) {
		return nil
	}
	if !passesBar(t, old) {
		return nil
	}
	return t
}

// passesBar reports whether t may admit a node whose admission is old. For a barred node, t must
// name the node and be newer than the bar.
func passesBar(t *revoked.JoinToken, old *revoked.Admission) bool {
	return old == nil || old.State != revoked.Barred || t.Node != "" && t.Index > old.Index
}

// enrollNode uses a join token for a node and the key of its certificate. The node is then admitted
// until the end of the token, with that key only. Another key, or another node, cannot use the
// token. A node name that has joined is refused: otherwise the token would give its holder the
// certificate of a member. The token is also refused if another one already admits the same key for
// longer.
func (a *Applier) enrollNode(m *command.EnrollNode) Result {
	t, old := a.joinTokenByHash(revoked.Digest(m.TokenHash)), a.admission(m.Node)
	key := revoked.Digest(m.Key)
	switch {
	case t == nil || !t.HasKey || t.DeletedAt != 0 || a.Stamp >= t.ExpiresAt:
		return Result{Err: revoked.ErrTokenEnded}
	case old != nil && old.State == revoked.Joined || instanceOf(a.currentMembers().List, m.Node) != "":
		return Result{Err: fmt.Errorf("%w: %s has joined already and cannot get a certificate from a join token",
			revoked.ErrConflict, m.Node)}
	case t.UsedBy == m.Node && old != nil && old.JoinToken == t.ID && old.Key == key && old.Open(a.Stamp):
		return Result{} // a retry
	case t.UsedBy != "":
		return Result{Err: revoked.ErrTokenUsed}
	case t.Node != "" && t.Node != m.Node:
		return Result{Err: fmt.Errorf("%w: join token is for another node", revoked.ErrForbidden)}
	case !passesBar(t, old):
		return Result{Err: revoked.NotAdmittedError(m.Node, true)}
	case old != nil && old.Key.IsZero() && old.Open(a.Stamp):
		// This error makes the node retry, because an administrator may withdraw the admission.
		return Result{Err: fmt.Errorf("%w: %s is admitted by name, with an existing certificate: "+
			"withdraw that admission first", revoked.ErrUnprocessable, m.Node)}
	case old != nil && old.Key == key && old.Open(a.Stamp) && old.ExpiresAt > t.ExpiresAt:
		return Result{Err: fmt.Errorf("%w: join token %s already admits %s with this key until %s, which is later: "+
			"use that token or delete it first", revoked.ErrConflict, old.JoinToken, m.Node,
			old.ExpiresAt.Std().UTC().Format(time.RFC3339))}
	}
	if err := a.checkKey(old, key); err != nil {
		return Result{Err: err}
	}
	until := t.ExpiresAt
	if old != nil && old.Key == key { // an earlier certificate of this key may be valid longer
		until = max(until, old.KeyUntil)
	}
	used := *t
	used.UsedBy, used.UsedAt = m.Node, a.Stamp
	a.putJoinToken(&used)
	a.usedToken = t.ID
	a.decide(revoked.Admission{
		Node: m.Node, State: revoked.Admitted, By: t.By, ExpiresAt: t.ExpiresAt, JoinToken: t.ID, Key: key,
		KeyUntil: until, NonVoter: t.NonVoter,
	})
	return Result{}
}

// createJoinToken creates a token. A retry changes nothing. The state contains only the digest of
// the token, so a reader of the state cannot join with it.
func (a *Applier) createJoinToken(by string, m *command.CreateJoinToken) Result {
	hash := revoked.Digest(m.Hash)
	old, same := a.joinToken(m.Id), a.joinTokenByHash(hash)
	switch {
	case old != nil && old == same:
		return Result{}
	case old != nil || same != nil:
		return Result{Err: fmt.Errorf("%w: the join token exists", revoked.ErrConflict)}
	}
	if n := len(stagedValues(a.mem.JoinTokens, a.joinTokens)); n >= revoked.MaxJoinTokens {
		return Result{Err: fmt.Errorf("%w: too many join tokens: %d exist or ended in the last day",
			revoked.ErrUnprocessable, n)}
	}
	a.putJoinToken(&revoked.JoinToken{
		ID: m.Id, Hash: hash, HasKey: m.HasKey, Node: m.Node, NonVoter: m.NonVoter, By: by, Index: a.Index,
		CreatedAt: a.Stamp, ExpiresAt: a.Stamp.Add(time.Duration(m.Ttl)),
	})
	return Result{}
}

// deleteJoinToken deletes a token, and withdraws the admission that came from it, unless the node
// has joined. A retry changes nothing. The row stays for a day, so that the retry finds it.
func (a *Applier) deleteJoinToken(by, id string) Result {
	old := a.joinToken(id)
	if old == nil {
		return Result{Err: fmt.Errorf("%w: join token %q", revoked.ErrNotFound, id)}
	}
	if old.DeletedAt == 0 {
		next := *old
		next.DeletedAt = a.Stamp
		a.putJoinToken(&next)
	}
	if v := a.admission(old.UsedBy); v != nil && v.JoinToken == old.ID && a.hasNotJoined(v) {
		a.decide(a.withdrawnFrom(v, by))
		a.withdrawn = v.Node
	}
	return Result{}
}

// expireJoinToken drops a join token that ended long ago.
func (a *Applier) expireJoinToken(id string, due revoked.Time) {
	v := a.joinToken(id)
	if v == nil || (&rows.JoinToken{JoinToken: *v}).Due() != due {
		a.fail(errStray("join token", id))
		return
	}
	a.dropJoinToken(v)
}

// joinToken returns a join token, or nil if it does not exist. The caller must not change it.
func (a *access) joinToken(id string) *revoked.JoinToken {
	if v, ok := a.joinTokens[id]; ok {
		return v
	}
	return a.mem.JoinTokens[id]
}

// joinTokenByHash returns the join token with that digest, or nil.
func (a *access) joinTokenByHash(hash revoked.Digest) *revoked.JoinToken {
	for _, v := range a.joinTokens {
		if v != nil && v.Hash == hash {
			return v
		}
	}
	if v := a.mem.JoinTokenByHash(hash); v != nil && a.joinToken(v.ID) == v {
		return v
	}
	return nil
}

// putJoinToken writes v, which must not change afterwards, and moves its queue entry.
func (a *access) putJoinToken(v *revoked.JoinToken) {
	key := rows.Key(nil, rows.FamilyJoinToken, v.ID)
	row := rows.JoinToken{JoinToken: *v}
	a.requeue(key, a.joinTokenDue(v.ID), row.Due())
	a.put(key, a.get(key), rows.Append(nil, &row))
	put(&a.joinTokens, v.ID, v)
}

func (a *access) dropJoinToken(v *revoked.JoinToken) {
	key := rows.Key(nil, rows.FamilyJoinToken, v.ID)
	a.requeue(key, a.joinTokenDue(v.ID), 0)
	a.del(key, a.get(key))
	put(&a.joinTokens, v.ID, nil)
}

// joinTokenDue returns the time of the queue entry of a join token, or 0 if the token does not
// exist.
func (a *access) joinTokenDue(id string) revoked.Time {
	old := a.joinToken(id)
	if old == nil {
		return 0
	}
	return (&rows.JoinToken{JoinToken: *old}).Due()
}
