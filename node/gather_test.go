package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestACrowdSharesABatchAndALoneCallerNeverWaits(t *testing.T) {
	for _, tc := range []struct {
		name        string
		outstanding int
		late        int // that come within the patience
		want        int // submissions in the batch
		wait        time.Duration
	}{
		{"a lone caller goes at once", 1, 0, 1, 0},
		{"a few go at once", crowd - 1, 0, 1, 0},
		{"of a crowd a third is waited for", 30, 20, 10, 9 * time.Microsecond},
		{"but not for long", 30, 3, 4, patience},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, queue := &gatherer{}, make(chan *submission, 64)
				for range tc.outstanding {
					g.enter(newSubmission(nil, false))
				}
				queue <- newSubmission(nil, false)
				go func() {
					for range tc.late {
						time.Sleep(time.Microsecond) // of the bubble: it takes no time
						queue <- newSubmission(nil, false)
					}
				}()
				begin := time.Now()
				b, ok := g.next(context.Background(), queue, nil)
				if !ok || len(b.subs) != tc.want || time.Since(begin) != tc.wait {
					t.Errorf("got %d submissions after %v, want %d after %v", len(b.subs), time.Since(begin), tc.want, tc.wait)
				}
				synctest.Wait()
				time.Sleep(time.Second)
			})
		})
	}
}
