package command

import (
	"math"
	"slices"

	"revoked"
)

// Limits of an Acknowledge operation, and so of its row.
const (
	MaxAcknowledged = 4096 // maximum number of entries in one operation
	maxAckNodes     = 64   // maximum number of nodes: the bits of each element of Acknowledge.waited
)

// AcknowledgeOp returns the operation that records when entries became final. list must be in the
// order of the indexes, without duplicates. AcknowledgeOp drops entries beyond MaxAcknowledged and
// nodes beyond maxAckNodes. The operation has no actor, because only the leader proposes it.
func AcknowledgeOp(list []revoked.Acknowledgement) *Op {
	m := &Acknowledge{}
	var last revoked.Acknowledgement
	for i := range list[:min(len(list), MaxAcknowledged)] {
		v := &list[i]
		var mask uint64
		for _, node := range v.WaitedFor {
			n := slices.Index(m.Nodes, node)
			if n < 0 && len(m.Nodes) < maxAckNodes {
				n = len(m.Nodes)
				m.Nodes = append(m.Nodes, node)
			}
			if n >= 0 {
				mask |= 1 << n
			}
		}
		m.Index = append(m.Index, v.Index-last.Index)
		m.Applied = append(m.Applied, int64(v.AppliedAt-last.AppliedAt))
		m.Wait = append(m.Wait, uint64(max(0, v.At-v.AppliedAt)))
		m.Waited = append(m.Waited, mask)
		last = *v
	}
	return newOp(revoked.Actor{}, &Op_Acknowledge{Acknowledge: m})
}

// Acknowledgements is the inverse of AcknowledgeOp. ok is false if the lists differ in length or
// the indexes do not increase. It is also false if a time is out of range or a bit names no node.
func (m *Acknowledge) Acknowledgements() (list []revoked.Acknowledgement, ok bool) {
	n := len(m.GetIndex())
	if n > MaxAcknowledged || len(m.GetNodes()) > maxAckNodes ||
		len(m.GetApplied()) != n || len(m.GetWait()) != n || len(m.GetWaited()) != n {
		return nil, false
	}
	var v revoked.Acknowledgement
	for i := range n {
		step, wait := m.Index[i], m.Wait[i]
		if step == 0 || step > math.MaxUint64-v.Index || wait > uint64(MaxTime) {
			return nil, false
		}
		v.Index += step
		v.AppliedAt += revoked.Time(m.Applied[i]) // after an overflow it is out of range
		v.At = v.AppliedAt + revoked.Time(wait)
		if v.AppliedAt < 0 || v.AppliedAt > MaxTime || v.At > MaxTime || m.Waited[i]>>len(m.Nodes) != 0 {
			return nil, false
		}
		v.WaitedFor = nil
		for k, node := range m.Nodes {
			if m.Waited[i]&(1<<k) != 0 {
				v.WaitedFor = append(v.WaitedFor, node)
			}
		}
		list = append(list, v)
	}
	return list, true
}

// checkAcknowledge checks the lists as a whole, and the names, which go into a row.
func checkAcknowledge(m *Acknowledge) error {
	for _, node := range m.GetNodes() {
		if err := revoked.CheckNodeID(node); err != nil {
			return err
		}
	}
	if _, ok := m.Acknowledgements(); !ok {
		return invalid("acknowledge", "want lists of equal length, increasing indexes and times in range")
	}
	return nil
}
