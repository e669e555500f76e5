//go:build system

package systemtest

import (
	"fmt"
	"testing"

	"github.com/anishathalye/porcupine"
)

// The interval model. A revocation is a begin, at its call, and an end, at its acknowledgement: between
// the two one node may say inactive and another still active; after the end none may. A registration
// whose outcome is unknown is a begin only, as it may take effect at any later time or never. Everything
// else is one point between call and answer.
type verb int

const (
	registerMaybe  verb = iota // a registration was sent whose outcome is unknown
	registeredLive             // acknowledged as active
	registeredDead             // acknowledged as revoked from the start
	revokeBegin                // a revocation was sent
	revokeEnd                  // a revocation was acknowledged
	saidActive
	saidInactive
)

func (v verb) String() string {
	return [...]string{"register: unknown", "register: active", "register: revoked", "revoke: sent", "revoke: acknowledged", "active", "inactive"}[v]
}

// phase of a registration or a revocation.
type phase int

const (
	never phase = iota
	maybe
	surely
)

// pairState is the state of one pair: both tokens share it.
type pairState struct{ registered, revoked phase }

// step applies one operation and tells whether it was legal.
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
	case saidActive:
		legal = s.registered != never && s.revoked != surely
		s.registered = surely // what was seen stays
		return legal, s
	default:
		return s.registered != surely || s.revoked != never, s
	}
}

// pairOperation is the input of an operation: whose it is and what happened.
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

// event is one operation of a hand-made history.
type event struct {
	verb         verb
	call, answer int64
}

// The checker is checked: histories whose verdict is known.
func TestHistoryModel(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ops   []event
		legal bool
	}{
		{"a pair that lives and dies", []event{{registeredLive, 0, 1}, {saidActive, 2, 3}, {revokeBegin, 4, 4}, {revokeEnd, 6, 6}, {saidInactive, 7, 8}}, true},
		{"active after the acknowledgement", []event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {revokeEnd, 4, 4}, {saidActive, 5, 6}}, false},
		{"active in an answer that was asked for before the acknowledgement", []event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {saidActive, 3, 6}, {revokeEnd, 4, 4}}, true},
		{"inactive on one node, active on another, then the acknowledgement", []event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {saidInactive, 3, 4}, {saidActive, 5, 6}, {revokeEnd, 7, 7}}, true},
		{"a revocation of unknown outcome that never takes effect", []event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {saidActive, 50, 51}}, true},
		{"a revocation of unknown outcome that takes effect late", []event{{registeredLive, 0, 1}, {revokeBegin, 2, 2}, {saidActive, 50, 51}, {saidInactive, 60, 61}}, true},
		{"inactive although nobody revoked", []event{{registeredLive, 0, 1}, {saidInactive, 2, 3}}, false},
		{"an acknowledged registration that is lost", []event{{registeredLive, 0, 1}, {saidActive, 2, 3}, {saidInactive, 4, 5}}, false},
		{"a late registration that brings the pair to life", []event{{revokeBegin, 0, 0}, {revokeEnd, 2, 2}, {registeredLive, 3, 4}}, false},
		{"a late registration that is dead from the start", []event{{revokeBegin, 0, 0}, {revokeEnd, 2, 2}, {registeredDead, 3, 4}, {saidInactive, 5, 6}}, true},
		{"dead from the start although nobody revoked", []event{{registeredDead, 0, 1}}, false},
		{"active before any registration", []event{{saidActive, 0, 1}}, false},
		{"a registration of unknown outcome that was not there, then was", []event{{registerMaybe, 0, 0}, {saidInactive, 1, 2}, {saidActive, 3, 4}}, true},
		{"a registration of unknown outcome that was there, then was not", []event{{registerMaybe, 0, 0}, {saidActive, 1, 2}, {saidInactive, 3, 4}}, false},
		{"a read during the registration", []event{{registeredLive, 0, 9}, {saidInactive, 1, 2}, {saidActive, 3, 4}}, true},
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
