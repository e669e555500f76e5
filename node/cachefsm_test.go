package node

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/cache"
)

var _ fsm.Changes = (*cache.Epochs)(nil)
var _ cache.Source = (*fsm.FSM)(nil)

// A state is a real state machine that the test applies commands to.
type state struct {
	*fsm.FSM
	t     *testing.T
	index uint64
}

const stateStart revoked.Time = 1_700_000_000_000_000

func openState(t *testing.T, changes fsm.Changes) *state {
	t.Helper()
	f, err := fsm.Open(fsm.Config{
		Dir: t.TempDir(), Log: quiet(), Changes: changes,
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	s := &state{FSM: f, t: t}
	admin := &revoked.Client{ID: "admin", Type: revoked.Confidential,
		Roles: []revoked.Role{revoked.RoleAdmin, revoked.RoleIssuer}, AuthMethods: []string{revoked.AuthBasic},
		Secrets: []revoked.SecretHash{{Kind: revoked.HashSHA256, Salt: make([]byte, 16), Hash: make([]byte, 32)}}}
	app := &revoked.Client{ID: "app", Type: revoked.Public}
	s.apply(command.Encode(&command.Bootstrap{
		ClusterId: "c", Stamp: int64(stateStart),
		Clients: []*command.ClientRecord{command.ClientMessage(admin), command.ClientMessage(app)},
	}))
	return s
}

func (s *state) apply(command []byte, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	s.index++
	s.Apply(&raft.Log{Index: s.index, Term: 1, Type: raft.LogCommand, Data: command})
}

func (s *state) batch(ops ...*command.Op) {
	s.t.Helper()
	s.apply(command.Encode(&command.Batch{Stamp: int64(stateStart) + int64(s.index), Ops: ops}))
}

func (s *state) admin() revoked.Actor {
	s.t.Helper()
	c, ok := s.Client("admin")
	if !ok {
		s.t.Fatal("no client admin")
	}
	return revoked.ActorOf(c)
}

// register registers tokens first to last-1, each in its own grant, and returns their digests.
func (s *state) register(first, last int) []revoked.Digest {
	s.t.Helper()
	var ops []*command.Op
	var digests []revoked.Digest
	for i := first; i < last; i++ {
		d := revoked.DigestToken(fmt.Sprint("token ", i))
		digests = append(digests, d)
		ops = append(ops, command.RegisterOp(s.admin(), revoked.Registration{
			GrantID: fmt.Sprint("grant ", i), ClientID: "app", Subject: "alice",
			Tokens: []revoked.TokenRegistration{{Digest: d, Kind: revoked.AccessToken, ExpiresAt: stateStart.Add(1e15)}},
		}))
	}
	s.batch(ops...)
	return digests
}

func (s *state) verdict(c *cache.Cache, d revoked.Digest) revoked.Verdict {
	r, err := c.Lookup(d)
	if err != nil {
		s.t.Error(err)
		return revoked.Unknown
	}
	v, err := s.Decide(r, stateStart)
	if err != nil {
		s.t.Error(err)
	}
	return v.Verdict
}

// Readers stay near the token that is revoked next, so that most revocations meet a cached record
// and late fills.
func TestCache_RevocationApplied_NeverActive(t *testing.T) {
	tokens := 4000
	if underRace || testing.Short() {
		tokens = 800
	}
	ep := cache.NewEpochs()
	s := openState(t, ep)
	c, err := cache.New(8<<20, ep, s.FSM, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	digests := s.register(0, tokens)
	var next, active, wrong atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				applied := int(next.Load()) // tokens below it are revoked, and their index is published
				if applied >= tokens {
					return
				}
				i := max(0, min(tokens-1, applied-4+rand.IntN(8)))
				switch v := s.verdict(c, digests[i]); {
				case v == revoked.Active && i < applied:
					wrong.Add(1)
				case v == revoked.Active:
					active.Add(1)
				}
			}
		})
	}
	for i, d := range digests {
		switch i % 3 {
		case 0:
			s.batch(command.RevokeOp(s.admin(), d, ""))
		case 1:
			s.batch(command.DeleteGrantOp(s.admin(), fmt.Sprint("grant ", i), ""))
		default:
			s.batch(command.CutoffOp(s.admin(), revoked.Selector{GrantID: fmt.Sprint("grant ", i)}, 0, ""))
		}
		if s.Applied() != s.index {
			t.Fatalf("got applied index %d, want %d", s.Applied(), s.index)
		}
		next.Store(int64(i + 1))
	}
	readers.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("got %d active answers for revoked tokens, want 0", n)
	}
	if active.Load() == 0 {
		t.Error("got no active answers, want some before the revocations")
	}
	for _, d := range digests {
		if v := s.verdict(c, d); v != revoked.Dead {
			t.Fatalf("got verdict %d, want %d", v, revoked.Dead)
		}
	}
}

func TestCache_Restore_DropsOldRecords(t *testing.T) {
	ep := cache.NewEpochs()
	behind, ahead := openState(t, ep), openState(t, nil)
	c, err := cache.New(8<<20, ep, behind.FSM, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	digests := behind.register(0, 100)
	ahead.register(0, 100)
	for _, d := range digests {
		if v := behind.verdict(c, d); v != revoked.Active {
			t.Fatalf("got verdict %d before the restore, want %d", v, revoked.Active)
		}
		ahead.batch(command.RevokeOp(ahead.admin(), d, ""))
	}
	for _, d := range digests {
		await(t, "the record is cached", func() bool {
			first, _ := c.Lookup(d)
			second, _ := c.Lookup(d)
			return first == second // a hit returns the same record
		})
	}
	var snapshot bytes.Buffer
	if _, err := ahead.WriteSnapshot(context.Background(), &snapshot); err != nil {
		t.Fatal(err)
	}
	if err := behind.Restore(readCloser{&snapshot}); err != nil {
		t.Fatal(err)
	}
	for _, d := range digests {
		if v := behind.verdict(c, d); v != revoked.Dead {
			t.Fatalf("got verdict %d after the restore, want %d", v, revoked.Dead)
		}
	}
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }
