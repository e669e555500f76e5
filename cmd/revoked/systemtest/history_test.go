//go:build system

package systemtest

import (
	"fmt"
	"testing"

	"github.com/anishathalye/porcupine"
)

// The interval model: a revocation begins with its call and ends with its acknowledgement. Between
// the two, one node may answer inactive and another active; after the end none may answer active. A
// registration with an unknown outcome never ends, because it may take effect at any later time or
// not at all. Every other operation is one point between call and answer.
type verb int

const (
	registerMaybe  verb = iota // a registration was sent whose outcome is unknown
	registeredLive             // acknowledged as active
	registeredDead             // acknowledged as revoked
	revokeBegin                // a revocation was sent
	revokeEnd                  // a revocation was acknowledged
	readActive
	readInactive
)

func (v verb) String() string {
	return [...]string{"register: unknown", "register: active", "register: revoked", "revoke: sent",
		"revoke: acknowledged", "active", "inactive"}[v]
}

// A phase is the state of a registration or a revocation.
type phase int

const (
	never phase = iota
	maybe
	surely
)

// pairState is the state of one pair; both tokens share it.
type pairState struct{ registered, revoked phase }

// step applies one operation and reports whether it was legal.
func (s pairState) step(v verb) (legal bool, next pairState) {
	switch v {
	case registerMaybe:
		s.registered = max(s.registered, maybe)
		return true, s
	case registeredLive:
		legal = s.revoked != surely
		s.registered = surely
		return legal, s
	case registeredDead:
		legal = s.revoked != never
		s.registered = surely
		return legal, s
	case revokeBegin:
		s.revoked = max(s.revoked, maybe)
		return true, s
	case revokeEnd:
		s.revoked = surely
		return true, s
	case readActive:
		legal = s.registered != never && s.revoked != surely
		s.registered = surely // an observation is final
		return legal, s
	default:
		return s.registered != surely || s.revoked != never, s
	}
}

// pairOperation is the input of an operation: its pair and its verb.
type pairOperation struct {
	pair int
	verb verb
	node string
}

func pairModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byPair := map[int][]porcupine.Operation{}
			for _, op := range history {
				p := op.Input.(pairOperation).pair
				byPair[p] = append(byPair[p], op)
			}
			parts := make([][]porcupine.Operation, 0, len(byPair))
			for _, ops := range byPair {
				parts = append(parts, ops)
			}
			return parts
		},
		Init: func() any { return pairState{} },
		Step: func(state, input, _ any) (bool, any) {
			return state.(pairState).step(input.(pairOperation).verb)
		},
		DescribeOperation: func(input, _ any) string {
			op := input.(pairOperation)
			return fmt.Sprintf("pair %d: %v (%s)", op.pair, op.verb, op.node)
		},
	}
}

// event is one operation of a written history.
type event struct {
	verb         verb
	call, answer int64
}

// The checker accepts and rejects histories with a known verdict.
func TestHistoryModel_Histories_AreEvaluated(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ops   []event
		legal bool
	}{
		{"a pair that is revoked", []event{{registeredLive, 0, 1}, {readActive, 2, 3}, {revokeBegin, 4, 4},
			{revokeEnd, 6, 6}, {readInactive, 7, 8}}, true},
		{"active after the acknowledgement", []event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {revokeEnd, 4, 4},
			{readActive, 5, 6}}, false},
		{"active, asked before the acknowledgement",
			[]event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {readActive, 3, 6}, {revokeEnd, 4, 4}}, true},
		{"inactive and active before the acknowledgement",
			[]event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {readInactive, 3, 4}, {readActive, 5, 6}, {revokeEnd, 7, 7}},
			true},
		{"a revocation of unknown outcome that never takes effect",
			[]event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {readActive, 50, 51}}, true},
		{"a revocation of unknown outcome that takes effect late",
			[]event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {readActive, 50, 51}, {readInactive, 60, 61}}, true},
		{"inactive without a revocation", []event{{registeredLive, 0, 1}, {readInactive, 2, 3}}, false},
		{"an acknowledged registration that is lost",
			[]event{{registeredLive, 0, 1}, {readActive, 2, 3}, {readInactive, 4, 5}}, false},
		{"a late registration that is active",
			[]event{{revokeBegin, 0, 0}, {revokeEnd, 2, 2}, {registeredLive, 3, 4}}, false},
		{"a late registration that is inactive from the start",
			[]event{{revokeBegin, 0, 0}, {revokeEnd, 2, 2}, {registeredDead, 3, 4}, {readInactive, 5, 6}}, true},
		{"a registration that took effect, and was repeated after the revocation",
			[]event{{registerMaybe, 0, 0}, {readActive, 1, 2}, {revokeBegin, 3, 3}, {revokeEnd, 4, 4}, {registeredDead, 0, 9}},
			true},
		{"a repeated registration, active after the revocation",
			[]event{{registerMaybe, 0, 0}, {revokeBegin, 3, 3}, {revokeEnd, 4, 4}, {readActive, 5, 6}, {registeredDead, 0, 9}},
			false},
		{"inactive from the start without a revocation", []event{{registeredDead, 0, 1}}, false},
		{"active before any registration", []event{{readActive, 0, 1}}, false},
		{"a registration of unknown outcome, inactive, then active",
			[]event{{registerMaybe, 0, 0}, {readInactive, 1, 2}, {readActive, 3, 4}}, true},
		{"a registration of unknown outcome, active, then inactive",
			[]event{{registerMaybe, 0, 0}, {readActive, 1, 2}, {readInactive, 3, 4}}, false},
		{"a read during the registration", []event{{registeredLive, 0, 9}, {readInactive, 1, 2}, {readActive, 3, 4}}, true},
	} {
		var history []porcupine.Operation
		for _, e := range tt.ops {
			history = append(history, porcupine.Operation{Input: pairOperation{verb: e.verb}, Call: e.call, Return: e.answer})
		}
		if got := porcupine.CheckOperations(pairModel(), history); got != tt.legal {
			t.Errorf("%s: got legal %t, want %t", tt.name, got, tt.legal)
		}
	}
}
