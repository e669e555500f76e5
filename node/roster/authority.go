package roster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/textsafe"
	"revoked/node/nodepb"
)

// authorize returns an error unless this node, the leader, may make the change that node via
// forwards. A leave needs the certificate of the node that leaves. Every other change needs an
// administrator or an operator. In this node's own state, the caller's client must exist, be
// enabled, have the role, and have the version that node via authenticated. Only node via has
// checked the client's secret.
//
// Errors: ErrForbidden; ErrActorChanged if the client has changed since it authenticated;
// ErrNoLeader or ErrNotCurrent while this node cannot verify the caller.
func (r *Roster) authorize(ctx context.Context, via string, req *nodepb.AdminRequest) error {
	by := req.GetActor().Actor()
	switch {
	case req.Kind == nodepb.AdminRequest_LEAVE:
		return checkLeaver(via, req)
	case by.ClientID == "":
		return r.allowOldForwarder(via, req)
	}
	// This node's state must be at least as new as the state in which node via checked the role.
	if err := r.ReadBarrier(ctx); err != nil {
		return err
	}
	client, ok := r.FSM.Client(by.ClientID)
	if !ok || client.Disabled || client.Version != by.Version {
		return fmt.Errorf("%w: client %q", revoked.ErrActorChanged, by.ClientID)
	}
	return client.Require(revoked.RoleAdmin, revoked.RoleOperator)
}

// knownCaller returns its argument if this node's state has that client in the same version, with a
// role that may change the membership. Otherwise it returns the zero actor. A leave needs no
// caller, but the audit log must not contain a caller that the holder of a stolen node key made up.
func (r *Roster) knownCaller(by revoked.Actor) revoked.Actor {
	client, ok := r.FSM.Client(by.ClientID)
	if !ok || client.Version != by.Version || client.Require(revoked.RoleAdmin, revoked.RoleOperator) != nil {
		return revoked.Actor{}
	}
	return by
}

// checkLeaver returns ErrForbidden if peer requests the leave of another node. A leave skips the
// checks of a removal because the node itself requests it.
func checkLeaver(peer string, req *nodepb.AdminRequest) error {
	if leaver := nodeOf(raft.ServerID(req.Server)); leaver != peer {
		return fmt.Errorf("%w: %s requested that %s leave: a node may request only its own leave",
			revoked.ErrForbidden, peer, leaver)
	}
	return nil
}

// allowOldForwarder returns ErrForbidden for a change without a caller, unless it comes from a
// member of version 0.3, which does not send the caller. Once the log contains commands of version
// 2, no such member can exist, regardless of the reported versions.
func (r *Roster) allowOldForwarder(via string, req *nodepb.AdminRequest) error {
	refused := fmt.Errorf("%w: change forwarded by %s: caller is missing", revoked.ErrForbidden, via)
	if req.Kind != nodepb.AdminRequest_REMOVE && req.Kind != nodepb.AdminRequest_TRANSFER || r.usesVersion2() {
		return refused
	}
	for _, p := range r.views() {
		switch {
		case nodeOf(p.server.ID) != via || p.server.ID == r.self:
		case p.hello == nil && r.peers.inGracePeriod(time.Now()):
			return fmt.Errorf("%w: the leader is new and has no report from %s yet", revoked.ErrNoLeader, via)
		case p.isOld():
			r.Log.Warn("membership change has no caller",
				"via", via, "version", p.hello.Version)
			return nil
		}
	}
	return refused
}

// maxLogged is the maximum length of a name from another node in a log line, in bytes.
const maxLogged = 128

// logChange logs the outcome of a change with the caller and the node that forwarded it.
func (r *Roster) logChange(via string, req *nodepb.AdminRequest, err error) {
	target := req.Node
	if req.Kind == nodepb.AdminRequest_LEAVE {
		target = nodeOf(raft.ServerID(req.Server))
	}
	attrs := []any{
		"change", req.Kind.String(), "target", textsafe.Clean(target, maxLogged),
		"client_id", textsafe.Clean(req.GetActor().GetClientId(), maxLogged), "via", via}
	if err != nil {
		r.Log.Warn("membership change failed", append(attrs, "error", err)...)
		return
	}
	r.Log.Info("membership change completed", attrs...)
}
