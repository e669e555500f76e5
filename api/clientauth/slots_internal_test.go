package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
)

// A clientMap implements [Clients]. Its copy is always current.
type clientMap map[string]*revoked.Client

func (m clientMap) Client(id string) (*revoked.Client, bool) { c, ok := m[id]; return c, ok }
func (clientMap) Current(context.Context) error              { return nil }
func (clientMap) ClientsCurrent() bool                       { return true }

// weakClients returns an authenticator of clients whose weak secrets are their ids.
func weakClients(ids ...string) *Authenticator {
	clients := clientMap{}
	for _, id := range ids {
		clients[id] = &revoked.Client{ID: id, Type: revoked.Confidential, Secrets: []revoked.SecretHash{HashSecret(id)}}
	}
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "c"})
	return New(Config{Clients: clients, Now: time.Now, FailuresPerMinute: 60, MaxWait: 5 * time.Second,
		Failed: counter, Throttled: counter})
}

func (a *Authenticator) attempt(id, secret string, n int) error {
	_, err := a.Authenticate(context.Background(), Attempt{Candidates: []Credential{{id, secret}},
		Method: revoked.AuthBasic, From: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})})
	return err
}

// computed returns how many wrong secrets argon2id has checked.
func (a *Authenticator) computed() int {
	a.secrets.mu.Lock()
	defer a.secrets.mu.Unlock()
	return len(a.secrets.wrong)
}

// However many secrets of one client wait for argon2id, another client waits for at most one of
// them.
func TestAuthenticate_OneClientGuessed_UsesOneSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := weakClients("guessed", "other")
		a.secrets.fresh = make(chan struct{}, 1)
		a.secrets.suspect = a.secrets.fresh // so that only the turns of the clients matter
		a.secrets.fresh <- struct{}{}       // argon2id is busy
		const guesses = 8
		var wg sync.WaitGroup
		for i := range guesses {
			wg.Go(func() {
				if err := a.attempt("guessed", fmt.Sprint("guess", i), i); !errors.Is(err, ErrUnauthenticated) {
					t.Errorf("guess %d: got %v, want %v", i, err, ErrUnauthenticated)
				}
			})
		}
		synctest.Wait()
		wg.Go(func() {
			if err := a.attempt("other", "other", guesses); err != nil {
				t.Errorf("another client: got %v, want success", err)
			}
			if n := a.computed(); n > 2 { // one before the other client, and one that began after it
				t.Errorf("another client: got %d guesses checked before it, want one", n)
			}
		})
		synctest.Wait()
		<-a.secrets.fresh
		wg.Wait()
	})
}

// Secrets of clients with failures wait for each other. Secrets of other clients do not wait for
// them.
func TestAuthenticate_ClientsWithFailures_LeaveASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := weakClients("guessed", "other")
		if err := a.attempt("guessed", "first", 1); !errors.Is(err, ErrUnauthenticated) {
			t.Fatalf("first guess: got %v, want %v", err, ErrUnauthenticated)
		}
		a.secrets.suspect <- struct{}{} // the guesses at another client hold the slot
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.attempt("guessed", "second", 2); !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("second guess: got %v, want %v", err, ErrUnauthenticated)
			}
		})
		synctest.Wait()
		if n := a.computed(); n != 1 {
			t.Errorf("second guess: got %d guesses checked, want it to wait", n)
		}
		if err := a.attempt("other", "other", 3); err != nil {
			t.Errorf("another client: got %v, want success", err)
		}
		<-a.secrets.suspect
		wg.Wait()
	})
}
