package fsm

import (
	"cmp"
	"slices"

	"revoked"
)

// Admission returns the decision about a node name. It reports false if no decision exists.
func (f *FSM) Admission(node string) (revoked.Admission, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	v, ok := f.mem.Admissions[node]
	if !ok {
		return revoked.Admission{}, false
	}
	return *v, true
}

// Admissions returns the decisions about all node names, in the order of the names. The list
// includes expired and withdrawn ones until Expire drops them.
func (f *FSM) Admissions() []revoked.Admission {
	f.mu.RLock()
	defer f.mu.RUnlock()
	byNode := func(a, b revoked.Admission) int { return cmp.Compare(a.Node, b.Node) }
	return sortedValues(f.mem.Admissions, byNode)
}

// JoinTokens returns the join tokens in the order of their creation. The list includes deleted ones
// until Expire drops them.
func (f *FSM) JoinTokens() []revoked.JoinToken {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return sortedValues(f.mem.JoinTokens, func(a, b revoked.JoinToken) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.ID, b.ID))
	})
}

// JoinToken returns the join token with that id. It reports false if the token does not exist.
func (f *FSM) JoinToken(id string) (revoked.JoinToken, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if v := f.mem.JoinTokens[id]; v != nil {
		return *v, true
	}
	return revoked.JoinToken{}, false
}

func sortedValues[V any](m map[string]*V, compare func(a, b V) int) []V {
	list := make([]V, 0, len(m))
	for _, v := range m {
		list = append(list, *v)
	}
	slices.SortFunc(list, compare)
	return list
}
