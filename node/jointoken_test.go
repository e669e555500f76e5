package node_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/jointoken"
	"revoked/node"
	"revoked/node/nodepb"
	"revoked/node/nodetest"
)

// A joinCaller sends made-up joins with the certificate of a node that is not a member.
type joinCaller struct {
	t  *testing.T
	c  *nodetest.Cluster
	m  *nodetest.Member
	to *nodetest.Member
}

// send sends the join that makeReq returns for the binding of a new connection.
func (j joinCaller) send(makeReq func(binding []byte) *nodepb.JoinRequest) (answer string) {
	j.t.Helper()
	j.c.Until("an answer of a leader", func() bool {
		var resp nodepb.AdminResponse
		err := j.m.Node.CallBound(j.t.Context(), j.to.ClusterAddr(), nodepb.PathJoin, func(b []byte) proto.Message {
			return makeReq(b)
		}, &resp)
		answer = resp.Detail
		return err == nil && resp.Code != revoked.Code(revoked.ErrNoLeader)
	})
	return answer
}

func parseToken(t *testing.T, text string) jointoken.Token {
	t.Helper()
	token, err := jointoken.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// The proof of a join token is invalid on another connection and for another node or instance. The
// leader also checks a proof that a member forwards.
func TestJoinToken_ProofElsewhere_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	follower, m := c.Follower(), c.Add()
	m.Start()
	token := parseToken(t, joinToken(t, c, `{}`))
	hello := m.Node.Hello()
	forged := jointoken.New(token.CA())
	proof := func(t jointoken.Token, node, instance string, b []byte) *nodepb.JoinRequest {
		return &nodepb.JoinRequest{Hello: hello, TokenKey: t.PublicKey(), TokenProof: t.SignJoin(node, instance, b)}
	}
	var captured *nodepb.JoinRequest
	const (
		unproved = "join token: %s did not prove that it holds the token"
		unknown  = "%s is not admitted: admit it with"
	)
	for _, to := range c.Members[:3] { // the leader, and members that forward
		caller := joinCaller{t, c, m, to}
		for _, tt := range []struct {
			name, want string
			makeReq    func(binding []byte) *nodepb.JoinRequest
		}{
			{"another instance", unproved, func(b []byte) *nodepb.JoinRequest {
				return proof(token, m.ID, "other", b)
			}},
			{"another node", unproved, func(b []byte) *nodepb.JoinRequest {
				return proof(token, "other", hello.Instance, b)
			}},
			{"captured", unproved, func([]byte) *nodepb.JoinRequest {
				if captured == nil { // as it would be on another connection
					captured = proof(token, m.ID, hello.Instance, bytes.Repeat([]byte{1}, 32))
				}
				return captured
			}},
			{"captured, with its binding", unproved, func(b []byte) *nodepb.JoinRequest {
				req := proof(token, m.ID, hello.Instance, bytes.Repeat([]byte{1}, 32))
				req.Binding = bytes.Repeat([]byte{1}, 32)
				captured = proof(token, m.ID, hello.Instance, b) // for the next member
				return req
			}},
			{"no binding", unproved, func([]byte) *nodepb.JoinRequest {
				return proof(token, m.ID, hello.Instance, nil)
			}},
			{"no proof", unproved, func([]byte) *nodepb.JoinRequest {
				return &nodepb.JoinRequest{Hello: hello, TokenKey: token.PublicKey()}
			}},
			{"key of another token", unproved, func(b []byte) *nodepb.JoinRequest {
				req := proof(forged, m.ID, hello.Instance, b)
				req.TokenKey = token.PublicKey()
				return req
			}},
			{"the token itself", "join token: %s runs version ", func([]byte) *nodepb.JoinRequest {
				return &nodepb.JoinRequest{Hello: hello, Token: token.Text()}
			}},
			{"unknown token", unknown, func(b []byte) *nodepb.JoinRequest {
				return proof(forged, m.ID, hello.Instance, b)
			}},
			{"forwarded by itself", "join request: forwarded by %s, which is not a member", func(b []byte) *nodepb.JoinRequest {
				req := proof(token, m.ID, hello.Instance, b)
				req.Forwarded = true
				return req
			}},
		} {
			want := strings.ReplaceAll(tt.want, "%s", m.ID)
			if got := caller.send(tt.makeReq); !strings.HasPrefix(got, want) {
				t.Errorf("%s at %s: got %q, want %q", tt.name, to.ID, got, want)
			}
		}
	}
	// A forwarding member vouches only for the binding.
	forwarded := &nodepb.JoinRequest{Hello: hello, Forwarded: true, TokenKey: token.PublicKey(),
		TokenProof: forged.SignJoin(m.ID, hello.Instance, []byte("b")), Binding: []byte("b")}
	c.Until("an answer of the leader", func() bool {
		var resp nodepb.AdminResponse
		err := follower.Node.CallLeader(t.Context(), nodepb.PathJoin, forwarded, &resp)
		want := strings.ReplaceAll(unproved, "%s", m.ID)
		if answered := err == nil && resp.Code != revoked.Code(revoked.ErrNoLeader); !answered {
			return false
		}
		if !strings.HasPrefix(resp.Detail, want) {
			t.Errorf("made-up proof, forwarded: got %q, want %q", resp.Detail, want)
		}
		return true
	})
	if got := len(members(t, c)); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
	caller := joinCaller{t, c, m, follower}
	own := func(b []byte) *nodepb.JoinRequest { return proof(token, m.ID, hello.Instance, b) }
	if got := caller.send(own); got != "" {
		t.Errorf("own proof: got %q, want it admitted", got)
	}
	c.Until("the new node is a member", func() bool { return len(members(t, c)) == 4 })
}

// A node with a token does not send it to a member that does not support its form.
func TestJoinToken_OldMember_ErrorContainsItsName(t *testing.T) {
	t.Parallel()
	token, version := "", uint32(command.Version)
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) {
		conf.JoinToken, conf.Version = token, "1.0"
		if conf.NodeID == "node1" {
			conf.Announce(version)
			conf.Version = "0.9"
		}
	}})
	token = joinToken(t, c, `{}`)
	version = command.KeyTokens - 1
	c.Members[0].Restart()
	m := c.Add()
	m.Start()
	const want = "join token: node1 runs version 0.9, " +
		"which does not support join tokens of this form; upgrade it to version 1.0"
	c.Until("the member is named", func() bool {
		r := join(m, c.Members[0])
		return r.Status == http.StatusUnprocessableEntity && strings.Contains(r.Body, want)
	})
}

// The leader does not create a token with a key while a member could not apply it.
func TestJoinToken_OldMemberInCluster_IsNotCreated(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		if conf.NodeID == "node3" {
			conf.Announce(command.KeyTokens - 1)
			conf.NonVoter = true // it must not lead
		}
	}})
	namesOld(t, c, c.Leader, "node3", "/v1/cluster/join-tokens", `{}`)
}

// Deleting a used token withdraws its admission, unless the node has joined.
func TestDeleteJoinToken_Member_StaysAdmitted(t *testing.T) {
	t.Parallel()
	tokens := map[string]string{}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) { conf.JoinToken = tokens[conf.NodeID] }})
	m := c.Add()
	tokens[m.ID] = joinToken(t, c, `{"non_voter":true}`)
	m.Start()
	mustJoin(t, m, c.Members[0])
	r := adminCall(t, c.Leader(), "GET", "/v1/cluster/join-tokens", "", 200)
	_, rest, _ := strings.Cut(r.Body, `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	adminCall(t, c.Leader(), "DELETE", "/v1/cluster/join-tokens/"+id, "", 200)
	r = adminCall(t, c.Leader(), "GET", "/v1/audit?kind=cluster.token", "", 200)
	if strings.Contains(r.Body, m.ID) || strings.Count(r.Body, id) != 2 {
		t.Errorf("got %s, want a creation and a deletion that withdraws no node", r.Body)
	}
	r = adminCall(t, c.Leader(), "GET", "/v1/cluster/admitted", "", 200)
	if want := `{"node":"` + m.ID + `","non_voter":true,"state":"member"`; !strings.Contains(r.Body, want) {
		t.Errorf("got %s, want %s", r.Body, want)
	}
}
