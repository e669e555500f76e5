package liveness_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/node/liveness"
	"revoked/transport"
)

func TestOutageCheck_States_RefuseOrWait(t *testing.T) {
	voters := raft.Configuration{Servers: []raft.Server{
		{ID: "node1/a"}, {ID: "node2/b"}, {ID: "node3/c"}, {ID: "node4/d", Suffrage: raft.Nonvoter},
	}}
	type contacts map[raft.ServerID]time.Duration // time since a voter was heard; negative: time since its calls fail
	for _, tt := range []struct {
		name     string
		self     raft.ServerID
		election time.Duration
		after    time.Duration // time without a leader
		contacts contacts
		want     string
		retry    time.Duration
	}{
		{"ordinary election, others silent", "node2/b", 0, 999 * time.Millisecond, nil, "", 0},
		{"ordinary election, votes are split", "node2/b", 0, 4 * time.Second,
			contacts{"node1/a": time.Second}, "", 0},
		{"slow network", "node2/b", 2 * time.Second, 3900 * time.Millisecond, nil, "", 0},
		{"both refuse connections", "node2/b", 0, time.Second,
			contacts{"node1/a": -2 * time.Second, "node3/c": -2 * time.Second},
			"no leader: 1 of 3 voters reachable, 2 needed; node1 and node3 silent since 1999-12-31T23:59:59Z", time.Second},
		{"both fell silent, at different times", "node2/b", 0, 10 * time.Second,
			contacts{"node1/a": 12 * time.Second, "node3/c": 60 * time.Second},
			"no leader: 1 of 3 voters reachable, 2 needed; node1 silent since 1999-12-31T23:59:58Z, " +
				"node3 silent since 1999-12-31T23:59:10Z", 10 * time.Second},
		{"no answer since the start", "node2/b", 0, time.Hour, nil,
			"no leader: 1 of 3 voters reachable, 2 needed; node1 and node3 silent since 2000-01-01T00:00:00Z", 30 * time.Second},
		{"no election in a whole request", "node2/b", 0, 5 * time.Second,
			contacts{"node1/a": time.Second, "node3/c": time.Second},
			"no leader since 2000-01-01T00:00:00Z: 3 of 3 voters reachable", time.Second},
		{"a non-voter waits, because it requests no votes", "node4/d", 0, 4 * time.Second, nil, "", 0},
		{"a non-voter, after a whole request", "node4/d", 0, 5 * time.Second, nil,
			"no leader since 2000-01-01T00:00:00Z", time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				election := max(tt.election, 500*time.Millisecond)
				o := liveness.NewOutage(tt.self, election, 5*time.Second)
				time.Sleep(tt.after) // virtual time
				conf := func() (raft.Configuration, error) { return voters, nil }
				contact := func(id raft.ServerID) (c transport.Contact) {
					switch ago, ok := tt.contacts[id]; {
					case ok && ago > 0:
						c.Heard = time.Now().Add(-ago)
					case ok:
						c.Failing = time.Now().Add(ago)
					}
					return c
				}
				err := o.Check(conf, contact)
				var e *revoked.OutageError
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("got %v, want to wait", err)
				case tt.want == "":
				case !errors.As(err, &e) || !errors.Is(err, revoked.ErrNoLeader) || err.Error() != tt.want ||
					e.RetryAfter != tt.retry:
					t.Errorf("got %v (%+v), want %q, retry after %v", err, e, tt.want, tt.retry)
				}
				o.Follow(true)
				if err := o.Check(conf, contact); err != nil {
					t.Errorf("with a leader: got %v, want nil", err)
				}
				o.Follow(false)
				if err := o.Check(conf, contact); err != nil {
					t.Errorf("leader just lost: got %v, want to wait", err)
				}
			})
		})
	}
}
