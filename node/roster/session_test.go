package roster

import (
	"testing"
	"testing/synctest"
	"time"

	"revoked/node/rounds"
)

// A leader renews its own lease more often than its members renew theirs, because its lease is
// shorter. Members follow the leader's plan from any phase, so their requests share the leader's
// rounds.
func TestSession_Pace_MemberJoinsRounds(t *testing.T) {
	const leaderInterval = testInterval * 3 / 5
	for _, oneWay := range []time.Duration{100 * time.Microsecond, 20 * time.Millisecond, 60 * time.Millisecond} {
		for phase := time.Duration(0); phase < leaderInterval; phase += 10 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				r := rounds.New()
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					for {
						r.Begin(time.Now().Add(leaderInterval)).Finish(true)
						select {
						case <-time.After(leaderInterval):
						case <-stop:
							return
						}
					}
				}()
				synctest.Wait()
				s := &session{local: &local{Config: Config{
					Holder: Holder{RenewEvery: func() time.Duration { return leaderInterval }},
					Leader: Leader{NextRenewal: func(late time.Duration, arrived time.Time) time.Duration {
						return r.Next(leaderInterval, late, arrived)
					}},
				}}}
				time.Sleep(phase)
				var member schedule
				for began := time.Now(); time.Since(began) < 30*time.Second; {
					requested := time.Now()
					member.requested()
					time.Sleep(oneWay)
					s.measureDelay()
					arrived := time.Now()
					joined := r.Join(t.Context(), leaderInterval)
					if !joined && time.Since(began) > 10*time.Second {
						t.Fatalf("one way %v, phase %v: a request %v after the start misses the round",
							oneWay, phase, requested.Sub(began))
					}
					renewIn := s.renewIn(arrived)
					time.Sleep(oneWay)
					member.answered(renewIn)
					time.Sleep(time.Until(member.next(requested, testInterval)))
				}
			})
		}
	}
}
