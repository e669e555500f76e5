//go:build system

package systemtest

import (
	"fmt"
	"testing"
	"time"
)

// Members that were cut off for a while answer again soon after the network is whole. How soon is printed:
// HEAL_ROUNDS and HEAL_SECONDS set how often and for how long they are cut off.
func TestAfterAHealMembersAnswerAgain(t *testing.T) {
	rounds, outage := number(t, "HEAL_ROUNDS", 1), time.Duration(number(t, "HEAL_SECONDS", 20))*time.Second
	w := startNetwork(t, 5)
	for round := range rounds {
		token := fmt.Sprintf("meanwhile-%d", round)
		leader := w.leader(t)
		others := w.without(leader)
		cut := others[:2]
		w.cut(t, both(cut, append(others[2:], leader)))
		over := time.After(outage)
		for _, m := range cut {
			w.awaitNotReady(t, m)
		}
		w.mustRegister(t, leader, token, "alice", token, token+"-refresh") // there is something to catch up with
		<-over
		healed := time.Now()
		w.heal(t)
		for _, m := range cut {
			w.awaitReady(t, m)
			t.Logf("%s holds a read lease %.1f s after an outage of %v", m.ID, time.Since(healed).Seconds(), outage)
		}
		w.wantActive(t, token, true, cut...)
		w.mustRevoke(t, leader, token)
	}
}
