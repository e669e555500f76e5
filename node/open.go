package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/cluster"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/textsafe"
	"revoked/internal/tracing"
	"revoked/node/bearer"
	"revoked/node/cache"
	"revoked/node/datadir"
	"revoked/node/jwks"
	"revoked/node/liveness"
	"revoked/node/nodepb"
	"revoked/node/propose"
	"revoked/node/raftstore"
	"revoked/node/roster"
	"revoked/transport"
)

// Open starts a node on its data directory. It returns once the node runs; Readiness reports
// whether the node can answer. After an error everything is closed, including the listener of a
// valid cfg.
//
// The steps depend on each other. The lock of the directory comes first, the state before Raft, and
// the roster before another node's first call.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	cfg.Log = cfg.Log.With("node", cfg.NodeID)
	n := &Node{cfg: cfg, life: newLife(ctx, cfg.Log, cfg.Crash), metrics: newMetrics(cfg.Registerer)}
	defer func() {
		if err != nil {
			_ = n.life.close() // err is the cause
			cfg.Listener.Close()
			err = n.life.cause(err)
		}
	}()
	if n.id, err = datadir.Open(cfg.DataDir, cfg.NodeID, cfg.Rejoin); err != nil {
		return nil, err
	}
	n.life.onClose(n.id.Close)
	changes := cache.NewEpochs()
	if n.fsm, err = fsm.Open(n.stateConfig(changes)); err != nil {
		return nil, withAdvice(cfg.DataDir, fmt.Errorf("open state: %w", err))
	}
	n.life.onClose(n.fsm.Close)
	if n.fsm.ClusterID() == "" {
		// Apply skips invalid records, so a node that may initialize a cluster must not propose them.
		if err := command.AdmitBootstrap(command.NewBootstrap(cfg.Defaults, cfg.BootstrapClients)); err != nil {
			return nil, err
		}
	}
	records, err := cache.New(cfg.CacheSize, changes, n.fsm, cfg.Registerer)
	if err != nil {
		return nil, err
	}
	n.life.onClose(func() error { records.Close(); return nil })
	n.tokens = bearer.New(records, n.fsm, cfg.Now, cfg.Registerer)
	if n.store, err = raftstore.Open(n.storeConfig()); err != nil {
		return nil, err
	}
	n.life.onClose(n.store.Close)
	n.life.onClose(n.life.wait)
	if n.transport, err = transport.New(n.transportConfig()); err != nil {
		return nil, err
	}
	n.life.onClose(n.transport.Close)
	n.transport.ReviewAppends(n.store.ReviewAppend)
	n.leases = newLeases(cfg, n.id, n.Settings)
	n.leadership = newLeadership(n.leases, n.life.ctx,
		liveness.NewOutage(n.id.Server, cfg.ElectionTimeout, cfg.RequestTimeout))
	conf := raftConfig(cfg, n.id.Server, n.leadership.watcher.notifyCh)
	if n.raft, err = n.store.StartRaft(conf, cfg.hooks.transport(n.transport.Raft())); err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n.life.onClose(n.stopRaft)
	n.roster = n.newRoster()
	n.transport.DeferReplicationErrors(n.roster.ReplicatesTo)
	n.transport.GuardVotes(n.roster.VoteGuard())
	n.propose = n.newRouter()
	n.membership = membership{log: cfg.Log, fsm: n.fsm, roster: n.roster, propose: n.propose, now: cfg.Now,
		certs: cfg.Certs, current: n.Current, note: n.noteChange, lost: n.metrics.auditLost.Inc}
	n.issuers = issuers{nodeID: cfg.NodeID, fsm: n.fsm, leadership: n.leadership, propose: n.propose, now: cfg.Now,
		current: n.Current, isMember: n.roster.IsMember, callLeader: (caller{n.transport, n.raft}).callLeader, note: n.Note}
	n.leadership.keys = n.newKeyRunner()
	cfg.Registerer.MustRegister(jwks.NewCollector(n.leadership.keys), newVotingCollector(n.roster.LeaderView))
	n.tokens.Refetch = n.refetchKeys
	cfg.Registerer.MustRegister(n.gauges()...)
	n.start()
	return n, nil
}

// start starts the goroutines of the node and lets other nodes call it. It calls Serve after
// followLeader, so that followLeader sees the first leader.
func (n *Node) start() {
	n.life.start(n.leadership.followLeader(n.raft))
	silence := liveness.SilenceWatch{Raft: n.raft, Heartbeat: n.cfg.HeartbeatTimeout, Election: n.cfg.ElectionTimeout}
	n.life.start(silence.Run)
	n.transport.Serve()
	n.life.start(func(ctx context.Context) { n.leadership.watcher.run(ctx, n.leases.end) })
	n.life.start(func(ctx context.Context) { n.leadership.run(ctx, n.newLeader().run) })
	n.life.start(n.propose.Run)
	n.life.start(n.store.SnapshotBySize)
	n.life.start(func(ctx context.Context) { n.leases.watch(ctx, n.cfg.Log, n.metrics.leaseLosses) })
	n.roster.Run(n.life.start)
	if n.cfg.Renew != nil {
		n.life.start(certificates{n}.renewer().Run)
	}
}

// The methods below connect each part of the node with the others. A function of a part that does
// not exist yet is passed as a closure.

func (n *Node) stateConfig(changes fsm.Changes) fsm.Config {
	return fsm.Config{
		Dir: filepath.Join(n.cfg.DataDir, datadir.StateDir), FS: n.cfg.hooks.fs, CacheBytes: n.cfg.StoreCacheSize,
		Log: n.cfg.Log, Changes: changes,
		Installing: func(index uint64) error { return n.store.SetInstalled(index) },
		Fatal:      func(err error) { n.life.fatal(withAdvice(n.cfg.DataDir, err)) }, Crash: n.cfg.Crash,
	}
}

// withAdvice adds the directory and the remedy to an error about a damaged state.
func withAdvice(dataDir string, err error) error {
	if errors.Is(err, revoked.ErrDamaged) {
		return raftstore.Damaged(filepath.Join(dataDir, datadir.StateDir), err)
	}
	return err
}

func (n *Node) storeConfig() raftstore.Config {
	return raftstore.Config{
		Dir: n.cfg.DataDir, FSM: n.fsm, Fatal: n.life.fatal, Crash: n.life.crash,
		Took: func(low, high uint64) { n.leases.took(low, high) },
		Log:  n.cfg.Log, Hooks: n.cfg.hooks.store,
	}
}

func (n *Node) transportConfig() transport.Config {
	return transport.Config{
		NodeID: n.cfg.NodeID, Instance: n.id.Instance, Certs: n.cfg.Certs,
		Listener: n.cfg.Listener, Advertise: n.cfg.ClusterAdvertise,
		Handler: n.handler(), AllowRaft: func(peer string) error { return n.roster.AllowRaft(peer) },
		Known:       func() []string { return n.roster.ClusterAddresses() },
		RaftTimeout: 10 * time.Second, Dial: n.cfg.hooks.dial,
		Log: n.cfg.Log, Registerer: n.cfg.Registerer, Enroll: certificates{n}.enrollment(),
	}
}

// raftConfig sets what differs from the library's defaults. The leader lease timeout is at its
// upper bound, the heartbeat timeout: Raft's own lease decides only when a leader steps down.
func raftConfig(cfg Config, server raft.ServerID, notifyCh chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = server
	c.HeartbeatTimeout, c.ElectionTimeout = cfg.HeartbeatTimeout, cfg.ElectionTimeout
	c.LeaderLeaseTimeout = cfg.HeartbeatTimeout
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = 64
	c.NoLegacyTelemetry = true
	c.NotifyCh = notifyCh
	return c
}

func (n *Node) newRouter() *propose.Router {
	calls, knows := caller{n.transport, n.raft}, versions{n.roster, n.cfg.hooks}
	return propose.NewRouter(propose.Config{
		NodeID: n.cfg.NodeID, Log: n.leadership.futures.Log(n.raft), State: n.fsm, Stamps: n.roster.Clock,
		Timeout: n.cfg.RequestTimeout,
		Metrics: propose.NewMetrics(n.cfg.Registerer), Tracer: n.cfg.Tracer,
		HasLeader:     func() bool { return n.raft.Leader() != "" },
		LeaderChanged: n.leadership.changed.Wait,
		Forward: func(ctx context.Context, req *nodepb.SubmitRequest, resp *nodepb.SubmitResponse) error {
			return calls.callLeader(ctx, nodepb.PathSubmit, req, resp)
		},
		NoLeader: n.noLeader, LeaderKnows: n.roster.LeaderKnows, Marks: n.roster.Marks,
		Admit: knows.admit, Rules: knows.rules, Audits: func() bool { return knows.audit() == nil },
		KeepUp: func(ctx context.Context, term, index uint64) {
			n.leases.keepUp(ctx, term, index, n.roster.WriteLoad)
		},
		Forwarded:   func(via string, op *command.Op, out fsm.Result) { logForwarded(n.cfg.Log, via, op, out) },
		Acknowledge: n.leases.acknowledge, Final: n.leadership.finals.add,
		Announce: n.transport.AnnounceCommit,
		Stopping: n.life.ctx.Done(),
	}, n.leadership.proposer)
}

// logForwarded logs an administrative operation with the member that forwarded it. That member, not
// this node, has verified the caller's secret.
func logForwarded(log *slog.Logger, via string, op *command.Op, outcome fsm.Result) {
	attrs := []any{
		"operation", command.KindOf(op), "client_id", textsafe.Clean(op.GetActor().GetClientId(), maxLogged), "via", via}
	if outcome.Err != nil {
		log.Warn("forwarded operation failed", append(attrs, "error", outcome.Err)...)
		return
	}
	log.Info("forwarded operation completed", append(attrs, "index", outcome.Index)...)
}

// maxLogged is the maximum length of a client id from another node in a log line, in bytes.
const maxLogged = 128

// versions decides what the leader may propose, depending on what every member supports.
type versions struct {
	roster *roster.Roster
	hooks  hooks
}

// admit checks, before an operation is proposed, that the state accepts it and that every member
// can apply it. A member that cannot decode an entry would exit.
func (v versions) admit(op *command.Op) error {
	if err := command.Admit(op); err != nil {
		return err
	}
	if version := v.hooks.versionOf(op); version > 1 {
		return v.roster.CanApply(version)
	}
	return nil
}

// audit returns an error if a member does not support audited entries or has not reported.
func (v versions) audit() error {
	if v.hooks.commands < command.Audit { // only in tests, for an older program that leads
		return revoked.ErrUnprocessable
	}
	return v.roster.CanApply(command.Audit)
}

// rules returns the newest rules that every member is known to support. It returns 0, the rules of
// version 1, while a member is older or has not reported.
func (v versions) rules() uint32 {
	for _, rules := range [...]uint32{command.JTIRules, command.RegisterRules} {
		if v.hooks.commands >= rules && v.roster.CanApply(rules) == nil {
			return rules
		}
	}
	return 0
}

func (n *Node) newRoster() *roster.Roster {
	c, calls := n.cfg, caller{n.transport, n.raft}
	return roster.New(roster.Config{
		NodeID: c.NodeID, Region: c.Region, API: c.API, Version: c.Version, ClusterAdvertise: c.ClusterAdvertise,
		BootstrapExpect: c.BootstrapExpect, Join: c.Join, JoinToken: c.JoinToken, NonVoter: c.NonVoter,
		Commands: c.hooks.commands,
		Gossip: roster.GossipConfig{
			Bind: c.GossipBind, Advertise: c.GossipAdvertise, Key: c.GossipKey, Metrics: cluster.NewMetrics(c.Registerer),
		},
		HeartbeatTimeout: c.HeartbeatTimeout, RequestTimeout: c.RequestTimeout, StableTime: c.StableTime,
		Log: n.cfg.Log, Now: c.Now, BootClock: c.BootClock, Clock: propose.NewClock(c.Now, string(n.id.Server)),
		Raft: n.raft, Transport: n.transport, FSM: n.fsm,
		Identity: roster.Identity{
			Server: n.id.Server, Instance: n.id.Instance, Boot: n.id.Boot,
			Cluster: n.id.Cluster, Bind: n.id.Bind, MarkLeft: n.id.MarkLeft,
		},
		Holder: roster.Holder{
			Adopt: n.leases.adopt, Adopted: n.leases.adopted, Drop: n.leases.drop, Request: n.leases.request,
			Take: n.leases.take, Refused: n.leases.refused, Remaining: n.leases.remaining, RenewEvery: n.leases.renewEvery,
		},
		Leader: roster.Leader{
			Term: n.leadership.term, Grant: n.leases.grant, NextRenewal: n.leases.nextRenewal,
			CountRefusal: n.metrics.countRefusal, ChangeInTerm: n.leadership.changeInTerm,
			CommitInTerm: n.leadership.commitInTerm,
			SetMembers:   n.leases.setMembers, Report: n.leases.report, GiveBack: n.leases.returned,
			Clear: n.leases.clear, Unblock: n.leases.unblock, RemainingOf: n.leases.remainingOf, Settings: n.Settings,
		},
		Context: n.life.ctx, Fatal: n.life.fatal, End: n.life.end,
		LeaderChanged: n.leadership.changed.Wait, NoLeader: n.noLeader,
		Call: calls.call, CallBound: calls.callBound, CallLeader: calls.callLeader,
		Store:       n.store,
		ReadBarrier: func(ctx context.Context) error { return n.propose.ReadBarrier(ctx) },
		Commit:      n.commitOwn,
	})
}

// commitOwn commits an operation that no client requested. This node must lead.
func (n *Node) commitOwn(ctx context.Context, op *command.Op) error {
	out, err := n.propose.Propose(ctx, []*command.Op{op}, false)
	if err != nil {
		return err
	}
	return out.Results[0].Err
}

func (n *Node) newLeader() *leader {
	return &leader{
		nodeID: n.cfg.NodeID, log: n.cfg.Log, raft: n.leadership.futures.Log(n.raft), fsm: n.fsm,
		leases: n.leases, leadership: n.leadership,
		roster: n.roster, propose: n.propose, timeout: n.cfg.RequestTimeout,
		defaults: n.cfg.Defaults, clients: n.cfg.BootstrapClients, canAudit: versions{n.roster, n.cfg.hooks}.audit,
		refused: n.metrics.countRefusal, fatal: n.life.fatal,
		hung: func(stalled time.Duration) {
			n.life.crash(fmt.Errorf("disk of %s hangs: no entry committed for %v", n.store.Path(), stalled))
		},
	}
}

// gauges returns the metrics that read the state of the node when they are collected. A scrape
// takes locks for microseconds only, so it may run at any time.
func (n *Node) gauges() []prometheus.Collector {
	tokens := func() float64 { t, _ := n.fsm.Counts(); return float64(t) }
	grants := func() float64 { _, g := n.fsm.Counts(); return float64(g) }
	return []prometheus.Collector{
		gauge("revoked_lease_left_seconds", "How long this node may still answer from its own copy; 0 without a lease.",
			func() float64 { return n.leases.remaining().Seconds() }),
		gauge("revoked_applied_index", "Log index that this node has applied.",
			func() float64 { return float64(n.fsm.Applied()) }),
		gauge("revoked_commit_index", "Commit index of this node.",
			func() float64 { return float64(n.raft.CommitIndex()) }),
		gauge("revoked_term", "Raft term of this node.", func() float64 { return float64(n.raft.CurrentTerm()) }),
		gauge("revoked_leader", "1 on the node that leads and may propose.",
			func() float64 { return toFloat(n.leadership.proposer() != nil) }),
		gauge("revoked_tokens", "Live token records in the state.", tokens),
		gauge("revoked_grants", "Live grants in the state.", grants),
		gauge("revoked_deny_entries", "Deny entries in the state, which revoke JWTs of trusted issuers.",
			func() float64 { return float64(n.fsm.Denials()) }),
		gauge("revoked_log_bytes", "Size of the Raft log file.", func() float64 { return float64(n.store.Size()) }),
		gauge("revoked_diverged", "1 when this node's state was found to differ from the leader's.",
			func() float64 { return toFloat(n.roster.Diverged()) }),
	}
}

// fetchKeys fetches a key set and records a tracing span of the fetch, without the URI.
func (n *Node) fetchKeys(ctx context.Context, uri string) (jwks.Set, error) {
	ctx, span := n.cfg.Tracer.Begin(ctx, "fetch keys")
	set, err := n.cfg.hooks.fetchKeys(ctx, uri)
	kind := ""
	if err != nil {
		kind = "not fetched"
	}
	if span.IsSampled() {
		span.Set(tracing.Int("revoked.keys", len(set.Keys)))
	}
	span.End(kind)
	return set, err
}

// newKeyRunner returns the runner that fetches key sets while this node leads. Only one node
// fetches keys, so that an issuer gets one request for the whole cluster.
func (n *Node) newKeyRunner() *jwks.Runner {
	return jwks.NewRunner(jwks.RunnerConfig{
		Issuers: n.Issuers, Fetch: n.fetchKeys, Log: n.cfg.Log,
		Store: func(
			ctx context.Context, by revoked.Actor, i *revoked.Issuer, keys []revoked.IssuerKey,
		) (uint64, error) {
			op := command.PutIssuerKeysOp(i.Name, i.KeysVersion, keys)
			return n.propose.CommitHere(ctx, command.OnBehalf(op, by))
		},
		Count: func(ok bool) {
			if ok {
				n.metrics.keyFetches.done.Inc()
			} else {
				n.metrics.keyFetches.failed.Inc()
			}
		},
	})
}
