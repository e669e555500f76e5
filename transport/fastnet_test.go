package transport_test

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

var errCut = errors.New("cut")

// fastNet connects Raft nodes in one process, with the heartbeat fast path of
// raft.NetworkTransport. It can cut off members.
type fastNet struct {
	mu    sync.Mutex
	ports map[raft.ServerAddress]*fastPort
	// pass reports whether a message is delivered; nil delivers all.
	pass func(from, to raft.ServerAddress, isHeartbeat bool) bool
	// answered is called after each answered heartbeat.
	answered func(from, to raft.ServerAddress, term uint64)
}

func newFastNet() *fastNet { return &fastNet{ports: map[raft.ServerAddress]*fastPort{}} }

func (n *fastNet) set(pass func(from, to raft.ServerAddress, isHeartbeat bool) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pass = pass
}

func (n *fastNet) port(addr raft.ServerAddress) *fastPort {
	p := &fastPort{net: n, addr: addr, ch: make(chan raft.RPC), done: make(chan struct{})}
	n.ports[addr] = p
	return p
}

// fastPort is one member's transport.
type fastPort struct {
	net  *fastNet
	addr raft.ServerAddress
	ch   chan raft.RPC
	done chan struct{}
	once sync.Once

	mu        sync.Mutex
	heartbeat func(raft.RPC)
}

var _ raft.Transport = (*fastPort)(nil)

func (p *fastPort) Consumer() <-chan raft.RPC     { return p.ch }
func (p *fastPort) LocalAddr() raft.ServerAddress { return p.addr }
func (p *fastPort) Close() error                  { p.once.Do(func() { close(p.done) }); return nil }

func (p *fastPort) SetHeartbeatHandler(fn func(raft.RPC)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heartbeat = fn
}

func (p *fastPort) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (p *fastPort) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }
func (p *fastPort) DecodePeer(b []byte) raft.ServerAddress                     { return raft.ServerAddress(b) }

// isHeartbeat applies the condition of NetworkTransport.handleCommand.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.Term != 0 && len(req.Addr) != 0 && req.PrevLogEntry == 0 && req.PrevLogTerm == 0 &&
		len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

func (p *fastPort) send(target raft.ServerAddress, cmd any, data io.Reader, fast bool) (any, error) {
	p.net.mu.Lock()
	to, pass := p.net.ports[target], p.net.pass
	p.net.mu.Unlock()
	if pass != nil && !pass(p.addr, target, fast) {
		return nil, errCut
	}
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: cmd, Reader: data, RespChan: answer}
	to.mu.Lock()
	handler := to.heartbeat
	to.mu.Unlock()
	if fast && handler != nil {
		go handler(rpc)
	} else {
		select {
		case to.ch <- rpc:
		case <-to.done:
			return nil, errCut
		case <-time.After(longStop):
			return nil, errCut
		}
	}
	select {
	case r := <-answer:
		return r.Response, r.Error
	case <-to.done:
		return nil, errCut
	case <-time.After(longStop):
		return nil, errCut
	}
}

func (p *fastPort) AppendEntries(_ raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	fast := isHeartbeat(req)
	r, err := p.send(target, req, nil, fast)
	if r, ok := r.(*raft.AppendEntriesResponse); ok && r != nil {
		*resp = *r
	}
	if err == nil && fast && p.net.answered != nil {
		p.net.answered(p.addr, target, req.Term)
	}
	return err
}

func (p *fastPort) RequestVote(_ raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest,
	resp *raft.RequestVoteResponse) error {
	r, err := p.send(target, req, nil, false)
	if r, ok := r.(*raft.RequestVoteResponse); ok && r != nil {
		*resp = *r
	}
	return err
}

func (p *fastPort) InstallSnapshot(_ raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, data io.Reader) error {
	r, err := p.send(target, req, data, false)
	if r, ok := r.(*raft.InstallSnapshotResponse); ok && r != nil {
		*resp = *r
	}
	return err
}

func (p *fastPort) TimeoutNow(_ raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest,
	resp *raft.TimeoutNowResponse) error {
	r, err := p.send(target, req, nil, false)
	if r, ok := r.(*raft.TimeoutNowResponse); ok && r != nil {
		*resp = *r
	}
	return err
}

// deafPort ignores the heartbeat handler, as the shipped transport does.
type deafPort struct{ *fastPort }

func (deafPort) SetHeartbeatHandler(func(raft.RPC)) {}
