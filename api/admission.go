package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"revoked"
	"revoked/api/request"
	"revoked/api/strictjson"
	"revoked/internal/jointoken"
)

// An admissionBody is the body of POST /v1/cluster/admit and /v1/cluster/join-tokens.
type admissionBody struct {
	node     string
	nonVoter bool
	ttl      time.Duration
}

// fields returns the members of the body and sets the default of ttl.
func (b *admissionBody) fields() []request.Field {
	b.ttl = revoked.DefaultAdmissionTTL
	return []request.Field{
		request.Into("node", &b.node, readNode), request.Into("non_voter", &b.nonVoter, (*strictjson.Reader).Bool),
		request.Into("ttl", &b.ttl, request.ReadDuration),
	}
}

// readNode reads a node id. It rejects an invalid id, so that a typing error is reported before the
// node joins.
func readNode(j *strictjson.Reader) (string, error) {
	node, err := j.Name(request.MaxID)
	if err == nil && revoked.CheckNodeID(node) != nil {
		err = j.Fail("want a node id: 1 to 64 characters of A-Z a-z 0-9 . _ -")
	}
	return node, err
}

// errNoNode reports a missing node id. The calls that return it have no default node.
var errNoNode = fmt.Errorf("%w: node is missing", revoked.ErrInvalid)

// postAdmit serves POST /v1/cluster/admit. A repeated request replaces the admission and its ttl,
// so a caller may retry after an unknown outcome.
func (a *API) postAdmit(r *request.Request) error {
	var b admissionBody
	err := r.Decode(request.TypesJSON, b.fields()...)
	switch {
	case err != nil:
		return err
	case b.node == "":
		return errNoNode
	}
	r.Object.Node = b.node
	if err := revoked.CheckAdmissionTTL(b.ttl); err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.Admit(ctx, r.Actor(), b.node, b.nonVoter, b.ttl))
}

// deleteAdmit serves DELETE /v1/cluster/admit/{node}.
func (a *API) deleteAdmit(r *request.Request) error {
	node, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.WithdrawAdmission(ctx, r.Actor(), node))
}

// admittedView is one node in the response to GET /v1/cluster/admitted.
type admittedView struct {
	Node      string              `json:"node"`
	NonVoter  bool                `json:"non_voter"`
	State     string              `json:"state"`
	ExpiresAt request.UnixSeconds `json:"expires_at"` // null: does not expire
	By        string              `json:"by"`
}

// getAdmitted serves GET /v1/cluster/admitted.
func (a *API) getAdmitted(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	list, err := a.cfg.Backend.Admitted(ctx)
	if err != nil {
		return err
	}
	out := make([]admittedView, len(list))
	for i, n := range list {
		out[i] = admittedView{n.Node, n.NonVoter, n.State, request.UnixSeconds(n.ExpiresAt), n.By}
	}
	return r.SendJSON(http.StatusOK, map[string][]admittedView{"nodes": out})
}

// newTokenView is the response to POST /v1/cluster/join-tokens. Only this response contains the
// join token.
type newTokenView struct {
	ID        string              `json:"id"`
	Token     string              `json:"token"`
	ExpiresAt request.UnixSeconds `json:"expires_at"`
}

// postJoinTokens serves POST /v1/cluster/join-tokens. The cluster stores only the digest of the
// token's public key, so it cannot show a token again. After a lost response, create a new one.
func (a *API) postJoinTokens(r *request.Request) error {
	var b admissionBody
	if err := r.DecodeOptional(b.fields()...); err != nil {
		return err
	}
	if err := revoked.CheckAdmissionTTL(b.ttl); err != nil {
		return err
	}
	var id [8]byte
	rand.Read(id[:]) // never fails
	ca, err := a.cfg.Backend.ClusterCA()
	if err != nil {
		return err
	}
	token := jointoken.New(ca)
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	made, err := a.cfg.Backend.CreateJoinToken(ctx, r.Actor(), revoked.JoinToken{
		ID: hex.EncodeToString(id[:]), Hash: jointoken.Digest(token.PublicKey()), HasKey: true,
		Node: b.node, NonVoter: b.nonVoter,
	}, b.ttl)
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusCreated, newTokenView{made.ID, token.Text(), request.UnixSeconds(made.ExpiresAt)})
}

// joinTokenView is one token in the response to GET /v1/cluster/join-tokens.
type joinTokenView struct {
	ID        string                 `json:"id"`
	State     revoked.JoinTokenState `json:"state"`
	Node      string                 `json:"node,omitempty"`
	NonVoter  bool                   `json:"non_voter"`
	CreatedAt request.UnixSeconds    `json:"created_at"`
	ExpiresAt request.UnixSeconds    `json:"expires_at"`
	By        string                 `json:"by"`
	UsedBy    string                 `json:"used_by,omitempty"`
	UsedAt    request.UnixSeconds    `json:"used_at"` // null: not used
}

// getJoinTokens serves GET /v1/cluster/join-tokens. It shows used tokens too, so that an
// administrator sees which node used which token.
func (a *API) getJoinTokens(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	list, err := a.cfg.Backend.JoinTokens(ctx)
	if err != nil {
		return err
	}
	now := revoked.TimeOf(a.cfg.Now())
	out := make([]joinTokenView, len(list))
	for i := range list {
		t := &list[i]
		out[i] = joinTokenView{
			t.ID, t.State(now), t.Node, t.NonVoter, request.UnixSeconds(t.CreatedAt), request.UnixSeconds(t.ExpiresAt),
			t.By, t.UsedBy, request.UnixSeconds(t.UsedAt),
		}
	}
	return r.SendJSON(http.StatusOK, map[string][]joinTokenView{"join_tokens": out})
}

// deleteJoinToken serves DELETE /v1/cluster/join-tokens/{id}.
func (a *API) deleteJoinToken(r *request.Request) error {
	id, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.DeleteJoinToken(ctx, r.Actor(), id))
}

// postSuffrage serves POST /v1/cluster/promote and /v1/cluster/demote. Both wait for a change of
// Raft's configuration, which takes longer than the request timeout if the member is slow.
func (a *API) postSuffrage(change func(context.Context, revoked.Actor, string) (uint64, error)) request.Handler {
	return func(r *request.Request) error {
		var node string
		err := r.Decode(request.TypesJSON, request.Into("node", &node, request.Name(request.MaxID)))
		switch {
		case err != nil:
			return err
		case node == "":
			return errNoNode
		}
		r.Object.Node = node
		ctx, cancel := r.WithSlowTimeout()
		defer cancel()
		return r.SendIndex(change(ctx, r.Actor(), node))
	}
}
