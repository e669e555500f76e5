package scenario

import (
	"fmt"
	"net/http"
	"strings"
)

func (c *cluster) join(through int) int {
	c.Helper()
	k := c.add()
	c.awaitChange(through, "admit", object{"node": c.ID(k)})
	c.awaitChange(k, "join", object{"addresses": []string{c.Address(through)}})
	return k
}

func growAndLeave(c *cluster) {
	active, _ := c.register(0, "active")
	revoked, _ := c.register(0, "revoked")
	c.join(0)
	last := c.join(0)
	c.change(last, "join", object{"addresses": []string{c.Address(0)}}, http.StatusConflict, "")
	c.awaitMembers(3)
	c.awaitReady()
	c.revoke(last, revoked)
	c.wantActive(true, active, c.running()...)
	c.wantActive(false, revoked, c.running()...)

	leaver := c.leader()
	c.awaitChange(leaver, "leave", object{})
	if got := c.exit(leaver); got != "" {
		c.Errorf("exit after leave: got %q, want no error", got)
	}
	if got := c.Refused(leaver); !strings.Contains(got, "--rejoin") {
		c.Errorf("start after leave: got %q, want an error that names --rejoin", got)
	}
	c.awaitReady()
	c.wantActive(false, revoked, c.running()...)
}

func transfer(c *cluster) {
	target := c.follower()
	c.awaitChange(target, "transfer-leader", object{"node": c.ID(target)})
	c.until("the target leads", func() error {
		if got := c.leader(); got != target {
			return fmt.Errorf("got leader %s, want %s", c.ID(got), c.ID(target))
		}
		return nil
	})
	active, _ := c.register(target, "active")
	c.revoke(c.follower(), active)
	c.wantActive(false, active, c.running()...)
}

// remove checks that only the stopped node of three can be removed.
func remove(c *cluster) {
	leader := c.leader()
	down := c.follower()
	c.stop(down)
	up := c.running(leader)[0]
	c.until("the leader notices the stopped node", func() error {
		ms, err := c.members(leader)
		for _, m := range ms {
			if m.NodeID == c.ID(down) && m.Alive {
				return fmt.Errorf("got %s alive, want it lost", m.NodeID)
			}
		}
		return err
	})
	c.change(leader, "remove", object{"node": c.ID(up)}, http.StatusConflict, "")
	c.change(up, "leave", object{}, http.StatusConflict, "stop this node instead")
	c.change(leader, "remove", object{"node": "unknown"}, http.StatusNotFound, "")
	c.change(leader, "remove", object{"node": c.ID(up), "force": true}, http.StatusUnprocessableEntity, "")
	c.awaitChange(up, "remove", object{"node": c.ID(down)})
	c.awaitMembers(2)
	c.start(down)
	if got := c.exit(down); !strings.Contains(got, "--rejoin") {
		c.Errorf("exit of a removed node: got %q, want an error that names --rejoin", got)
	}
}

// removeAbsent removes a node that is stopped and restarts the leader, so that no leader contacts
// the node when it returns.
func removeAbsent(c *cluster) {
	leader := c.leader()
	away := c.follower()
	c.stop(away)
	c.awaitChange(leader, "remove", object{"node": c.ID(away), "force": true, "reason": "away"})
	c.stop(leader)
	c.start(leader)
	c.awaitReady()
	c.start(away)
	if got := c.exit(away); !strings.Contains(got, "was removed from its cluster") {
		c.Errorf("exit of a removed node: got %q, want an error that names the removal", got)
	}
	if got := c.Refused(away); got == "" {
		c.Error("start of a removed node: got no error, want one")
	}
}

func wipe(c *cluster) {
	active, _ := c.register(0, "active")
	revoked, _ := c.register(0, "revoked")
	c.revoke(0, revoked)
	before, err := c.status(0)
	if err != nil {
		c.Fatal(err)
	}
	lost := c.follower()
	c.stop(lost)
	c.Wipe(lost)
	c.start(lost)
	c.awaitReady()
	c.awaitMembers(3)
	if s, err := c.status(lost); err != nil || s.ClusterID != before.ClusterID {
		c.Errorf("cluster of the new instance: got %q, %v, want %q", s.ClusterID, err, before.ClusterID)
	}
	c.wantActive(true, active, lost)
	c.wantActive(false, revoked, lost)
}

func noCluster(c *cluster) {
	k := c.add()
	c.until("the node listens", func() error {
		_, err := c.send(k, "", http.MethodGet, "/livez", nil)
		return err
	})
	for path, body := range map[string]object{"leave": {}, "remove": {"node": "x"}, "transfer-leader": {}} {
		c.change(k, path, body, http.StatusUnprocessableEntity, "not in a cluster")
	}
}
