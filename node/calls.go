package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/certify"
	"revoked/node/nodepb"
	"revoked/transport"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// A caller makes calls to other nodes. Its methods may be called concurrently.
type caller struct {
	transport *transport.Transport
	raft      *raft.Raft
}

// callLeader makes one call to the leader that Raft reports. ErrNoLeader guarantees that the leader
// did not receive the request. After every other error the outcome is unknown.
func (c caller) callLeader(ctx context.Context, path string, req, resp proto.Message) error {
	addr, _ := c.raft.LeaderWithID()
	if addr == "" {
		return fmt.Errorf("%w: no leader is known", revoked.ErrNoLeader)
	}
	name, host, err := transport.SplitAddress(addr)
	if err != nil {
		return err
	}
	return c.call(ctx, host, name, path, req, resp)
}

// call makes one call to the node at host, whose certificate must contain name. If name is empty,
// every certificate of the cluster's CA is accepted. call blocks until the response arrives or ctx
// ends. The caller must check for errors inside the response.
func (c caller) call(ctx context.Context, host, name, path string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	b, err := c.transport.Call(ctx, host, name, path, body)
	return answer(host, b, err, resp)
}

// callBound is like call, but uses a new connection. makeReq returns the request for the binding of
// that connection, see transport.Binding.
func (c caller) callBound(
	ctx context.Context, host, name, path string, makeReq func(binding []byte) proto.Message, resp proto.Message,
) error {
	b, err := c.transport.CallBound(ctx, host, name, path, func(binding []byte) ([]byte, error) {
		return proto.Marshal(makeReq(binding))
	})
	return answer(host, b, err, resp)
}

// answer decodes b, the response of the node at host, into resp. err is the error of the call.
func answer(host string, b []byte, err error, resp proto.Message) error {
	switch {
	case errors.Is(err, transport.ErrNotSent):
		return fmt.Errorf("%w: %v", revoked.ErrNoLeader, err)
	case err != nil:
		return fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
	}
	if err := proto.Unmarshal(b, resp); err != nil {
		return fmt.Errorf("%w: response of %s: %v", revoked.ErrOutcomeUnknown, host, err)
	}
	return nil
}

// maxCallBody is the maximum size of the body of a call in bytes.
const maxCallBody = 16 << 20

// handler serves the calls from other nodes. The transport has checked the peer's certificate; the
// handlers check the rights of the peer. Requests arrive only after the roster exists. A
// certificate alone does not prove membership: a removed node still has one, and a node that has
// not joined yet may already have one.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, nodepb.PathHello, func(context.Context, string, *nodepb.Hello) *nodepb.Hello { return n.roster.Hello() })
	handleRequest(mux, nodepb.PathJoin, func(r *http.Request, req *nodepb.JoinRequest) *nodepb.AdminResponse {
		if !req.Forwarded {
			req.Binding, _ = transport.Binding(r) // without a binding, ServeJoin accepts no proof
			key := pki.KeyHash(r.TLS.PeerCertificates[0])
			req.CertificateKey = key[:]
		}
		return n.roster.ServeJoin(r.Context(), transport.PeerNode(r), req)
	})
	handle(mux, nodepb.PathAdmin, func(ctx context.Context, peer string, req *nodepb.AdminRequest) *nodepb.AdminResponse {
		return n.roster.ServeAdmin(ctx, peer, req)
	})
	handle(mux, nodepb.PathMembers, func(_ context.Context, peer string, _ *nodepb.AdminRequest) *nodepb.MembersResponse {
		return n.roster.ServeMembers(peer)
	})
	handle(mux, nodepb.PathSubmit, n.serveSubmit)
	handle(mux, nodepb.PathKeys, n.serveKeys)
	certs := certificates{n}
	handle(mux, nodepb.PathEnroll, func(
		ctx context.Context, peer string, req *nodepb.EnrollRequest,
	) *nodepb.AdminResponse {
		err := certs.signer().ServeEnroll(ctx, peer, req)
		return &nodepb.AdminResponse{Code: revoked.Code(err), Detail: revoked.Detail(err)}
	})
	handleRequest(mux, nodepb.PathRenew, func(r *http.Request, req *nodepb.RenewRequest) *nodepb.RenewResponse {
		return certs.renew(r.Context(), transport.PeerNode(r), r.TLS.PeerCertificates[0], req)
	})
	mux.HandleFunc("POST "+nodepb.PathReports, func(w http.ResponseWriter, r *http.Request) {
		n.roster.ServeReports(w, r)
	})
	return mux
}

// serveSubmit proposes the operations that another member forwarded to this node. The forwarding
// node has verified the actor's secret; Apply verifies that the actor has not changed since.
func (n *Node) serveSubmit(ctx context.Context, peer string, req *nodepb.SubmitRequest) *nodepb.SubmitResponse {
	if !n.roster.IsMember(peer) { // peer left or has not joined; nothing was proposed, so clients may retry
		return &nodepb.SubmitResponse{
			Code: revoked.Code(revoked.ErrNoLeader), Detail: "the forwarding node is not a member of this cluster",
		}
	}
	return n.propose.Serve(ctx, peer, req)
}

// certificates connects package certify with the node.
type certificates struct{ *Node }

// signer returns the part of this node that signs certificates for nodes and records which join
// tokens they used.
func (n certificates) signer() *certify.Signer {
	return &certify.Signer{
		NodeID: n.cfg.NodeID, CA: n.cfg.CAKey, Log: n.cfg.Log, Now: n.cfg.Now, State: n.fsm,
		IsMember: n.roster.IsMember, Leads: func() bool { return n.leadership.term() != 0 },
		Current: n.Current, Commit: n.commitOwn,
		CallLeader: func(ctx context.Context, req *nodepb.EnrollRequest) error {
			if err := n.roster.LeaderKnows(ctx, command.Enrollment); err != nil {
				return err
			}
			var resp nodepb.AdminResponse
			if err := (caller{n.transport, n.raft}).callLeader(ctx, nodepb.PathEnroll, req, &resp); err != nil {
				return err
			}
			return nodepb.DecodeError(resp.Code, resp.Detail)
		},
	}
}

// enrollment returns the function that issues certificates to new nodes over TLS connections
// without a client certificate. It returns nil on a node that cannot sign certificates.
func (n certificates) enrollment() func(context.Context, *tls.Conn) {
	if n.cfg.CAKey == nil {
		return nil
	}
	return enroll.NewServer(func(ctx context.Context, r *enroll.Request) ([]byte, error) {
		if !n.roster.IsMember(n.cfg.NodeID) {
			return nil, fmt.Errorf("%w: %s is not a member", revoked.ErrNoLeader, n.cfg.NodeID)
		}
		// A new node accepts only the CA that its join token names, which is the CA of the members'
		// certificates. So CAKey must be the key of that CA.
		if own, err := n.cfg.Certs.CAKeyHash(); err != nil || own != pki.KeyHash(n.cfg.CAKey.Certificate()) {
			return nil, fmt.Errorf("%w: %s is moving to another CA: its certificate was not issued by the CA of cluster_ca_key",
				revoked.ErrNoLeader, n.cfg.NodeID)
		}
		return n.signer().Issue(ctx, r)
	}).Serve
}

// renew signs a certificate for the member peer, whose certificate is cert.
func (n certificates) renew(
	ctx context.Context, peer string, cert *x509.Certificate, req *nodepb.RenewRequest,
) *nodepb.RenewResponse {
	der, ca, err := n.signer().Renew(ctx, peer, cert, req.Csr)
	if err != nil {
		return &nodepb.RenewResponse{Code: revoked.Code(err), Detail: revoked.Detail(err)}
	}
	return &nodepb.RenewResponse{Certificate: der, CaKey: ca[:]}
}

// renewer returns the part of this node that renews its certificate.
func (n certificates) renewer() *certify.Renewer {
	calls := caller{n.transport, n.raft}
	return &certify.Renewer{
		NodeID: n.cfg.NodeID, Files: *n.cfg.Renew, Certs: n.cfg.Certs, Log: n.cfg.Log, Now: n.cfg.Now,
		IsMember: n.roster.IsMember, Members: n.roster.OtherAddresses,
		Call: func(ctx context.Context, host string, req *nodepb.RenewRequest, resp *nodepb.RenewResponse) error {
			ctx, cancel := context.WithTimeout(ctx, n.cfg.RequestTimeout)
			defer cancel()
			return calls.call(ctx, host, "", nodepb.PathRenew, req, resp)
		},
		Sign: func(ctx context.Context, req *nodepb.RenewRequest) *nodepb.RenewResponse {
			return n.renew(ctx, n.cfg.NodeID, n.cfg.Certs.Leaf(), req)
		},
	}
}

// handle registers a call that needs only the name of the peer, see handleRequest.
func handle[Req, Resp any, PReq interface {
	*Req
	proto.Message
}, PResp interface {
	*Resp
	proto.Message
}](mux *http.ServeMux, path string, serve func(ctx context.Context, peer string, req PReq) PResp) {
	handleRequest(mux, path, func(r *http.Request, req PReq) PResp {
		return serve(r.Context(), transport.PeerNode(r), req)
	})
}

// handleRequest registers a call with a protobuf request and response. Errors are sent inside the
// response. The whole body is read before serve is called.
func handleRequest[Req, Resp any, PReq interface {
	*Req
	proto.Message
}, PResp interface {
	*Resp
	proto.Message
}](mux *http.ServeMux, path string, serve func(r *http.Request, req PReq) PResp) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallBody))
		if err != nil {
			http.Error(w, "body too large or incomplete", http.StatusRequestEntityTooLarge)
			return
		}
		req := PReq(new(Req))
		if err := proto.Unmarshal(body, req); err != nil {
			http.Error(w, "malformed body", http.StatusBadRequest)
			return
		}
		b, err := proto.Marshal(serve(r, req))
		if err != nil {
			http.Error(w, "cannot encode response", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/protobuf")
		_, _ = w.Write(b)
	})
}
