package roster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
)

// A certificate of the cluster's CA must not be enough to replicate a log to a node that joins.
func TestAllowRaft_EmptyLog_AllowsExpectedOnly(t *testing.T) {
	hellos := map[string]*nodepb.Hello{
		"a:1": {ClusterId: "c", MemberIds: []string{"a", "late"}},
		"x:1": {ClusterId: "other", MemberIds: []string{"x"}},
		"y:1": {MemberIds: []string{"y"}}, // not in a cluster
	}
	bound := ""
	j := &joiner{local: &local{Config: Config{
		Context: t.Context(), Identity: Identity{Cluster: func() string { return bound }},
	}}}
	j.exchange = func(_ context.Context, host string) (*nodepb.Hello, error) {
		if h := hellos[host]; h != nil {
			return h, nil
		}
		return nil, revoked.ErrNoLeader
	}
	want := func(when string, allowed map[string]bool) {
		t.Helper()
		for peer, ok := range allowed {
			if err := j.allowRaft(peer); ok != (err == nil) || err != nil && !errors.Is(err, revoked.ErrForbidden) {
				t.Errorf("%s, %s: got %v, want allowed %t", when, peer, err, ok)
			}
		}
	}
	want("before a join", map[string]bool{"a": false, "removed": false})
	j.expected.add([]string{"a", "b"}, []string{"down:1", "a:1", "y:1"})
	want("joining", map[string]bool{"a": true, "b": true, "late": true, "removed": false, "y": false, "x": false})
	j.expected.add(nil, []string{"x:1"})
	bound = "c"
	want("bound", map[string]bool{"a": true, "late": true, "x": false})
}

// A joining node gets 422 only if a retry cannot succeed. A member without a leader may admit the
// node a moment later. A member whose response is lost may have admitted it already.
func TestJoinAt_AllAddressesFail_ReturnsMainReason(t *testing.T) {
	const inNoCluster, unreachable, silent = 1000, 1001, 1002
	noLeader, forbidden := revoked.Code(revoked.ErrNoLeader), revoked.Code(revoked.ErrForbidden)
	r := singleRoster(t)
	for name, tc := range map[string]struct {
		answers []uint32 // answers of the addresses in order: a revoked.Code, or one of the constants above
		want    error
	}{
		"no node at the address":     {[]uint32{unreachable}, revoked.ErrUnprocessable},
		"node outside a cluster":     {[]uint32{inNoCluster, unreachable}, revoked.ErrUnprocessable},
		"member without a leader":    {[]uint32{noLeader}, revoked.ErrNoLeader},
		"one of three has no leader": {[]uint32{unreachable, noLeader, inNoCluster}, revoked.ErrNoLeader},
		"leadership has changed":     {[]uint32{revoked.Code(revoked.ErrOutcomeUnknown)}, revoked.ErrOutcomeUnknown},
		"response lost":              {[]uint32{silent, unreachable}, revoked.ErrOutcomeUnknown},
		"member overloaded":          {[]uint32{revoked.Code(revoked.ErrOverloaded)}, revoked.ErrOverloaded},
		"not admitted":               {[]uint32{noLeader, forbidden}, revoked.ErrForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			r.Call = func(_ context.Context, host, _, path string, _, resp proto.Message) error {
				i := slices.Index([]string{"a:1", "b:1", "c:1"}, host)
				answer := tc.answers[i]
				switch resp := resp.(type) {
				case *nodepb.Hello:
					if answer == unreachable {
						return revoked.ErrNoLeader
					}
					resp.NodeId = host
					if answer != inNoCluster {
						resp.ClusterId = "c"
					}
				case *nodepb.AdminResponse:
					if answer == silent {
						return revoked.ErrOutcomeUnknown
					}
					resp.Code = answer
				default:
					t.Errorf("got a call to %s, want a hello or a join", path)
				}
				return nil
			}
			hosts := []string{"a:1", "b:1", "c:1"}[:len(tc.answers)]
			_, err := r.joiner.joinAt(t.Context(), hosts)
			if !errors.Is(err, tc.want) || tc.want != revoked.ErrUnprocessable && errors.Is(err, revoked.ErrUnprocessable) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// A member may first report during the commit that its version is too old for the operation.
func TestUseAdmission_OldMember_NeedsNoAdmission(t *testing.T) {
	r := singleRoster(t)
	if err := r.Raft.AddNonvoter("old/1", "old:1", 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	r.Commit = func(context.Context, *command.Op) error {
		r.peers.reports["old/1"] = &peerState{at: time.Now(), hello: &nodepb.Hello{NodeId: "old", Commands: 1}}
		return fmt.Errorf("%w: old does not support it", revoked.ErrUnprocessable)
	}
	turn, err := r.changes.begin()
	if err != nil {
		t.Fatal(err)
	}
	defer turn.end()
	if err := turn.useAdmission(t.Context(), &nodepb.Hello{NodeId: "new", Commands: 2}, presented{}); err != nil {
		t.Errorf("got %v, want no admission needed while a member is old", err)
	}
}

// A node that does not support an operation in the log is not admitted: it would stop there.
func TestUseAdmission_NewerLog_RejectsOldNode(t *testing.T) {
	r := singleRoster(t)
	r.Commit = func(context.Context, *command.Op) error { return nil }
	data, err := command.Encode(&command.Batch{Stamp: 1, Ops: []*command.Op{
		command.DeleteIssuerOp(revoked.Actor{ClientID: "admin"}, "as1"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.FSM.Apply(&raft.Log{Index: 1, Term: 1, Type: raft.LogCommand, Data: data})
	turn, err := r.changes.begin()
	if err != nil {
		t.Fatal(err)
	}
	defer turn.end()
	for commands, want := range map[uint32]error{2: revoked.ErrUnprocessable, 3: nil, 4: nil} {
		hello := &nodepb.Hello{NodeId: "new", Commands: commands, Version: "0.9"}
		if err := turn.useAdmission(t.Context(), hello, presented{}); !errors.Is(err, want) {
			t.Errorf("a node that supports version %d: got %v, want %v", commands, err, want)
		}
	}
}

// An applied is the state of a roster, to which a test applies commands.
type applied struct {
	t     *testing.T
	r     *Roster
	index uint64
}

func (a *applied) apply(c command.Command) {
	a.t.Helper()
	data, err := command.Encode(c)
	if err != nil {
		a.t.Fatal(err)
	}
	a.index++
	a.r.FSM.Apply(&raft.Log{Index: a.index, Term: 1, Type: raft.LogCommand, Data: data})
}

// enroll creates a join token whose id is the node's name, and uses it for the node and the key.
func (a *applied) enroll(node string, key revoked.Digest, at revoked.Time) {
	a.t.Helper()
	admin, ok := a.r.FSM.Client("admin")
	if !ok {
		hash := revoked.DigestToken("secret")
		admin = &revoked.Client{ID: "admin", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleAdmin},
			AuthMethods: []string{revoked.AuthBasic},
			Secrets:     []revoked.SecretHash{{Kind: revoked.HashSHA256, Salt: []byte("salt"), Hash: hash[:]}}}
		a.apply(&command.Bootstrap{ClusterId: "c", Clients: []*command.ClientRecord{command.ClientMessage(admin)}})
		admin, _ = a.r.FSM.Client("admin")
	}
	hash := revoked.DigestToken(node)
	a.apply(&command.Batch{Stamp: int64(at), Ops: []*command.Op{
		command.CreateJoinTokenOp(revoked.ActorOf(admin), &revoked.JoinToken{ID: node, Hash: hash, HasKey: true}, time.Hour),
		command.EnrollNodeOp(node, hash, key, "self"),
	}})
	if v, ok := a.r.FSM.Admission(node); !ok || v.Key != key {
		a.t.Fatalf("%s: got %+v, want an admission with the key", node, v)
	}
}

// The leader compares the node's key only with an open admission. Apply has the same rule.
func TestUseAdmission_OtherKey_RefusedWhileOpen(t *testing.T) {
	r := singleRoster(t)
	r.Clock.SetVoters([]string{"self/1"})
	committed := 0
	r.Commit = func(context.Context, *command.Op) error { committed++; return nil }
	now := revoked.TimeOf(time.Now())
	key, state := revoked.DigestToken("key"), applied{t: t, r: r}
	turn, err := r.changes.begin()
	if err != nil {
		t.Fatal(err)
	}
	defer turn.end()
	for _, tt := range []struct {
		node    string
		created revoked.Time
		want    error
	}{
		{"expired", now.Add(-2 * time.Hour), nil},
		{"open", now, revoked.ErrForbidden},
	} {
		node := tt.node
		state.enroll(node, key, tt.created)
		committed = 0
		err := turn.useAdmission(t.Context(), &nodepb.Hello{NodeId: node, Commands: command.Version},
			presented{certificate: revoked.DigestToken("another")})
		if !errors.Is(err, tt.want) || (committed == 1) != (tt.want == nil) {
			t.Errorf("%s: got %v, %d commits, want %v", node, err, committed, tt.want)
		}
	}
}

// Between the leader's comparison of the keys and the commit, a node with another certificate for
// the same name may use a join token. In that case, the commit used up the admission of the other
// certificate.
func TestAdmit_EnrolledMeanwhile_IsRefused(t *testing.T) {
	own, thief := revoked.DigestToken("own"), revoked.DigestToken("thief")
	for name, tt := range map[string]struct {
		key  revoked.Digest
		want error
	}{
		"same key":    {own, nil},
		"another key": {thief, revoked.ErrForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			r := singleRoster(t)
			r.Clock.SetVoters([]string{"self/1"})
			r.Leader.CommitInTerm = func(context.Context, uint64, *command.Op) error { return nil }
			state := applied{t: t, r: r}
			r.Commit = func(_ context.Context, op *command.Op) error {
				now := revoked.TimeOf(time.Now())
				state.enroll("new", tt.key, now)
				state.apply(&command.Batch{Stamp: int64(now), Ops: []*command.Op{op}})
				return nil
			}
			hello := &nodepb.Hello{NodeId: "new", Instance: "1", ClusterAddr: "new:1", Commands: command.Version}
			_, err := r.changes.admit(t.Context(), hello, presented{certificate: own})
			conf, confErr := r.Configuration()
			if !errors.Is(err, tt.want) || confErr != nil || (len(conf.Servers) == 2) != (tt.want == nil) {
				t.Errorf("got %v and %v, %v, want %v", err, conf, confErr, tt.want)
			}
		})
	}
}
