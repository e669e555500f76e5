package propose_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
	"revoked/node/propose"
)

// The delays of a trio.
const (
	hopTime    = 300 * time.Microsecond // network delay between members, in one direction
	clientTime = 200 * time.Microsecond // least time between an answer and the next request
)

// A trio is a cluster of three members in virtual time. The leader's log is a slowLog.
type trio struct {
	log     *slowLog
	routers []*propose.Router // the leader's router is the first
	stop    func()

	mu   sync.Mutex
	took []time.Duration // durations of the revocations
}

func newTrio(t *testing.T) *trio {
	c := &trio{log: &slowLog{opTime: 20 * time.Microsecond}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	leader, stopLeader := newSlowRouter(t, c.log, func(cfg *propose.Config) {
		cfg.Acknowledge = func(context.Context, uint64, uint64) (propose.Wait, error) {
			time.Sleep(3 * hopTime) // the members learn of the commit, and report
			return propose.Wait{}, nil
		}
	})
	c.routers = []*propose.Router{leader}
	for range 2 {
		r := propose.NewRouter(routerConfig(nil, func(cfg *propose.Config) {
			cfg.Forward = func(ctx context.Context, req *nodepb.SubmitRequest, resp *nodepb.SubmitResponse) error {
				time.Sleep(hopTime)
				got := leader.Serve(ctx, "node2", req)
				time.Sleep(hopTime)
				resp.Index, resp.Results, resp.Code = got.Index, got.Results, got.Code
				return nil
			}
		}), func() *propose.Proposer { return nil })
		c.routers = append(c.routers, r)
		running.Go(func() { r.Run(ctx) })
	}
	c.stop = func() { cancel(); running.Wait(); stopLeader() }
	return c
}

// revoke sends one revocation to a member and returns the time until its answer.
func (c *trio) revoke(ctx context.Context, t *testing.T, node int) time.Duration {
	op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
	began := time.Now()
	if _, err := c.routers[node].Commit(ctx, op); err != nil && ctx.Err() == nil {
		t.Error(err)
	}
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = append(c.took, took)
	return took
}

// callers starts callers that revoke one token after the other until ctx ends.
func (c *trio) callers(ctx context.Context, t *testing.T, n int, done *sync.WaitGroup) {
	for i := range n {
		done.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for ctx.Err() == nil {
				c.revoke(ctx, t, i%len(c.routers))
				time.Sleep(clientTime + time.Duration(rng.Int64N(int64(time.Millisecond)))) // virtual time
			}
		})
	}
}

// run starts callers and lets them run for 300 ms. It returns how many operations a non-empty entry
// has on average, and the median time of a revocation.
func (c *trio) run(t *testing.T, callers int) (perEntry float64, median time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	c.callers(ctx, t, callers, &running)
	time.Sleep(300 * time.Millisecond)
	cancel()
	running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	ops, entries := 0, 0
	for _, e := range c.log.all() {
		if ops += len(e.ops); len(e.ops) > 0 {
			entries++
		}
	}
	slices.Sort(c.took)
	return float64(ops) / float64(entries), c.took[len(c.took)/2]
}

// A caller sends its next operation after an answer. So an entry contains operations of about half
// of the callers. The others wait until the leases permit the acknowledgement of the previous
// entry. If there are few callers, a batch does not wait for others.
func TestGather_ClosedLoop_FillsEntries(t *testing.T) {
	for callers, least := range map[int]float64{1: 1, 4: 1.5, 8: 2.5, 16: 5, 64: 26} {
		t.Run(strconv.Itoa(callers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTrio(t)
				perEntry, median := c.run(t, callers)
				c.stop()
				t.Logf("%d callers: %.1f operations an entry, median %v", callers, perEntry, median)
				if perEntry < least {
					t.Errorf("%d callers: got %.1f operations an entry, want at least %.1f", callers, perEntry, least)
				}
				if median > 3*commitTime {
					t.Errorf("%d callers: got a median of %v, want at most %v", callers, median, 3*commitTime)
				}
			})
		})
	}
}

// A single caller waits only for its own entry, even soon after a load or an import.
func TestGather_SingleCaller_IsNotDelayed(t *testing.T) {
	alone := commitTime + 20*time.Microsecond + 3*hopTime // on the leader
	for name, before := range map[string]func(*testing.T, *trio){
		"immediately":  func(*testing.T, *trio) {},
		"after a load": func(t *testing.T, c *trio) { c.run(t, 64) },
		"after an import": func(t *testing.T, c *trio) {
			ctx, cancel := context.WithCancel(t.Context())
			var streams sync.WaitGroup
			stream(ctx, t, c.routers[0], "issuer", &streams)
			stream(ctx, t, c.routers[1], "issuer", &streams)
			time.Sleep(200 * time.Millisecond)
			cancel()
			streams.Wait()
			time.Sleep(time.Second) // the leader's queue has committed
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTrio(t)
				before(t, c)
				for node, want := range []time.Duration{alone, alone + 2*hopTime, alone + 2*hopTime} {
					waited := 0
					for range 10 {
						time.Sleep(20 * time.Millisecond) // the previous entry has committed
						if c.revoke(t.Context(), t, node) > want {
							waited++
						}
					}
					if waited > 2 {
						t.Errorf("member %d: got %d of 10 revocations that took more than %v, want at most 2", node, waited, want)
					}
				}
				c.stop()
			})
		})
	}
}

// Batches stop waiting for callers that gave up: the other callers are as fast as without them.
func TestGather_CallersGiveUp_AreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var many sync.WaitGroup
		c.callers(ctx, t, 64, &many)
		<-ctx.Done() // in the middle of their calls
		many.Wait()
		if _, median := c.run(t, 4); median > 3*commitTime {
			t.Errorf("got a median of %v for the remaining callers, want at most %v", median, 3*commitTime)
		}
		c.stop()
	})
}
