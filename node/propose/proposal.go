package propose

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/tracing"
	"revoked/node/nodepb"
)

// A proposal contains the operations of one caller that share a log entry. Each operation succeeds
// or fails separately. A proposal without operations is a read barrier.
type proposal struct {
	ops   []*command.Op
	final bool // whether to answer only when no node can still report the old state
	lease bool // whether it is the barrier of a lease: followers need not learn quickly that it committed
	bulk  bool // whether it may wait for other proposals, and be spread over several entries
	// record marks a proposal that Record made.
	record bool
	bytes  int

	parents tracing.Parents // parents of the spans of this proposal; nil unless it is sampled

	noop    []bool // on the leader: whether an operation changes nothing, so that results already has its result
	results []fsm.Result
	index   uint64
	term    uint64 // term of the entry; set on the leader only
	err     error
	done    chan struct{}
}

func newProposal(ops []*command.Op, final bool) *proposal {
	p := &proposal{ops: ops, final: final, results: make([]fsm.Result, len(ops)), done: make(chan struct{})}
	for _, op := range ops {
		p.bytes += proto.Size(op) + 4
	}
	return p
}

// mustBeFinal reports whether the answer waits for the leases of all members. Registrations that
// invalidated an older token wait as well.
func (p *proposal) mustBeFinal() bool {
	return p.final || slices.ContainsFunc(p.results, func(r fsm.Result) bool { return r.Ended })
}

// weight returns the number of operations that p counts as in a batch. A read barrier counts as 1.
func (p *proposal) weight() int { return max(1, len(p.ops)) }

// timeout returns how long a call for p may take.
func (p *proposal) timeout(normal time.Duration) time.Duration {
	if p.bulk {
		return bulkTries * normal
	}
	return normal
}

// finish sets the outcome of p and wakes its caller. It must be called exactly once.
func (p *proposal) finish(index uint64, err error) {
	p.index, p.err = index, err
	close(p.done)
}

// response encodes the outcome of p for the node that forwarded p.
func (p *proposal) response(err error) *nodepb.SubmitResponse {
	if err != nil {
		return &nodepb.SubmitResponse{Code: revoked.Code(err), Detail: revoked.Detail(err)}
	}
	resp := &nodepb.SubmitResponse{Index: p.index, Results: make([]*nodepb.OpResult, len(p.results))}
	for i, r := range p.results {
		resp.Results[i] = &nodepb.OpResult{
			Code: revoked.Code(r.Err), Detail: revoked.Detail(r.Err),
			Index: r.Index, Created: r.Register.Created, Revoked: r.Register.Revoked,
			Unknown: r.Unknown,
		}
		if id := r.Register.GrantID; id != p.ops[i].GetRegister().GetGrantId() {
			resp.Results[i].GrantId = id
		}
	}
	return resp
}

func decodeResult(r *nodepb.OpResult) fsm.Result {
	return fsm.Result{
		Err: nodepb.DecodeError(r.Code, r.Detail), Index: r.Index, Unknown: r.Unknown,
		Register: revoked.RegisterResult{Created: r.Created, Revoked: r.Revoked, GrantID: r.GrantId},
	}
}

// bulkTries is the timeout of a bulk proposal as a multiple of the timeout of other proposals.
const bulkTries = 6

var errLeadershipEnded = fmt.Errorf("%w: leadership ended", revoked.ErrNoLeader)
