package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked"
	"revoked/fsm/command"
	"revoked/node"
	"revoked/node/datadir"
	"revoked/node/nodetest"
	"revoked/node/raftstore"
	"revoked/node/recovery"
)

// dataDir returns the data directory of a member.
func dataDir(m *nodetest.Member) string { return filepath.Join(m.Dir, "data") }

// recoverMember recovers the stopped member and starts it.
func recoverMember(t *testing.T, m *nodetest.Member, o recovery.Options) recovery.Recovery {
	t.Helper()
	r, err := recovery.Recover(t.Context(), dataDir(m), o)
	if err != nil {
		t.Fatal(err)
	}
	m.Start()
	return r
}

// awaitLeads waits until a member leads and can answer.
func awaitLeads(c *nodetest.Cluster, m *nodetest.Member) {
	c.T.Helper()
	c.Until(m.ID+" leads", func() bool {
		return m.Node.NodeStatus(context.Background()).State == "leader" && m.Node.Readiness(context.Background()).CanRevoke
	})
}

// joinBy wipes the stopped member and joins it to the cluster of another one.
func joinBy(t *testing.T, m, at *nodetest.Member) {
	t.Helper()
	m.Wipe()
	m.Start()
	admit := fmt.Sprintf(`{"node":%q}`, m.ID)
	if r := at.Decided(func() nodetest.Reply {
		return at.JSON(http.MethodPost, "/v1/cluster/admit", "admin", admit)
	}); r.Status != http.StatusOK {
		t.Fatalf("admit %s: got %d %s", m.ID, r.Status, r.Body)
	}
	mustJoin(t, m, at)
}

// startAlone is an option: a member with an empty directory joins only by a call.
func startAlone(alone *bool) nodetest.Options {
	return nodetest.Options{Node: func(_ int, conf *node.Config) {
		if *alone {
			conf.BootstrapExpect, conf.Join = 0, nil
		}
	}}
}

func TestRecover_QuorumLost_RevokesEarlierTokens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		accept bool
	}{{"cut-off", false}, {"loss accepted", true}} {
		t.Run(tt.name, func(t *testing.T) {
			var alone bool
			c := nodetest.Start(t, startAlone(&alone))
			first := c.Leader()
			register(t, first, "valid")
			ended, _ := register(t, first, "ended")
			revoke(t, first, ended)
			old := first.Node.NodeStatus(t.Context()).ClusterID
			era, index := feedID(t, c)
			var lost []*nodetest.Member
			for _, m := range c.Members {
				if m != first {
					m.Stop()
					lost = append(lost, m)
				}
			}
			first.Stop()
			alone = true
			r := recoverMember(t, first, recovery.Options{AcceptLoss: tt.accept, Reason: "two disks are gone"})
			if r.Before == nil || len(r.Before.Members) != 3 || r.Before.ClusterID != old || r.ClusterID == old {
				t.Errorf("got %+v, want three members and a cluster other than %s", r, old)
			}
			awaitLeads(c, first)
			for _, m := range lost {
				joinBy(t, m, first)
			}
			c.WaitReady()
			for _, m := range c.Members {
				if isActive(t, m, "resource_server", ended) {
					t.Errorf("a token revoked before, on %s: got active, want inactive", m.ID)
				}
				if got := isActive(t, m, "resource_server", "at-valid"); got != tt.accept {
					t.Errorf("a token issued before, on %s: got active %t, want %t", m.ID, got, tt.accept)
				}
				if id := m.Node.NodeStatus(t.Context()).ClusterID; id != r.ClusterID {
					t.Errorf("cluster of %s: got %s, want %s", m.ID, id, r.ClusterID)
				}
			}
			for _, m := range c.Members {
				if r := feedAfter(m, fmt.Sprintf("%s.%d", era, index)); r.Status != http.StatusGone {
					t.Errorf("a reader of the old feed resumes on %s: got %d %s, want 410", m.ID, r.Status, r.Body)
				}
			}
			body := fmt.Sprintf(`{"client_id":"app","access_token":{"token":"at-new","issued_at":%d}}`, time.Now().Unix()+2)
			got := lost[0].Decided(func() nodetest.Reply {
				return lost[0].JSON(http.MethodPost, "/v1/grants", "issuer", body)
			})
			if got.Status/100 != 2 || !isActive(t, lost[1], "resource_server", "at-new") {
				t.Errorf("a token issued after: got %d %s, want it active", got.Status, got.Body)
			}
		})
	}
}

// The disk of the leader has an entry that no other node has. According to this disk, the entry may
// have been acknowledged.
func TestRecover_UncommittedTail_IsApplied(t *testing.T) {
	t.Parallel()
	var alone bool
	c := nodetest.Start(t, startAlone(&alone))
	m := c.Members[0]
	token, _ := register(t, m, "a")
	admin, ok := m.Node.Client("admin")
	if !ok {
		t.Fatal("got no administrator, want one")
	}
	for _, m := range c.Members {
		m.Stop()
	}
	appendToLog(t, dataDir(m), &command.Batch{Stamp: int64(revoked.TimeOf(time.Now())), Rules: command.Rules,
		Ops: []*command.Op{command.RevokeOp(revoked.ActorOf(admin), revoked.DigestToken(token), "")}})
	alone = true
	recoverMember(t, m, recovery.Options{AcceptLoss: true, Reason: "test"})
	awaitLeads(c, m)
	if isActive(t, m, "resource_server", token) {
		t.Error("the token of the last entry: got active, want inactive")
	}
}

// appendToLog adds an entry to the log of a stopped node, as if its leader had just sent it.
func appendToLog(t *testing.T, dir string, entry command.Command) {
	t.Helper()
	encoded, err := command.Encode(entry)
	if err != nil {
		t.Fatal(err)
	}
	log, err := raftboltdb.NewBoltStore(filepath.Join(dir, raftstore.LogFile))
	if err != nil {
		t.Fatal(err)
	}
	var last raft.Log
	index, err := log.LastIndex()
	if err == nil {
		err = log.GetLog(index, &last)
	}
	if err == nil {
		e := raft.Log{Index: index + 1, Term: last.Term, Type: raft.LogCommand, Data: encoded}
		e.Extensions = checksum(&e)
		err = log.StoreLog(&e)
	}
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
}

// checksum returns what the log stores with an entry: the CRC-32C of its index, term, type, length
// and data.
func checksum(e *raft.Log) []byte {
	b := binary.BigEndian.AppendUint64(nil, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = append(b, byte(e.Type))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
	sum := crc32.Checksum(append(b, e.Data...), crc32.MakeTable(crc32.Castagnoli))
	return binary.BigEndian.AppendUint32(nil, sum)
}

// A survivor that starts with its old disk while the recovered node runs stays outside the new
// cluster. That is true even if two survivors form a quorum of the old cluster.
func TestRecover_OldDisksComeBack_StayApart(t *testing.T) {
	t.Parallel()
	var alone bool
	c := nodetest.Start(t, startAlone(&alone))
	m, rest := c.Members[0], c.Members[1:]
	token, _ := register(t, m, "a")
	for _, m := range c.Members {
		m.Stop()
	}
	alone = true
	r := recoverMember(t, m, recovery.Options{})
	awaitLeads(c, m)
	revoke(t, m, token)

	apart := func(what string, old *nodetest.Member) {
		t.Helper()
		if got := join(old, m); got.Status != http.StatusConflict {
			t.Errorf("%s joins: got %d %s, want 409", what, got.Status, got.Body)
		}
		all, err := m.Node.Members(t.Context())
		if err != nil || len(all) != 1 || all[0].NodeID != m.ID {
			t.Errorf("%s, members of the recovered cluster: got %v, %v, want %s only", what, all, err, m.ID)
		}
		st := m.Node.NodeStatus(t.Context())
		if st.ClusterID != r.ClusterID || st.Leader.NodeID != m.ID || !st.Healthy {
			t.Errorf("%s, recovered node: got %+v, want the healthy leader of %s", what, st, r.ClusterID)
		}
		if got := old.Node.NodeStatus(t.Context()).ClusterID; got != r.Before.ClusterID {
			t.Errorf("%s: got cluster %s, want %s", what, got, r.Before.ClusterID)
		}
	}
	old := rest[0]
	old.Start()
	for _, who := range []*nodetest.Member{m, old} { // the name is admitted, the disk is not
		admit := fmt.Sprintf(`{"node":%q}`, old.ID)
		r := who.JSON(http.MethodPost, "/v1/cluster/admit", "admin", admit)
		if want := map[bool]int{true: 200, false: 503}[who == m]; r.Status != want {
			t.Errorf("admit at %s: got %d %s, want %d", who.ID, r.Status, r.Body, want)
		}
	}
	for _, form := range []string{"/oauth2/revoke", "/oauth2/introspect"} {
		got := old.Form(form, "app", url.Values{"token": {token}})
		if got.Status != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
			t.Errorf("%s at the survivor: got %d %s, want 503", form, got.Status, got.Body)
		}
	}
	apart("a survivor without quorum", old)

	rest[1].Start() // the two are a majority of the old cluster
	c.Until("the old cluster has a leader", func() bool {
		return old.Node.Readiness(t.Context()).CanRevoke && rest[1].Node.Readiness(t.Context()).CanRevoke
	})
	apart("a survivor with a quorum", old)
	apart("the other survivor", rest[1])
	if isActive(t, m, "resource_server", token) {
		t.Error("revoked at the recovered node: got active there, want inactive")
	}
	for _, m := range rest {
		m.Stop()
		joinBy(t, m, c.Members[0])
	}
	c.WaitReady()
	if len(members(t, c)) != 3 {
		t.Error("with empty directories: got fewer than three members, want both to join")
	}
}

// A dry run, and a recovery that fails, leave the member as it was.
func TestRecover_DryRunOrFailure_ChangesNothing(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	token, _ := register(t, c.Members[0], "a")
	gone, _ := register(t, c.Members[0], "b")
	revoke(t, c.Members[0], gone)
	id := c.Leader().Node.NodeStatus(t.Context()).ClusterID
	for _, m := range c.Members {
		m.Stop()
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, m := range c.Members {
		for range 2 {
			r, err := recovery.Recover(t.Context(), dataDir(m), recovery.Options{DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			h := r.Before
			if h.NodeID != m.ID || h.ClusterID != id || h.Index == 0 || h.Term == 0 || h.LastEntry == 0 || h.Missing != 0 ||
				len(h.Members) != 3 || r.ClusterID != "" {
				t.Errorf("%s: got %+v", m.ID, h)
			}
		}
		if _, err := recovery.Recover(canceled, dataDir(m), recovery.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want %v", m.ID, err, context.Canceled)
		}
		// The process was killed before the new member was complete.
		if err := os.MkdirAll(filepath.Join(dataDir(m), "recovery.tmp", "state"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.Members {
		m.Start()
	}
	c.WaitReady()
	for _, m := range c.Members {
		if got := m.Node.NodeStatus(t.Context()).ClusterID; got != id {
			t.Errorf("cluster of %s: got %s, want %s", m.ID, got, id)
		}
		if !isActive(t, m, "resource_server", token) || isActive(t, m, "resource_server", gone) {
			t.Errorf("%s: got answers that differ from those before", m.ID)
		}
		left, err := filepath.Glob(filepath.Join(dataDir(m), "recover*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: got leftovers %v, %v", m.ID, left, err)
		}
	}
}

func TestRecover_NothingToRecover_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Node: func(k int, conf *node.Config) { conf.NonVoter = k == 1 }})
	only := c.Members[0]
	second := joinNew(t, c)
	c.WaitReady()
	refused := func(what, dir string, want error, text string) {
		t.Helper()
		for _, dry := range []bool{true, false} {
			_, err := recovery.Recover(t.Context(), dir, recovery.Options{DryRun: dry})
			if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, want %v: %s", what, err, want, text)
			}
		}
	}
	refused("a running node", dataDir(only), revoked.ErrConflict, "in use by another process")
	only.Stop()
	second.Stop()
	refused("the only voter", dataDir(only), revoked.ErrUnprocessable, "nothing to recover")
	refused("a non-voter", dataDir(second), revoked.ErrUnprocessable, "has no vote")
	empty := t.TempDir()
	refused("no node", empty, revoked.ErrUnprocessable, "is not a data directory of a node")
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("no node: got %v, %v, want nothing written", left, err)
	}
	refused("no directory", filepath.Join(empty, "none"), revoked.ErrUnprocessable, "is not a data directory of a node")
	third := c.Add()
	third.Start()
	third.Stop()
	refused("in no cluster", dataDir(third), revoked.ErrUnprocessable, "has not joined a cluster yet")
	if _, err := recovery.Recover(t.Context(), dataDir(only), recovery.Options{AcceptLoss: true}); !errors.Is(err,
		revoked.ErrInvalid) {
		t.Errorf("accepted loss without a reason: got %v, want %v", err, revoked.ErrInvalid)
	}
	only.Start()
	second.Start()
	c.WaitReady()
	if r := second.Decided(func() nodetest.Reply {
		return second.JSON(http.MethodPost, "/v1/cluster/leave", "admin", "{}")
	}); r.Status != http.StatusOK {
		t.Fatalf("leave: got %d %s", r.Status, r.Body)
	}
	<-second.Node.Done()
	second.Stop()
	refused("a node that left", dataDir(second), revoked.ErrUnprocessable, "left its cluster")
}

// A cut-off at the time of a machine whose clock is behind would leave the newest tokens active.
func TestRecover_ClockBehind_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.Now = func() time.Time { return time.Now().Add(time.Hour) }
	}})
	for _, m := range c.Members {
		m.Stop()
	}
	m := c.Members[0]
	for _, dry := range []bool{true, false} {
		_, err := recovery.Recover(t.Context(), dataDir(m), recovery.Options{DryRun: dry})
		if !errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), "clock of this machine is behind") {
			t.Errorf("got %v, want an error about the clock", err)
		}
	}
	accepted := recovery.Options{AcceptLoss: true, Reason: "test"}
	if _, err := recovery.Recover(t.Context(), dataDir(m), accepted); err != nil {
		t.Errorf("with the loss accepted, which needs no clock: got %v, want nil", err)
	}
}

// A second recovery is refused, because there is nothing to recover.
func TestRecover_Twice_IsRefused(t *testing.T) {
	t.Parallel()
	var alone bool
	c := nodetest.Start(t, startAlone(&alone))
	m := c.Members[0]
	for _, m := range c.Members {
		m.Stop()
	}
	r, err := recovery.Recover(t.Context(), dataDir(m), recovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = recovery.Recover(t.Context(), dataDir(m), recovery.Options{})
	if !errors.Is(err, revoked.ErrUnprocessable) ||
		!strings.Contains(err.Error(), "nothing to recover") {
		t.Errorf("got %v, want nothing to recover", err)
	}
	alone = true
	m.Start()
	awaitLeads(c, m)
	if got := m.Node.NodeStatus(t.Context()).ClusterID; got != r.ClusterID {
		t.Errorf("got cluster %s, want %s", got, r.ClusterID)
	}
}

// stoppedMember returns the data directory of one of three stopped members, what it holds, and the
// servers of the cluster.
func stoppedMember(t *testing.T) (dir string, h *recovery.Holding, servers []raft.Server) {
	t.Helper()
	c := nodetest.Start(t, nodetest.Options{})
	for _, m := range c.Members {
		m.Stop()
		id, unlock, err := datadir.OpenMember(dataDir(m))
		if err != nil {
			t.Fatal(err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, raft.Server{ID: id.Server, Address: raft.ServerAddress(m.ID)})
	}
	dir = dataDir(c.Members[0])
	r, err := recovery.Recover(t.Context(), dir, recovery.Options{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	return dir, r.Before, servers
}

func TestRecover_ReceivedStateNotRestored_IsRefused(t *testing.T) {
	dir, holding, servers := stoppedMember(t)
	store, err := raft.NewFileSnapshotStore(dir, 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	conf := raft.Configuration{Servers: servers}
	sink, err := store.Create(1, holding.Index+10, holding.Term, conf, holding.Index, transport)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = recovery.Recover(t.Context(), dir, recovery.Options{DryRun: true})
	want := fmt.Sprintf("received a state up to index %d and has not restored it", holding.Index+10)
	if !errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %v: %s", err, revoked.ErrUnprocessable, want)
	}
}

// A log that lost its end keeps the marks of the other members in its entries.
func TestRecover_OthersWereAhead_CountsMissing(t *testing.T) {
	dir, holding, servers := stoppedMember(t)
	var marks []*command.Mark
	for _, s := range servers {
		marks = append(marks, &command.Mark{Server: string(s.ID), Boot: []byte("boot"), Index: holding.Index + 7})
	}
	encoded, err := command.Encode(&command.Tick{Stamp: 1, Marks: marks})
	if err != nil {
		t.Fatal(err)
	}
	log, err := raftboltdb.NewBoltStore(filepath.Join(dir, raftstore.LogFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Set([]byte("Marks"), encoded), log.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := recovery.Recover(t.Context(), dir, recovery.Options{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Before.Missing != 7 {
		t.Errorf("got %d missing entries, want 7", r.Before.Missing)
	}
}
