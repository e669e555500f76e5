package clientauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"revoked"
	"revoked/api/clientauth"
)

// A store holds client records. Current runs catchUp once.
type store struct {
	clients map[string]*revoked.Client
	catchUp func()
	behind  bool
}

func (s *store) Client(id string) (*revoked.Client, bool) { c, ok := s.clients[id]; return c, ok }
func (s *store) ClientsCurrent() bool                     { return !s.behind }
func (s *store) Current(context.Context) error {
	if s.behind {
		return revoked.ErrNoLeader
	}
	if s.catchUp != nil {
		s.catchUp()
		s.catchUp = nil
	}
	return nil
}

func (s *store) put(c revoked.Client) { s.clients[c.ID] = &c }

func confidential(id, secret string) revoked.Client {
	return revoked.Client{ID: id, Type: revoked.Confidential, Secrets: []revoked.SecretHash{clientauth.HashSecret(secret)}}
}

// bench is an authenticator that allows two failures a minute.
type bench struct {
	*clientauth.Authenticator
	store             *store
	now               time.Time
	failed, throttled prometheus.Counter
}

func newBench() *bench {
	b := &bench{store: &store{clients: map[string]*revoked.Client{}}, now: start,
		failed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "failed"}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{Name: "throttled"})}
	b.store.put(confidential("strong", strongSecret))
	b.store.put(confidential("weak", "short"))
	b.Authenticator = clientauth.New(clientauth.Config{
		Clients: b.store, Now: func() time.Time { return b.now }, FailuresPerMinute: 2, MaxWait: time.Minute,
		Failed: b.failed, Throttled: b.throttled,
	})
	return b
}

const strongSecret = "a-secret-of-at-least-32-bytes-0123"

func (b *bench) tryFrom(from netip.Addr, id, secret string) (*clientauth.Caller, error) {
	return b.Authenticate(context.Background(), clientauth.Attempt{
		Candidates: []clientauth.Credential{{ID: id, Secret: secret}}, Method: revoked.AuthBasic, From: from})
}

// try authenticates by HTTP Basic and returns the id of the client, or a word for the error.
func (b *bench) try(id, secret string) string {
	c, err := b.tryFrom(netip.MustParseAddr("192.0.2.1"), id, secret)
	var throttled *clientauth.ThrottledError
	switch {
	case err == nil:
		return c.Client.ID
	case errors.As(err, &throttled) && errors.Is(err, revoked.ErrQuota) && throttled.RetryAfter > 0:
		return "throttled"
	case errors.Is(err, clientauth.ErrUnauthenticated):
		return "unauthenticated"
	}
	return err.Error()
}

func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestAuthenticate_OverBudget_CorrectSecretPasses(t *testing.T) {
	for id, secret := range map[string]string{"strong": strongSecret, "weak": "short"} {
		b := newBench()
		for i, want := range []string{"unauthenticated", "unauthenticated", "throttled", "throttled"} {
			if got := b.try(id, fmt.Sprint("guess", i)); got != want {
				t.Errorf("%s, guess %d: got %s, want %s", id, i, got, want)
			}
		}
		if got := b.try(id, secret); got != id {
			t.Errorf("%s, correct secret: got %s, want the client", id, got)
		}
		if f, th := value(t, b.failed), value(t, b.throttled); f != 4 || th != 2 {
			t.Errorf("%s: got %v failed, %v throttled, want 4, 2", id, f, th)
		}
		b.now = b.now.Add(time.Minute)
		if got := b.try(id, "guess"); got != "unauthenticated" {
			t.Errorf("%s, a minute later: got %s, want unauthenticated", id, got)
		}
	}
}

func TestAuthenticate_UnusableClient_Fails(t *testing.T) {
	b := newBench()
	disabled, post, public := confidential("disabled", strongSecret), confidential("post", strongSecret),
		confidential("public", strongSecret)
	disabled.Disabled, post.AuthMethods, public.Type = true, []string{revoked.AuthPost}, revoked.Public
	expired := confidential("expired", strongSecret)
	expired.Secrets[0].ExpiresAt = revoked.TimeOf(start)
	none := confidential("none", strongSecret)
	none.Secrets = nil
	for _, c := range []revoked.Client{disabled, post, public, expired, none} {
		b.store.put(c)
		if got := b.try(c.ID, strongSecret); got != "unauthenticated" {
			t.Errorf("%s: got %s, want unauthenticated", c.ID, got)
		}
	}
	if got := b.try("unknown", strongSecret); got != "unauthenticated" {
		t.Errorf("unknown client: got %s, want unauthenticated", got)
	}
	malformed := clientauth.Attempt{Method: revoked.AuthBasic}
	if _, err := b.Authenticate(t.Context(), malformed); !errors.Is(err, clientauth.ErrUnauthenticated) {
		t.Errorf("malformed credentials: got %v, want ErrUnauthenticated", err)
	}
}

func TestAuthenticate_ChangedElsewhere_CatchesUp(t *testing.T) {
	b := newBench()
	b.store.catchUp = func() { b.store.put(confidential("new", strongSecret)) }
	if got := b.try("new", strongSecret); got != "new" {
		t.Errorf("new client: got %s, want the client", got)
	}
	b.store.catchUp = func() { b.store.put(confidential("weak", "changed")) }
	if got := b.try("weak", "changed"); got != "weak" {
		t.Errorf("new secret: got %s, want the client", got)
	}
	b.store.catchUp = func() {
		b.store.put(revoked.Client{ID: "public", Type: revoked.Public, AllowPublicRevocation: true})
	}
	if c, _ := b.PublicClient(t.Context(), "public"); c == nil {
		t.Error("new public client: got nil, want the client")
	}
	if c, _ := b.PublicClient(t.Context(), "strong"); c != nil {
		t.Errorf("confidential client as a public one: got %s, want nil", c.ID)
	}
}

func TestAuthenticate_NodeBehind_ReturnsErrNotCurrent(t *testing.T) {
	b := newBench()
	b.store.behind = true
	for _, id := range []string{"unknown", "strong", "weak"} { // the records of the last two may be old
		if _, err := b.tryFrom(netip.Addr{}, id, "wrong"); !errors.Is(err, revoked.ErrNotCurrent) {
			t.Errorf("%s: got %v, want ErrNotCurrent", id, err)
		}
	}
	if _, err := b.PublicClient(t.Context(), "public"); !errors.Is(err, revoked.ErrNotCurrent) {
		t.Errorf("public client: got %v, want ErrNotCurrent", err)
	}
	for id, secret := range map[string]string{"strong": strongSecret, "weak": "short"} {
		if got := b.try(id, secret); got != id {
			t.Errorf("%s, correct secret: got %s, want the client", id, got)
		}
	}
	b.store.behind = false
	if got := b.try("strong", "wrong"); got != "unauthenticated" {
		t.Errorf("current node: got %s, want unauthenticated", got)
	}
}
