package fsm

import "revoked/fsm/rules"

// hashHistory is the number of past indexes whose hashes are kept.
const hashHistory = 4096

// A hashRing holds the hashes at the newest indexes, each at its index modulo hashHistory.
type hashRing [hashHistory]rules.HashPoint

func (r *hashRing) push(p rules.HashPoint) { r[p.Index%hashHistory] = p }

// at returns the hashes at index. It reports false unless index is among the newest hashHistory
// indexes.
func (r *hashRing) at(index uint64) (rules.HashPoint, bool) {
	p := r[index%hashHistory]
	return p, p.Index == index && index > 0
}
