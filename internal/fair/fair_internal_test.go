package fair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestQueue_KeysTakeTurns(t *testing.T) {
	var q Queue[string]
	for _, v := range []string{"a1", "a2", "a3", "a4", "b1", "c1", "c2"} {
		q.Push(v[:1], v)
	}
	q.Remove("a", func(v string) bool { return v == "a2" })
	q.Remove("b", func(v string) bool { return v == "b1" })
	var got []string
	for !q.Empty() {
		got = append(got, q.First())
		if q.Pop() {
			q.Rotate()
		}
	}
	if want := []string{"a1", "c1", "a3", "c2", "a4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A client with many callers does not delay the single caller of another client. Callers that gave
// up do not take a turn.
func TestGate_KeysTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		if err := g.Enter(t.Context(), nil, "large"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var callers sync.WaitGroup
		call := func(client string, ctx context.Context) {
			callers.Go(func() {
				if err := g.Enter(ctx, nil, client); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				order = append(order, client)
				mu.Unlock()
				time.Sleep(time.Second)
				g.Leave()
			})
			synctest.Wait()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for i := range 4 {
			call("large", t.Context())
			call(fmt.Sprint("gone", i), short)
		}
		call("large", short)
		call("small", t.Context())
		time.Sleep(time.Second)
		g.Leave()
		callers.Wait()
		if want := []string{"large", "small", "large", "large", "large"}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
		if g.free != 1 || !g.waiting.Empty() {
			t.Errorf("got %d free at the end, want 1 and no waiting caller", g.free)
		}
	})
}
