package clientauth_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api/clientauth"
)

var (
	attacker = netip.MustParseAddr("192.0.2.66")
	owner    = netip.MustParseAddr("198.51.100.1")
)

// newGuessBench returns a bench with the budget perMinute and the wait of a real node. Use it in
// virtual time: on a busy machine, argon2id may take longer than the wait.
func newGuessBench(perMinute int) *bench {
	b := newBench()
	b.failed = prometheus.NewCounter(prometheus.CounterOpts{Name: "failed"})
	b.throttled = prometheus.NewCounter(prometheus.CounterOpts{Name: "throttled"})
	b.Authenticator = clientauth.New(clientauth.Config{Clients: b.store, Now: func() time.Time { return b.now },
		FailuresPerMinute: perMinute, MaxWait: 5 * time.Second, Failed: b.failed, Throttled: b.throttled})
	return b
}

// guess sends n wrong secrets concurrently and returns how many were refused as wrong and as
// throttled.
func (b *bench) guess(t *testing.T, id string, n int) (wrong, throttled int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, err := b.tryFrom(attacker, id, fmt.Sprint("guess", i))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, clientauth.ErrUnauthenticated):
				wrong++
			case errors.Is(err, revoked.ErrQuota):
				throttled++
			default:
				t.Errorf("%s: got %v, want a refusal", id, err)
			}
		})
	}
	wg.Wait()
	return wrong, throttled
}

// An attempt is charged before argon2id, so concurrent guesses do not exceed the budget.
func TestAuthenticate_ConcurrentGuesses_KeepBudget(t *testing.T) {
	for _, id := range []string{"weak", "strong", "unknown"} {
		synctest.Test(t, func(t *testing.T) {
			b := newGuessBench(20)
			if wrong, throttled := b.guess(t, id, 40); wrong != 20 || throttled != 20 {
				t.Errorf("%s: got %d wrong and %d throttled, want 20 each", id, wrong, throttled)
			}
			time.Sleep(time.Minute) // virtual time, in which all turns of this client end
		})
	}
}

// Over the budget, a node verifies at most four secrets a second for one client id.
func TestAuthenticate_OverBudget_IsPaced(t *testing.T) {
	for _, id := range []string{"weak", "strong", "unknown"} {
		synctest.Test(t, func(t *testing.T) {
			b := newGuessBench(1)
			b.guess(t, id, 1)
			start := time.Now()
			const n = 12
			for i := range n {
				if _, err := b.tryFrom(attacker, id, fmt.Sprint("more", i)); !errors.Is(err, revoked.ErrQuota) {
					t.Errorf("%s: got %v, want ErrQuota", id, err)
				}
			}
			if took := time.Since(start); took < (n-1)*250*time.Millisecond { // virtual
				t.Errorf("%s: got %d guesses in %v, want at most four a second", id, n, took)
			}
			time.Sleep(time.Minute)
		})
	}
}

// The correct secret passes while others guess, however many guesses wait. It passes immediately if
// its address has used it before, otherwise in the next turn of the address.
func TestAuthenticate_OthersGuess_CorrectSecretPasses(t *testing.T) {
	for _, row := range []struct {
		name   string
		id     string
		secret string
		seen   bool
	}{
		{"a weak secret that is new", "weak", "short", false},
		{"a weak secret seen before", "weak", "short", true},
		{"a strong secret", "strong", strongSecret, false},
		{"a weak secret of another client", "other", "other", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newGuessBench(5)
			b.store.put(confidential("other", "other"))
			target := row.id
			if target == "other" {
				target = "weak"
			}
			if row.seen {
				if _, err := b.tryFrom(owner, row.id, row.secret); err != nil {
					t.Fatalf("%s, before: got %v", row.name, err)
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { b.guess(t, target, 5) })
			synctest.Wait()
			wg.Go(func() { b.guess(t, target, 200) }) // more guesses than may wait
			synctest.Wait()
			start := time.Now()
			c, err := b.tryFrom(owner, row.id, row.secret)
			took := time.Since(start) // virtual
			if err != nil || c.Client.ID != row.id {
				t.Errorf("%s: got %v, want the client", row.name, err)
			}
			if limit := 600 * time.Millisecond; took > limit {
				t.Errorf("%s: got it after %v, want at most two turns", row.name, took)
			}
			if at := row.id != "weak" || row.seen; at && took != 0 {
				t.Errorf("%s: got it after %v, want immediately", row.name, took)
			}
			wg.Wait()
			time.Sleep(time.Minute)
		})
	}
}

// A correct secret costs no budget.
func TestAuthenticate_CorrectSecret_CostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGuessBench(2)
		for range 10 {
			if got := b.try("weak", "short"); got != "weak" {
				t.Fatalf("got %s, want the client", got)
			}
		}
		for i, want := range []string{"unauthenticated", "unauthenticated", "throttled"} {
			if got := b.try("weak", fmt.Sprint("wrong", i)); got != want {
				t.Errorf("guess %d: got %s, want %s", i, got, want)
			}
		}
		if got := b.try("weak", "short"); got != "weak" {
			t.Errorf("over the budget: got %s, want the client", got)
		}
		time.Sleep(time.Minute)
	})
}

// An expired or replaced secret does not pass, although the verifier remembers that it was correct.
func TestAuthenticate_ExpiredOrReplacedSecret_Fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGuessBench(60)
		c := confidential("brief", "short")
		c.Secrets[0].ExpiresAt = revoked.TimeOf(start.Add(time.Second))
		b.store.put(c)
		if got := b.try("brief", "short"); got != "brief" {
			t.Fatalf("got %s, want the client", got)
		}
		b.now = b.now.Add(time.Second)
		if got := b.try("brief", "short"); got != "unauthenticated" {
			t.Errorf("expired: got %s, want unauthenticated", got)
		}
		b.store.put(confidential("brief", "other"))
		if got := b.try("brief", "short"); got != "unauthenticated" {
			t.Errorf("replaced: got %s, want unauthenticated", got)
		}
		time.Sleep(time.Minute)
	})
}

// Made-up names do not evict an exhausted budget, neither one by one nor by exhausting their own.
func TestLimiter_MadeUpNames_KeepExhaustedBudget(t *testing.T) {
	l := clientauth.NewLimiter(1, 3)
	for range 3 {
		l.Take("victim", start)
	}
	for i := range 100_000 {
		l.Take(fmt.Sprint("name", i), start)
	}
	for i := range 40_000 {
		for range 3 {
			l.Take(fmt.Sprint("spent", i), start)
		}
	}
	if !l.Empty("victim", start) {
		t.Error("got a full budget, want it exhausted as before")
	}
	if l.Empty("victim", start.Add(1100*time.Millisecond)) {
		t.Error("a second later: got an empty budget, want a unit")
	}
}
