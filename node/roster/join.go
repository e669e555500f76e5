package roster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/retry"
	"revoked/node/nodepb"
	"revoked/node/propose"
)

// A joiner adds this node to its cluster and keeps the node's address in the configuration up to
// date.
type joiner struct {
	*local
	changes  *changes
	gossip   *gossip
	expected expected
	initial  atomic.Pointer[initialMembers] // nil until this process has found all initial members
	exchange helloFunc
	starting context.Context // context of joinOnStart; stop ends it
	stop     context.CancelFunc
}

func newJoiner(l *local, c *changes, g *gossip) *joiner {
	j := &joiner{local: l, changes: c, gossip: g, exchange: l.hello}
	j.starting, j.stop = context.WithCancel(l.Context)
	return j
}

// The expected type holds the nodes that may open a Raft stream to this node while its log is
// empty. They are the initial members, or the members of the cluster that this node joins. The zero
// value is ready.
type expected struct {
	mu    sync.Mutex
	names []string
	hosts []string // addresses of members that may know newer members
}

func (e *expected) add(names, hosts []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.names = slices.Compact(slices.Sorted(slices.Values(slices.Concat(e.names, names))))
	e.hosts = slices.Compact(slices.Sorted(slices.Values(slices.Concat(e.hosts, hosts))))
}

func (e *expected) get() (names, hosts []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names, e.hosts
}

// allowRaft returns an error unless peer may open a Raft stream while this node's log is empty. A
// certificate of the cluster's CA is not enough: its holder could send this node a different log.
func (j *joiner) allowRaft(peer string) error {
	names, hosts := j.expected.get()
	switch {
	case len(names) == 0:
		return fmt.Errorf("%w: this node is not in a cluster and is not joining one", revoked.ErrForbidden)
	case slices.Contains(names, peer):
		return nil
	}
	return j.exchange.member(j.Context, hosts, j.boundCluster(), peer)
}

// A helloFunc exchanges hellos with the node at host.
type helloFunc func(ctx context.Context, host string) (*nodepb.Hello, error)

// member returns an error unless a node at one of the hosts lists peer as a member of cluster. An
// empty cluster id matches every cluster.
func (exchange helloFunc) member(ctx context.Context, hosts []string, cluster, peer string) error {
	for _, host := range hosts {
		h, err := exchange(ctx, host)
		if err == nil && h.ClusterId != "" && (cluster == "" || h.ClusterId == cluster) &&
			slices.Contains(h.MemberIds, peer) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not a member of this cluster", revoked.ErrForbidden, peer)
}

// joinOnStart joins or bootstraps the cluster and announces this node's address. It retries until
// it succeeds or an operator has joined the node. It logs a failure only if the reason differs from
// the last logged reason.
func (j *joiner) joinOnStart(context.Context) {
	ctx := j.starting
	logged := ""
	for d := 100 * time.Millisecond; ctx.Err() == nil; d = min(2*d, 2*time.Second) {
		err := j.tryJoinOnStart(ctx)
		if err == nil {
			return
		}
		if text := err.Error(); text != logged {
			j.Log.Info("not in a cluster yet", "error", text)
			logged = text
		}
		if errors.Is(err, revoked.ErrForbidden) { // an administrator may admit it later
			d = refusedPause
		}
		_ = retry.Sleep(ctx, d)
	}
}

// refusedPause is the pause between the attempts of a node that is not admitted.
const refusedPause = 5 * time.Second

// tryJoinOnStart makes one attempt. The configuration in the log and the settings determine whether
// it announces the address, bootstraps or joins.
func (j *joiner) tryJoinOnStart(ctx context.Context) error {
	conf, err := j.Configuration()
	switch {
	case err != nil:
		return err
	case inConfiguration(conf, j.self):
		return j.announceAddress(ctx, conf)
	case len(conf.Servers) > 0 && j.boundCluster() != "":
		return j.announceAddress(ctx, conf) // this node's log does not contain its admission yet
	case j.BootstrapExpect > 0:
		return j.bootstrap(ctx)
	case len(j.Join) == 0:
		return errors.New("waiting for `revoked join`: neither join nor bootstrap_expect is set")
	}
	_, err = j.joinAt(ctx, j.Join)
	return err
}

// bootstrap creates a cluster of exactly bootstrap_expect nodes. The nodes exchange their names
// over mutual TLS, and the node with the lowest id writes the first configuration. If a peer is in
// a cluster already, bootstrap joins that cluster.
func (j *joiner) bootstrap(ctx context.Context) error {
	initial, err := j.findInitialMembers(ctx)
	if err != nil || initial == nil {
		return err
	}
	names := slices.Sorted(maps.Keys(initial))
	j.expected.add(names, nil)
	j.setInitialMembers(initial)
	if names[0] != j.NodeID {
		return fmt.Errorf("waiting for %s to bootstrap the cluster of %v", names[0], names)
	}
	var conf raft.Configuration
	voters := 0
	for _, name := range names {
		h := initial[name]
		suffrage := raft.Nonvoter
		if !h.NonVoter && voters < maxVoters {
			suffrage = raft.Voter
			voters++
		}
		conf.Servers = append(conf.Servers, raft.Server{Suffrage: suffrage, ID: serverOf(h), Address: addressOf(h)})
	}
	j.Log.Info("bootstrapping cluster", "nodes", names)
	if err := j.Raft.BootstrapCluster(conf).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// initialMembers holds the servers that create a cluster, and the lowest command.Version among
// them.
type initialMembers struct {
	servers  []raft.ServerID
	commands uint32
}

func (j *joiner) setInitialMembers(hellos map[string]*nodepb.Hello) {
	m := &initialMembers{commands: j.Commands}
	for _, h := range hellos {
		m.servers = append(m.servers, serverOf(h))
		m.commands = min(m.commands, h.Commands)
	}
	j.initial.Store(m)
}

// initialMembersKnow reports whether the members are exactly the initial members, and all of them
// support commands of a version.
func (j *joiner) initialMembersKnow(version uint32) bool {
	m := j.initial.Load()
	conf, err := j.Configuration()
	if m == nil || err != nil || len(conf.Servers) != len(m.servers) {
		return false
	}
	return m.commands >= version && !slices.ContainsFunc(m.servers, func(id raft.ServerID) bool {
		return !inConfiguration(conf, id)
	})
}

// findInitialMembers returns the hellos of all initial members by node id. It returns nil if
// it found a cluster and joined it.
func (j *joiner) findInitialMembers(ctx context.Context) (map[string]*nodepb.Hello, error) {
	want := j.BootstrapExpect
	found := map[string]*nodepb.Hello{j.NodeID: j.Hello()}
	var missing []string
	for _, host := range j.Join {
		h, err := j.hello(ctx, host)
		switch {
		case err != nil:
			missing = append(missing, host)
			continue
		case h.ClusterId != "" || len(h.MemberIds) > 0 && !slices.Contains(h.MemberIds, j.NodeID):
			_, err := j.joinAt(ctx, []string{host})
			return nil, err
		case h.NodeId == j.NodeID && h.Instance != j.Identity.Instance:
			return nil, fmt.Errorf("%s is also named %q: two nodes must not share a node_id", host, h.NodeId)
		case h.NodeId == j.NodeID:
			continue
		case int(h.Expect) != want:
			return nil, fmt.Errorf("%s (%s) expects %d nodes, this node %d: start all with the same bootstrap_expect",
				h.NodeId, host, h.Expect, want)
		}
		if h.ClusterAddr == "" {
			h.ClusterAddr = host
		}
		found[h.NodeId] = h
	}
	switch {
	case want > maxMembers:
		return nil, fmt.Errorf("bootstrap_expect: too large (got %d, want at most %d)", want, maxMembers)
	case len(found) < want:
		return nil, fmt.Errorf("bootstrap_expect is %d, found %d; no answer from %v", want, len(found), missing)
	case len(found) > want:
		return nil, fmt.Errorf("bootstrap_expect is %d, but the join addresses lead to %d nodes: list exactly the initial "+
			"members of the cluster", want, len(found))
	}
	return found, nil
}

// joinAt requests admission of this node at one of the addresses. It waits until this node has
// applied its own admission.
func (j *joiner) joinAt(ctx context.Context, addresses []string) (uint64, error) {
	if len(addresses) == 0 {
		return 0, fmt.Errorf("%w: no address to join", revoked.ErrUnprocessable)
	}
	var failures []error
	var undecided error // error of the first member that could not decide
	for _, host := range addresses {
		resp, answer, err := j.requestAdmission(ctx, host)
		switch {
		case answer == refused:
			return 0, err
		case err != nil:
			if answer == notDecided {
				undecided = cmp.Or(undecided, err)
			}
			failures = append(failures, err)
			continue
		}
		if err := j.bind(resp.ClusterId); err != nil {
			return 0, err
		}
		j.gossip.setSeeds(resp.GossipAddrs)
		return resp.Index, j.waitMember(ctx)
	}
	if undecided != nil {
		return 0, undecided
	}
	return 0, fmt.Errorf("%w: no cluster could be joined: %w", revoked.ErrUnprocessable, errors.Join(failures...))
}

// An admissionAnswer classifies how a request for admission failed.
type admissionAnswer int

const (
	noMember   admissionAnswer = iota // the request reached no member at this address
	notDecided                        // a member got the request, but no decision arrived; it may have admitted this node
	refused                           // every member would refuse the request
)

// requestAdmission requests admission of this node from the node at host. answer is meaningful only
// if err is not nil.
func (j *joiner) requestAdmission(
	ctx context.Context, host string,
) (resp *nodepb.AdminResponse, answer admissionAnswer, err error) {
	h, err := j.hello(ctx, host)
	bound := j.boundCluster()
	switch {
	case err != nil:
		return nil, noMember, fmt.Errorf("%s: %w", host, err)
	case h.NodeId == j.NodeID && h.Instance == j.Identity.Instance:
		return nil, noMember, fmt.Errorf("%s is this node itself", host)
	case bound != "" && h.ClusterId != "" && h.ClusterId != bound:
		return nil, refused, fmt.Errorf("%w: %s belongs to cluster %s, this data directory to %s",
			revoked.ErrUnprocessable, host, h.ClusterId, bound)
	case h.ClusterId == "":
		return nil, noMember, fmt.Errorf("%s (%s) is not in a cluster yet", host, h.NodeId)
	}
	j.expected.add(append(h.MemberIds, h.NodeId), append(h.MemberAddrs, host))
	resp = new(nodepb.AdminResponse)
	err = j.callJoin(ctx, host, h, resp)
	switch {
	case errors.Is(err, errOldToken):
		return nil, noMember, err
	case errors.Is(err, revoked.ErrOutcomeUnknown): // sent
		return nil, notDecided, fmt.Errorf("%w: %s did not answer: %v", revoked.ErrOutcomeUnknown, host, err)
	case err != nil:
		return nil, noMember, fmt.Errorf("%s: %w", host, err)
	}
	err = nodepb.DecodeError(resp.Code, resp.Detail)
	switch {
	case err == nil:
		return resp, 0, nil
	case errors.Is(err, revoked.ErrUnprocessable), errors.Is(err, revoked.ErrConflict),
		errors.Is(err, revoked.ErrForbidden):
		return nil, refused, err
	}
	return nil, notDecided, fmt.Errorf("%w (asked %s)", err, host)
}

// waitMember waits until this node's own log shows that it is a member.
func (j *joiner) waitMember(ctx context.Context) error {
	for {
		if conf, err := j.Configuration(); err == nil && inConfiguration(conf, j.self) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: joined, but this node has not received the log yet", revoked.ErrOutcomeUnknown)
		case <-j.FSM.AppliedChan():
		case <-time.After(propose.RetryPause):
		}
	}
}

// announceAddress replaces this node's address in the configuration if it has changed.
func (j *joiner) announceAddress(ctx context.Context, conf raft.Configuration) error {
	hello := j.Hello()
	addr := addressOf(hello)
	for _, s := range conf.Servers {
		switch {
		case s.ID != j.self:
			continue
		case s.Address == addr:
			return nil
		}
		if err := j.checkDuplicateIdentity(ctx, hello, s.Address); err != nil {
			j.Fatal(err)
			return err
		}
	}
	j.Log.Info("announcing new address", "address", addr)
	if len(conf.Servers) > 1 {
		_, err := j.joinAt(ctx, slices.Concat(j.Join, j.others(conf)))
		return err
	}
	if !j.leads() { // this node is the only member
		return errors.New("waiting for leadership to correct this node's address")
	}
	_, err := j.changes.admit(ctx, hello, presented{})
	return err
}
