package api_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/bearer"
	"revoked/node/cache"
	"revoked/node/jwt"
)

var _ api.Backend = (*memoryNode)(nil)

// A memoryNode is a cluster of one node in memory: the replicated state of the product, to which
// commands are applied without Raft. Fields are set before the API serves, or under mu.
type memoryNode struct {
	t   testing.TB
	fsm *fsm.FSM
	now func() time.Time

	tokens *bearer.Decider

	applying sync.Mutex // serializes commands
	index    uint64

	mu sync.Mutex
	// fail is called before each method, with the name of the method. The method returns the error
	// of fail.
	fail func(method string) error
	// elsewhere is a change at another node, which this node applies with its next read barrier.
	elsewhere func(*memoryNode)
	behind    bool // whether this node has not been current since its start
	discard   bool // whether Register stores nothing

	ready    revoked.Readiness
	backups  []revoked.BackupStatus
	nodes    []revoked.Member
	snapshot func(w io.Writer) error

	calls     []string         // cluster methods called, with arguments
	batches   []int            // sizes of the calls to Register
	committed []revoked.Digest // registered tokens, in order
}

// setup is the administrator that tests use to change clients and settings.
const setup = "setup"

func newMemoryNode(t testing.TB, now func() time.Time) *memoryNode {
	t.Helper()
	n := &memoryNode{t: t, now: now,
		ready: revoked.Readiness{CanAnswer: true, CanRevoke: true, Checks: []revoked.Check{{Name: "lease", OK: true}}}}
	var err error
	epochs := cache.NewEpochs()
	n.fsm, err = fsm.Open(fsm.Config{Dir: "state", FS: vfs.NewMem(), CacheBytes: 1 << 20, Changes: epochs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.fsm.Close() })
	records, err := cache.New(1<<16, epochs, n.fsm, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(records.Close)
	n.tokens = bearer.New(records, n.fsm, now, prometheus.NewRegistry())
	admin := confidential(setup, "setup-secret", revoked.RoleAdmin)
	n.apply(&command.Bootstrap{Stamp: n.stamp(), ClusterId: "memory",
		Settings: command.SettingsMessage(revoked.DefaultSettings()),
		Clients:  []*command.ClientRecord{command.ClientMessage(&admin)}})
	return n
}

func (n *memoryNode) stamp() int64 { return int64(revoked.TimeOf(n.now())) }

// apply applies a command and returns its results.
func (n *memoryNode) apply(c command.Command) []fsm.Result {
	n.applying.Lock()
	defer n.applying.Unlock()
	data, err := command.Encode(c)
	if err != nil {
		n.t.Errorf("encode command: %v", err)
		return nil
	}
	n.index++
	return n.fsm.Apply(&raft.Log{Index: n.index, Term: 1, Type: raft.LogCommand, Data: data}).(*fsm.Outcome).Results
}

func (n *memoryNode) applyOps(ops ...*command.Op) []fsm.Result {
	return n.apply(&command.Batch{Stamp: n.stamp(), Ops: ops, Rules: command.Rules, Audited: true})
}

// commit applies one operation and returns its index and error.
func (n *memoryNode) commit(method string, op *command.Op) (uint64, error) {
	r := n.commitResult(method, op)
	return r.Index, r.Err
}

// commitResult applies one operation and returns its result.
func (n *memoryNode) commitResult(method string, op *command.Op) fsm.Result {
	if err := n.check(method); err != nil {
		return fsm.Result{Err: err}
	}
	r := n.applyOps(op)[0]
	r.Index = cmp.Or(r.Index, n.fsm.Applied())
	return r
}

// check calls fail under mu. fail may apply commands and must not lock mu.
func (n *memoryNode) check(method string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail == nil {
		return nil
	}
	return n.fail(method)
}

// catchUp applies the change made elsewhere.
func (n *memoryNode) catchUp() {
	n.mu.Lock()
	change := n.elsewhere
	n.elsewhere = nil
	n.mu.Unlock()
	if change != nil {
		change(n)
	}
}

func (n *memoryNode) setupActor() revoked.Actor {
	c, _ := n.fsm.Client(setup)
	return revoked.ActorOf(c)
}

// put creates or replaces clients.
func (n *memoryNode) put(clients ...revoked.Client) {
	n.t.Helper()
	var ops []*command.Op
	for _, c := range clients {
		c.Type = cmp.Or(c.Type, revoked.Confidential)
		var version uint64
		if old, ok := n.fsm.Client(c.ID); ok {
			version = old.Version
		}
		ops = append(ops, command.PutClientOp(n.setupActor(), &c, version))
	}
	n.mustApply(ops...)
}

// change applies f to a client and stores it.
func (n *memoryNode) change(id string, f func(*revoked.Client)) {
	n.t.Helper()
	old, ok := n.fsm.Client(id)
	if !ok {
		n.t.Fatalf("client %s does not exist", id)
	}
	c := *old
	f(&c)
	n.put(c)
}

func (n *memoryNode) mustApply(ops ...*command.Op) {
	n.t.Helper()
	for _, r := range n.applyOps(ops...) {
		if r.Err != nil {
			n.t.Errorf("apply: %v", r.Err)
		}
	}
}

func (n *memoryNode) Revoke(_ context.Context, by revoked.Actor, d revoked.Digest) (revoked.RevokeResult, error) {
	r := n.commitResult("Revoke", command.RevokeOp(by, d, ""))
	return revoked.RevokeResult{Index: r.Index, Unknown: r.Unknown}, r.Err
}

func (n *memoryNode) RevokeToken(
	ctx context.Context, by revoked.Actor, p revoked.PresentedToken,
) (revoked.RevokeResult, error) {
	j, err := n.tokens.Verify(ctx, &p)
	if err != nil {
		return revoked.RevokeResult{}, err
	}
	if j == nil {
		return n.Revoke(ctx, by, p.Digest)
	}
	r := n.commitResult("RevokeToken", command.RevokeJWTOp(by, j, ""))
	return revoked.RevokeResult{Index: r.Index}, r.Err
}

func (n *memoryNode) ParseAssertion(raw, audience string) (
	string, func(*revoked.Client) (revoked.VerifiedAssertion, string, bool),
) {
	a, err := jwt.ParseAssertion(raw)
	if err != nil {
		return "", nil
	}
	return a.ClientID(), func(c *revoked.Client) (revoked.VerifiedAssertion, string, bool) {
		return a.Verify(c, audience, revoked.TimeOf(n.now()), n.fsm.Settings().MaxClockSkew)
	}
}

func (n *memoryNode) AssertionUse(key revoked.Digest) ([16]byte, bool) {
	request, used, err := n.fsm.AssertionUse(key)
	return request, used || err != nil
}

func (n *memoryNode) RevokeJTI(_ context.Context, by revoked.Actor, r revoked.JTIRevocation) (uint64, error) {
	j := revoked.JWT{Issuer: r.Issuer, JTI: r.JTI, ExpiresAt: r.ExpiresAt}
	return n.commit("RevokeJTI", command.RevokeJWTOp(by, &j, r.Reason))
}

func (n *memoryNode) RevokeJTIs(
	_ context.Context, by revoked.Actor, list []revoked.JTIRevocation,
) ([]error, uint64, error) {
	if err := n.check("RevokeJTIs"); err != nil {
		return nil, 0, err
	}
	var ops []*command.Op
	for _, r := range list {
		j := revoked.JWT{Issuer: r.Issuer, JTI: r.JTI, ExpiresAt: r.ExpiresAt}
		ops = append(ops, command.InChunk(command.RevokeJWTOp(by, &j, r.Reason)))
	}
	var errs []error
	for _, r := range n.applyOps(ops...) {
		errs = append(errs, r.Err)
	}
	return errs, n.fsm.Applied(), nil
}

func (n *memoryNode) DeleteGrant(_ context.Context, by revoked.Actor, id, reason string) (uint64, error) {
	return n.commit("DeleteGrant", command.DeleteGrantOp(by, id, reason))
}

func (n *memoryNode) RevokeMatching(ctx context.Context, by revoked.Actor,
	req revoked.CutoffRequest) (res revoked.CutoffResult, err error) {
	if err := n.check("RevokeMatching"); err != nil {
		return res, err
	}
	if req.DryRun || req.Expect != nil {
		now := revoked.TimeOf(n.now())
		count, err := n.fsm.CountMatching(ctx, req.Selector, cmp.Or(req.IssuedBefore, now), now)
		if err != nil {
			return res, err
		}
		res.Matched = &count
		if req.Expect != nil && *req.Expect != count {
			return res, fmt.Errorf("%w: %d match", revoked.ErrExpectation, count)
		}
		if req.DryRun {
			res.Index = n.fsm.Applied()
			return res, nil
		}
	}
	res.Index, err = n.commit("", command.CutoffOp(by, req.Selector, req.IssuedBefore, req.Reason))
	return res, err
}

func (n *memoryNode) Status(_ context.Context, d revoked.Digest, _ string) (revoked.TokenStatus, error) {
	r, err := n.lookup(d)
	if err != nil {
		return revoked.TokenStatus{}, err
	}
	decision, err := n.fsm.Decide(&r, revoked.TimeOf(n.now()))
	if err != nil {
		return revoked.TokenStatus{}, err
	}
	if err := n.check("Status"); err != nil && decision.Verdict != revoked.Dead {
		return revoked.TokenStatus{}, err
	}
	n.catchUp()
	return revoked.TokenStatus{Decision: decision, Record: r}, nil
}

func (n *memoryNode) StatusOf(ctx context.Context, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	if err := n.check("StatusOf"); err != nil {
		return revoked.TokenStatus{}, err
	}
	return n.tokens.Status(ctx, &p)
}

func (n *memoryNode) Explain(ctx context.Context, p revoked.PresentedToken) (revoked.Explanation, error) {
	if err := n.check("Explain"); err != nil {
		return revoked.Explanation{}, err
	}
	st, err := n.tokens.Status(ctx, &p)
	if err != nil {
		return revoked.Explanation{}, err
	}
	x, err := n.tokens.Explain(&p, st)
	x.NodeID, x.AppliedIndex, x.LeaseLeft = "memory", n.fsm.Applied(), 1500*time.Millisecond
	return x, err
}

func (n *memoryNode) Peek(d revoked.Digest) (revoked.Record, error) {
	if err := n.check("Peek"); err != nil {
		return revoked.Record{}, err
	}
	return n.lookup(d)
}

func (n *memoryNode) lookup(d revoked.Digest) (revoked.Record, error) {
	t, found, err := n.fsm.LookupToken(d)
	if err != nil || !found {
		return revoked.Record{}, err
	}
	g, found, err := n.fsm.LookupGrant(t.GrantID)
	return revoked.Record{Found: found, Token: t, Grant: g}, err
}

func (n *memoryNode) RegisterBulk(ctx context.Context, by revoked.Actor, regs []revoked.Registration) (
	[]revoked.RegisterResult, error) {
	return n.Register(ctx, by, regs)
}

func (n *memoryNode) Register(_ context.Context, by revoked.Actor,
	regs []revoked.Registration) ([]revoked.RegisterResult, error) {
	if err := n.check("Register"); err != nil {
		return nil, err
	}
	out := make([]revoked.RegisterResult, len(regs))
	ops := make([]*command.Op, len(regs))
	n.mu.Lock()
	n.batches = append(n.batches, len(regs))
	discard := n.discard
	for i := range regs {
		ops[i] = command.RegisterOp(by, regs[i])
		out[i] = revoked.RegisterResult{GrantID: regs[i].GrantID, Created: true}
		for _, t := range regs[i].Tokens {
			if !discard {
				n.committed = append(n.committed, t.Digest)
			}
		}
	}
	n.mu.Unlock()
	if discard {
		return out, nil
	}
	for i, r := range n.applyOps(ops...) {
		out[i] = r.Register
		out[i].GrantID, out[i].Index, out[i].Err = cmp.Or(r.Register.GrantID, regs[i].GrantID),
			cmp.Or(r.Index, n.fsm.Applied()), r.Err
	}
	return out, nil
}

func (n *memoryNode) AsOf(_ context.Context, d revoked.Digest, at revoked.Time) (revoked.PastAnswer, error) {
	if err := n.check("AsOf"); err != nil {
		return revoked.PastAnswer{}, err
	}
	if at == 0 {
		at = revoked.TimeOf(n.now())
	}
	return n.fsm.AsOf(d, at)
}

func (n *memoryNode) Grant(_ context.Context, id string) (revoked.GrantView, error) {
	if err := n.check("Grant"); err != nil {
		return revoked.GrantView{}, err
	}
	return n.fsm.View(id, revoked.TimeOf(n.now()))
}

func (n *memoryNode) Grants(ctx context.Context, q revoked.GrantQuery) (revoked.GrantPage, error) {
	if err := n.check("Grants"); err != nil {
		return revoked.GrantPage{}, err
	}
	return n.fsm.Grants(ctx, &q, revoked.TimeOf(n.now()))
}

func (n *memoryNode) Era() string { return revoked.EraOf(n.fsm.ClusterID()) }

func (n *memoryNode) Events(_ context.Context, after uint64, limit int) ([]revoked.Event, uint64, error) {
	if err := n.check("Events"); err != nil {
		return nil, 0, err
	}
	return n.fsm.Events(after, limit)
}

func (n *memoryNode) Audit(_ context.Context, after uint64, limit int) ([]revoked.AuditEntry, uint64, error) {
	if err := n.check("Audit"); err != nil {
		return nil, 0, err
	}
	return n.fsm.Audit(after, limit)
}

func (n *memoryNode) WaitAudit(ctx context.Context, after uint64) error {
	return n.fsm.WaitAudit(ctx, after)
}

func (n *memoryNode) AuditBefore(at revoked.Time) (uint64, error) { return n.fsm.AuditBefore(at) }

func (n *memoryNode) Note(_ context.Context, by revoked.Actor, e revoked.AuditEntry) error {
	if e.Refused {
		e.Object = n.fsm.KnownObject(e.Object, func(node string) bool { return node == "n2" })
	}
	_, err := n.commit("Note", command.NoteOp(by, e))
	return err
}

func (n *memoryNode) Newest(context.Context) (uint64, error) {
	if err := n.check("Newest"); err != nil {
		return 0, err
	}
	return n.fsm.Applied(), nil
}

func (n *memoryNode) WaitEvent(ctx context.Context, after uint64) error {
	if err := n.check("WaitEvent"); err != nil {
		return err
	}
	return n.fsm.WaitEvent(ctx, after)
}

func (n *memoryNode) Client(id string) (*revoked.Client, bool) { return n.fsm.Client(id) }

func (n *memoryNode) Current(context.Context) error {
	if err := n.check("Current"); err != nil {
		return err
	}
	if !n.ClientsCurrent() {
		return revoked.ErrNoLeader
	}
	n.catchUp()
	return nil
}

func (n *memoryNode) ClientsCurrent() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.behind
}

func (n *memoryNode) Clients(context.Context) ([]*revoked.Client, error) {
	hidden := func(c *revoked.Client) bool { return c.ID == setup }
	return slices.DeleteFunc(slices.Clone(n.fsm.Clients()), hidden), n.check("Clients")
}

func (n *memoryNode) CreateClient(_ context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64,
	error) {
	return n.putClient("CreateClient", command.PutClientOp(by, &c, 0), c.ID)
}

func (n *memoryNode) UpdateClient(_ context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64,
	error) {
	return n.putClient("UpdateClient", command.PutClientOp(by, &c, c.Version), c.ID)
}

func (n *memoryNode) putClient(method string, op *command.Op, id string) (*revoked.Client, uint64, error) {
	index, err := n.commit(method, op)
	if err != nil {
		return nil, 0, err
	}
	c, _ := n.fsm.Client(id)
	return c, index, nil
}

func (n *memoryNode) DeleteClient(_ context.Context, by revoked.Actor, id string) (uint64, error) {
	return n.commit("DeleteClient", command.DeleteClientOp(by, id))
}

func (n *memoryNode) Issuers() []*revoked.Issuer {
	return slices.DeleteFunc(n.fsm.Issuers(), func(i *revoked.Issuer) bool { return i.DeletedAt != 0 })
}

func (n *memoryNode) CreateIssuer(_ context.Context, by revoked.Actor, i revoked.Issuer) (*revoked.Issuer, uint64,
	error) {
	return n.putIssuer("CreateIssuer", command.PutIssuerOp(by, &i, 0), i.Name)
}

func (n *memoryNode) UpdateIssuer(_ context.Context, by revoked.Actor, i revoked.Issuer) (*revoked.Issuer, uint64,
	error) {
	return n.putIssuer("UpdateIssuer", command.PutIssuerOp(by, &i, i.Version), i.Name)
}

func (n *memoryNode) putIssuer(method string, op *command.Op, name string) (*revoked.Issuer, uint64, error) {
	index, err := n.commit(method, op)
	if err != nil {
		return nil, 0, err
	}
	i, err := n.issuer(name)
	return i, index, err
}

func (n *memoryNode) issuer(name string) (*revoked.Issuer, error) {
	for _, i := range n.Issuers() {
		if i.Name == name {
			return i, nil
		}
	}
	return nil, revoked.ErrNotFound
}

func (n *memoryNode) DeleteIssuer(_ context.Context, by revoked.Actor, name string) (uint64, error) {
	return n.commit("DeleteIssuer", command.DeleteIssuerOp(by, name))
}

func (n *memoryNode) BanIssuerKey(_ context.Context, by revoked.Actor, name, thumbprint string) (uint64, error) {
	return n.commit("BanIssuerKey", command.BanIssuerKeyOp(by, name, thumbprint))
}

func (n *memoryNode) CheckToken(_ context.Context, name, token string) (revoked.TokenCheck, error) {
	if err := n.check("CheckToken"); err != nil {
		return revoked.TokenCheck{}, err
	}
	i, err := n.issuer(name)
	if err != nil {
		return revoked.TokenCheck{}, err
	}
	return jwt.Check(i, token, revoked.TimeOf(n.now()))
}

func (n *memoryNode) RefreshIssuer(_ context.Context, _ revoked.Actor, name string) (uint64, bool, error) {
	if err := n.check("RefreshIssuer"); err != nil {
		return 0, false, err
	}
	_, err := n.issuer(name)
	return n.fsm.Applied(), true, err
}

func (n *memoryNode) KeyFetches(context.Context) (map[string]revoked.KeyFetch, error) {
	if err := n.check("KeyFetches"); err != nil {
		return nil, err
	}
	return map[string]revoked.KeyFetch{"as2": {At: 1790000000e6, Error: "status 500", NextAt: 1790000030e6}}, nil
}

func (n *memoryNode) ParseKeys(set []byte) ([]revoked.IssuerKey, error) { return jwt.ParseInline(set) }

func (n *memoryNode) FormatKeys(keys []revoked.IssuerKey) ([]byte, error) {
	return jwt.FormatKeys(keys)
}

func (n *memoryNode) Settings() revoked.Settings { return n.fsm.Settings() }

func (n *memoryNode) UpdateSettings(_ context.Context, by revoked.Actor, s revoked.Settings) (revoked.Settings,
	uint64, error) {
	index, err := n.commit("UpdateSettings", command.PutSettingsOp(by, s, s.Version))
	return n.fsm.Settings(), index, err
}

func (n *memoryNode) Members(context.Context) ([]revoked.Member, error) {
	return n.nodes, n.check("Members")
}

func (n *memoryNode) NodeStatus(context.Context) revoked.NodeStatus {
	return revoked.NodeStatus{AppliedIndex: n.fsm.Applied(), Backups: n.backups}
}

func (n *memoryNode) Readiness(context.Context) revoked.Readiness { return n.ready }

// called records a call to a cluster method.
func (n *memoryNode) called(method, call string) (uint64, error) {
	if err := n.check(method); err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, call)
	return n.fsm.Applied() + 1, nil
}

func (n *memoryNode) Join(_ context.Context, addresses []string) (uint64, error) {
	return n.called("Join", fmt.Sprint("join ", addresses))
}

func (n *memoryNode) Leave(context.Context, revoked.Actor) (uint64, error) {
	return n.called("Leave", "leave")
}

func (n *memoryNode) Remove(
	_ context.Context, _ revoked.Actor, node string, force bool, reason string,
) (uint64, error) {
	return n.called("Remove", fmt.Sprintf("remove %s %t %q", node, force, reason))
}

func (n *memoryNode) TransferLeader(_ context.Context, _ revoked.Actor, node string) (uint64, error) {
	return n.called("TransferLeader", fmt.Sprintf("transfer-leader %q", node))
}

func (n *memoryNode) Admit(_ context.Context, by revoked.Actor, node string, nonVoter bool,
	ttl time.Duration) (uint64, error) {
	return n.commit("Admit", command.AdmitNodeOp(by, node, nonVoter, ttl))
}

func (n *memoryNode) WithdrawAdmission(_ context.Context, by revoked.Actor, node string) (uint64, error) {
	return n.commit("WithdrawAdmission", command.WithdrawNodeOp(by, node))
}

func (n *memoryNode) Admitted(context.Context) ([]revoked.AdmittedNode, error) {
	var members []string
	for _, m := range n.nodes {
		members = append(members, m.NodeID)
	}
	return revoked.ListAdmitted(members, n.fsm.Admissions(), revoked.TimeOf(n.now())), n.check("Admitted")
}

func (n *memoryNode) ClusterCA() ([32]byte, error) { return [32]byte{1}, n.check("ClusterCA") }

func (n *memoryNode) CreateJoinToken(_ context.Context, by revoked.Actor, t revoked.JoinToken,
	ttl time.Duration) (revoked.JoinToken, error) {
	_, err := n.commit("CreateJoinToken", command.CreateJoinTokenOp(by, &t, ttl))
	t, _ = n.fsm.JoinToken(t.ID)
	return t, err
}

func (n *memoryNode) JoinTokens(context.Context) ([]revoked.JoinToken, error) {
	isDeleted := func(t revoked.JoinToken) bool { return t.DeletedAt != 0 }
	return slices.DeleteFunc(n.fsm.JoinTokens(), isDeleted), n.check("JoinTokens")
}

func (n *memoryNode) DeleteJoinToken(_ context.Context, by revoked.Actor, id string) (uint64, error) {
	return n.commit("DeleteJoinToken", command.DeleteJoinTokenOp(by, id))
}

func (n *memoryNode) Promote(_ context.Context, by revoked.Actor, node string) (uint64, error) {
	return n.called("Promote", fmt.Sprintf("promote %s by %s", node, by.ClientID))
}

func (n *memoryNode) Demote(_ context.Context, by revoked.Actor, node string) (uint64, error) {
	return n.called("Demote", fmt.Sprintf("demote %s by %s", node, by.ClientID))
}

func (n *memoryNode) Snapshot(_ context.Context, w io.Writer) error {
	if err := n.check("Snapshot"); err != nil || n.snapshot == nil {
		return err
	}
	return n.snapshot(w)
}
