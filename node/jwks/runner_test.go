package jwks_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/node/jwks"
)

// A world simulates the state and the servers that a runner uses, in the virtual time of a synctest
// bubble.
type world struct {
	mu      sync.Mutex
	issuers []*revoked.Issuer
	fetches []time.Time
	atOnce  int
	most    int
	answer  func(ctx context.Context) (jwks.Set, error)
	stores  int
	ok, bad int
	log     strings.Builder
}

func newWorld(names ...string) *world {
	w := &world{answer: func(context.Context) (jwks.Set, error) {
		return jwks.Set{Keys: []revoked.IssuerKey{{KeyID: "k1"}}, MaxAge: time.Hour}, nil
	}}
	for _, n := range names {
		w.issuers = append(w.issuers, &revoked.Issuer{Name: n, JWKSURI: "https://" + n + ".example/jwks"})
	}
	return w
}

func (w *world) runner() *jwks.Runner {
	return jwks.NewRunner(jwks.RunnerConfig{
		Issuers: func() []*revoked.Issuer {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.issuers
		},
		Fetch: func(ctx context.Context, _ string) (jwks.Set, error) {
			w.mu.Lock()
			w.fetches = append(w.fetches, time.Now())
			w.atOnce++
			w.most = max(w.most, w.atOnce)
			answer := w.answer
			w.mu.Unlock()
			defer func() {
				w.mu.Lock()
				w.atOnce--
				w.mu.Unlock()
			}()
			return answer(ctx)
		},
		Store: func(_ context.Context, _ revoked.Actor, i *revoked.Issuer, keys []revoked.IssuerKey) (uint64, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stores++
			if len(i.Keys) == 0 {
				next := *i
				next.Keys, next.KeysVersion = keys, 7
				w.issuers = slices.Clone(w.issuers) // a reader may hold the list
				for n := range w.issuers {
					if w.issuers[n].Name == i.Name {
						w.issuers[n] = &next
					}
				}
			}
			return 7, nil
		},
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Count: func(ok bool) {
			if ok {
				w.ok++
			} else {
				w.bad++
			}
		},
	})
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.fetches)
}

// run runs a test with a Runner whose Run is active until the test ends.
func (w *world) run(t *testing.T, test func(t *testing.T, r *jwks.Runner)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := w.runner()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		synctest.Wait()
		test(t, r)
		cancel()
		<-done
		if _, err := r.Refresh(t.Context(), revoked.Actor{}, "a"); !errors.Is(err, revoked.ErrNoLeader) {
			t.Errorf("after the term: got %v, want %v", err, revoked.ErrNoLeader)
		}
	})
}

func TestRunner_Fetches_FollowTheSchedule(t *testing.T) {
	w := newWorld("a")
	w.run(t, func(t *testing.T, r *jwks.Runner) {
		if w.count() != 1 {
			t.Fatalf("first fetch: got %d fetches, want 1", w.count())
		}
		time.Sleep(53 * time.Minute)
		if w.count() != 1 {
			t.Errorf("within max-age: got %d fetches, want 1", w.count())
		}
		time.Sleep(8 * time.Minute)
		states, ok := r.States()
		s := states["a"]
		if w.count() != 2 || !ok || !s.OK || s.Error != "" || !s.NextAt.After(s.At) {
			t.Errorf("after max-age: got %d fetches, state %+v, want 2", w.count(), s)
		}
	})
	if w.ok != 2 || w.bad != 0 || w.log.Len() != 0 {
		t.Errorf("got %d and %d counted, log %q, want 2 successes", w.ok, w.bad, w.log.String())
	}
}

// At most one fetch begins in 30 seconds, regardless of the number of callers that request one.
// Callers that request a fetch during a fetch share the running one.
func TestRunner_Refresh_IsSharedAndLimited(t *testing.T) {
	w := newWorld("a")
	w.run(t, func(t *testing.T, r *jwks.Runner) {
		if _, err := r.Refresh(t.Context(), revoked.Actor{}, "a"); !errors.Is(err, revoked.ErrQuota) {
			t.Errorf("right after a fetch: got %v, want %v", err, revoked.ErrQuota)
		}
		release := make(chan struct{})
		w.set(func() {
			w.answer = func(context.Context) (jwks.Set, error) { <-release; return jwks.Set{}, nil }
		})
		time.Sleep(30 * time.Second)
		errs := make(chan error, 50)
		for range 50 {
			go func() { _, err := r.Refresh(t.Context(), revoked.Actor{}, "a"); errs <- err }()
		}
		synctest.Wait()
		if w.count() != 2 {
			t.Errorf("50 callers: got %d fetches, want one more", w.count()-1)
		}
		close(release)
		for range 50 {
			if err := <-errs; err != nil {
				t.Errorf("caller: got %v, want success", err)
			}
		}
	})
}

func TestRunner_Refresh_ReportsChange(t *testing.T) {
	w := newWorld()
	w.run(t, func(t *testing.T, r *jwks.Runner) {
		if _, err := r.Refresh(t.Context(), revoked.Actor{}, "a"); !errors.Is(err, revoked.ErrNotCurrent) {
			t.Errorf("unknown issuer: got %v, want %v", err, revoked.ErrNotCurrent)
		}
		w.set(func() { w.issuers = newWorld("a").issuers })
		r.Changed()
		synctest.Wait()
		if w.count() != 1 || len(w.issuers[0].Keys) != 1 {
			t.Fatalf("new issuer: got %d fetches, want its keys immediately", w.count())
		}
		time.Sleep(jwks.MinInterval)
		if out, err := r.Refresh(t.Context(), revoked.Actor{}, "a"); err != nil || out.Changed || out.Index != 7 {
			t.Errorf("same keys: got %+v, %v, want no change", out, err)
		}
		w.set(func() { w.issuers = []*revoked.Issuer{{Name: "a", JWKSURI: w.issuers[0].JWKSURI}} })
		time.Sleep(jwks.MinInterval)
		if out, err := r.Refresh(t.Context(), revoked.Actor{}, "a"); err != nil || !out.Changed {
			t.Errorf("new keys: got %+v, %v, want a change", out, err)
		}
	})
}

func TestRunner_Failures_BackOffAndAreLoggedOnce(t *testing.T) {
	w := newWorld("a")
	good := w.answer
	broken := errors.New("status 500")
	w.answer = func(context.Context) (jwks.Set, error) { return jwks.Set{}, broken }
	w.run(t, func(t *testing.T, r *jwks.Runner) {
		time.Sleep(10 * time.Minute)
		states, _ := r.States()
		s := states["a"]
		if n := w.count(); n < 4 || n > 6 || s.OK || s.Error != "status 500" || w.stores != 0 {
			t.Errorf("got %d fetches in 10 minutes, state %+v, %d stores", n, s, w.stores)
		}
		out, err := r.Refresh(t.Context(), revoked.Actor{}, "a")
		if !errors.Is(err, revoked.ErrNotCurrent) || revoked.Detail(err) != "status 500" {
			t.Errorf("refresh: got %+v, %v, want %v: status 500", out, err, revoked.ErrNotCurrent)
		}
		if n := strings.Count(w.log.String(), "cannot fetch keys of issuer"); n != 1 {
			t.Errorf("log: got %d lines, want 1:\n%s", n, w.log.String())
		}
		w.set(func() { w.answer = good })
		time.Sleep(30 * time.Minute)
		states, _ = r.States()
		if n := strings.Count(w.log.String(), "fetched keys of issuer after failures"); !states["a"].OK || n != 1 {
			t.Errorf("repaired: got %+v, log:\n%s", states, w.log.String())
		}
	})
}

// C31: a second fetch soon confirms whether a key is still missing.
func TestRunner_MissingKey_IsFetchedAgainSoon(t *testing.T) {
	w := newWorld("a")
	w.issuers[0].Keys = []revoked.IssuerKey{{State: revoked.KeyActive, MissingSince: 1}}
	w.run(t, func(t *testing.T, _ *jwks.Runner) {
		time.Sleep(29 * time.Second)
		if w.count() != 1 {
			t.Errorf("before 30 s: got %d fetches, want 1", w.count())
		}
		time.Sleep(5 * time.Second)
		if w.count() != 2 {
			t.Errorf("after 34 s: got %d fetches, want 2", w.count())
		}
	})
}

func TestRunner_ManyIssuers_ConcurrencyIsBounded(t *testing.T) {
	w := newWorld("a", "b", "c", "d", "e", "f", "g", "h", "i")
	w.answer = func(context.Context) (jwks.Set, error) {
		time.Sleep(time.Second)
		return jwks.Set{MaxAge: time.Hour}, nil
	}
	w.run(t, func(t *testing.T, _ *jwks.Runner) {
		time.Sleep(10 * time.Second)
		if w.count() != 9 || w.most != 4 {
			t.Errorf("got %d fetches, %d concurrently, want 9 and 4", w.count(), w.most)
		}
	})
}

// A hanging server delays neither the end of the term nor the deletion of its issuer.
func TestRunner_HangingServer_IsAbandoned(t *testing.T) {
	w := newWorld("a", "b")
	w.answer = func(ctx context.Context) (jwks.Set, error) {
		<-ctx.Done()
		return jwks.Set{}, ctx.Err()
	}
	w.run(t, func(t *testing.T, r *jwks.Runner) {
		asked := make(chan error)
		go func() { _, err := r.Refresh(t.Context(), revoked.Actor{}, "b"); asked <- err }()
		synctest.Wait()
		w.set(func() { w.issuers = w.issuers[:1] })
		r.Changed()
		if err := <-asked; !errors.Is(err, revoked.ErrNoLeader) {
			t.Errorf("deleted issuer: got %v, want %v", err, revoked.ErrNoLeader)
		}
		if states, ok := r.States(); !ok || len(states) != 1 {
			t.Error("deleted issuer: got a state")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Refresh(ctx, revoked.Actor{}, "a"); !errors.Is(err, revoked.ErrNotCurrent) {
			t.Errorf("caller that gives up: got %v, want %v", err, revoked.ErrNotCurrent)
		}
	})
	if w.bad != 0 {
		t.Errorf("got %d failures, want none: the fetches were canceled", w.bad)
	}
}
