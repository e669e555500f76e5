//go:build system

package systemtest

import (
	"fmt"
	"testing"
	"time"
)

// A member that was cut off or down answers again soon after. The test logs how soon. HEAL_ROUNDS
// and HEAL_SECONDS set how often and for how long it is away.
func TestMember_AfterAbsence_AnswersAgain(t *testing.T) {
	rounds, away := number(t, "HEAL_ROUNDS", 1), time.Duration(number(t, "HEAL_SECONDS", 20))*time.Second
	w := startNetwork(t, 5)
	for round := range rounds {
		for how, leave := range map[string]func(some, rest []*member) (back func()){
			"cut off": func(some, rest []*member) func() {
				w.cut(t, both(some, rest))
				return func() { w.heal(t) }
			},
			"killed": func(some, _ []*member) func() {
				for _, m := range some {
					m.proc.Kill()
				}
				return func() {
					for _, m := range some {
						w.start(t, m)
					}
				}
			},
		} {
			leader := w.leader(t)
			others := w.without(leader)
			some, token := others[:2], fmt.Sprintf("%s-%d", how, round)
			back := leave(some, append(others[2:], leader))
			over := time.After(away)
			w.mustRegister(t, leader, token, "alice", token, token+"-refresh") // the member must catch up with it
			<-over
			began := time.Now()
			back()
			for _, m := range some {
				w.awaitReady(t, m)
				t.Logf("%s holds a read lease %.1f s after it was %s for %v", m.ID, time.Since(began).Seconds(), how, away)
			}
			w.wantActive(t, token, true, some...)
			w.mustRevoke(t, leader, token)
		}
	}
}
