package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
	"revoked/node/nodetest"
)

// logLines collects the log of a cluster.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) handler() slog.Handler { return slog.NewTextHandler(l, nil) }

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

// has reports whether a line has all of the parts.
func (l *logLines) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	})
}

// A thief has the key of one admitted member, and nothing else.
type thief struct {
	c *nodetest.Cluster
	m *nodetest.Member
}

// call retries a call until a leader responds, and returns the error in the response.
func (th thief) call(path string, req proto.Message) (err error) {
	th.c.T.Helper()
	th.c.Until("a leader decides", func() bool {
		ctx, cancel := context.WithTimeout(th.c.T.Context(), nodetest.LongStop)
		defer cancel()
		if path == nodepb.PathSubmit {
			var resp nodepb.SubmitResponse
			if err = th.m.Node.CallLeader(ctx, path, req, &resp); err == nil {
				err = nodepb.DecodeError(resp.Code, resp.Detail)
			}
			for _, r := range resp.Results {
				err = errors.Join(err, nodepb.DecodeError(r.Code, r.Detail))
			}
		} else {
			var resp nodepb.AdminResponse
			if err = th.m.Node.CallLeader(ctx, path, req, &resp); err == nil {
				err = nodepb.DecodeError(resp.Code, resp.Detail)
			}
		}
		return !errors.Is(err, revoked.ErrNoLeader) && !errors.Is(err, revoked.ErrOutcomeUnknown) &&
			!errors.Is(err, revoked.ErrNotCurrent)
	})
	return err
}

func (th thief) want(want error, what, path string, req proto.Message) {
	th.c.T.Helper()
	if err := th.call(path, req); !errors.Is(err, want) || want == nil && err != nil {
		th.c.T.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// The key of an admitted member does not make its thief an administrator. The leader checks the
// caller that a request names against its own state, and logs which member forwarded the request.
func TestStolenKey_CallerLacksRole_IsRefused(t *testing.T) {
	t.Parallel()
	var log logLines
	c := nodetest.Start(t, nodetest.Options{Log: log.handler()})
	th := thief{c, c.Follower()}
	by := admin(c)
	known, ok := th.m.Node.Client("issuer")
	if !ok {
		t.Fatal("client issuer: got none, want one")
	}
	issuer := revoked.ActorOf(known)
	issuer.Admin = true // a false claim
	refused := map[string]struct {
		by   revoked.Actor
		want error
	}{
		"guessed version": {revoked.Actor{ClientID: "admin", Version: by.Version + 1}, revoked.ErrActorChanged},
		"made-up caller":  {revoked.Actor{ClientID: "root", Version: by.Version}, revoked.ErrActorChanged},
		"wrong role":      {issuer, revoked.ErrForbidden},
	}
	victim := c.Leader().ID
	kinds := []nodepb.AdminRequest_Kind{nodepb.AdminRequest_REMOVE, nodepb.AdminRequest_TRANSFER,
		nodepb.AdminRequest_PROMOTE, nodepb.AdminRequest_DEMOTE}
	for name, tt := range refused {
		for what, op := range map[string]*command.Op{
			"new client": command.PutClientOp(tt.by, &revoked.Client{ID: "mallory", Type: revoked.Confidential,
				Roles: []revoked.Role{revoked.RoleAdmin}, Secrets: nodetest.Clients()[0].Secrets}, 0),
			"settings":  command.PutSettingsOp(tt.by, th.m.Node.Settings(), th.m.Node.Settings().Version),
			"admission": command.AdmitNodeOp(tt.by, "node9", false, time.Hour),
			"bar":       command.BarNodeOp(tt.by, victim, "stolen"),
		} {
			th.want(tt.want, what+", "+name, nodepb.PathSubmit, &nodepb.SubmitRequest{Ops: []*command.Op{op}, Final: true})
		}
		for _, kind := range kinds {
			th.want(tt.want, kind.String()+", "+name, nodepb.PathAdmin, &nodepb.AdminRequest{
				Kind: kind, Node: victim, Force: true, Reason: "stolen", Actor: command.ActorMessage(tt.by)})
		}
	}
	for _, kind := range kinds {
		th.want(revoked.ErrForbidden, kind.String()+" without a caller", nodepb.PathAdmin,
			&nodepb.AdminRequest{Kind: kind, Node: victim, Force: true, Reason: "stolen"})
	}
	th.want(revoked.ErrForbidden, "leave of another", nodepb.PathAdmin, &nodepb.AdminRequest{
		Kind: nodepb.AdminRequest_LEAVE, Server: victim + "/1", Actor: command.ActorMessage(by)})
	th.want(revoked.ErrNotFound, "administrator", nodepb.PathAdmin, &nodepb.AdminRequest{
		Kind: nodepb.AdminRequest_REMOVE, Node: "nodeX", Actor: command.ActorMessage(by)})
	if got := len(members(t, c)); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
	if _, ok := c.Leader().Node.Client("mallory"); ok {
		t.Error("got a client of the thief's, want none")
	}
	th.want(nil, "administrator", nodepb.PathSubmit, &nodepb.SubmitRequest{
		Ops: []*command.Op{command.AdmitNodeOp(by, "node9", false, time.Hour)}, Final: true})
	for _, line := range [][]string{
		{"membership change failed", "change=DEMOTE", "target=" + victim, "client_id=root", "via=" + th.m.ID},
		{"membership change failed", "change=REMOVE", "target=nodeX", "client_id=admin", "via=" + th.m.ID},
		{"forwarded operation failed", "operation=put_client", "client_id=root", "via=" + th.m.ID},
		{"forwarded operation completed", "operation=admit_node", "client_id=admin", "via=" + th.m.ID},
	} {
		c.Until(fmt.Sprintf("a log line with %q", line), func() bool { return log.has(line...) })
	}
}

// A member may forward the join of another node. The leader calls that node: the key of one member
// neither moves another nor adds instances, and does not use up an admission.
func TestStolenKey_ForwardsMadeUpJoins_AreRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	th := thief{c, c.Follower()}
	silent := c.Add() // has a certificate, is not a member, and is admitted
	c.Admit(silent)
	for _, o := range c.Members[:3] {
		if o == th.m {
			continue
		}
		moved := o.Node.Hello()
		moved.ClusterAddr = th.m.ClusterAddr()
		th.wantJoinRefused(t, "other address of "+o.ID, &nodepb.JoinRequest{Hello: moved, Forwarded: true})
		th.wantJoinRefused(t, "own name for "+o.ID, &nodepb.JoinRequest{Hello: o.Node.Hello()})
	}
	for i := range 20 {
		instance := fmt.Sprintf("made-up-%d", i)
		for _, h := range []*nodepb.Hello{
			{NodeId: silent.ID, Instance: instance, ClusterAddr: th.m.ClusterAddr(), Commands: command.Version},
			{NodeId: silent.ID, Instance: instance, ClusterAddr: silent.ClusterAddr(), Commands: command.Version},
			{NodeId: th.m.ID, Instance: instance, ClusterAddr: silent.ClusterAddr(), Commands: command.Version},
		} {
			th.wantJoinRefused(t, "made-up instance of "+h.NodeId, &nodepb.JoinRequest{Hello: h, Forwarded: true})
		}
		th.wantJoinRefused(t, "made-up instance of its own", &nodepb.JoinRequest{Hello: &nodepb.Hello{
			NodeId: th.m.ID, Instance: instance, ClusterAddr: silent.ClusterAddr(), Commands: command.Version}})
	}
	if hello := c.Leader().Node.Hello(); len(hello.MemberServers) != 3 {
		t.Errorf("got servers %v, want 3", hello.MemberServers)
	}
	silent.Start()
	c.Until("the node itself joins through a follower", func() bool {
		r := join(silent, th.m)
		return r.Status == http.StatusOK || r.Status == http.StatusConflict // 409: the answer was lost
	})
}

// wantJoinRefused fails the test unless the leader refuses a join, or cannot check it.
func (th thief) wantJoinRefused(t *testing.T, what string, req *nodepb.JoinRequest) {
	t.Helper()
	var resp nodepb.AdminResponse
	err := th.m.Node.CallLeader(t.Context(), nodepb.PathJoin, req, &resp)
	if err == nil && resp.Code == 0 {
		t.Errorf("%s: got accepted, want an error", what)
	}
}
