package bearer

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/node/jwt"
)

// C33: a caller that does not get its turn in time gets an error, never an answer.
func TestCheck_NoTurn_ReturnsOverloaded(t *testing.T) {
	d := New(nil, nil, nil, prometheus.NewRegistry())
	for range 1024 { // more than half of the processors
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.gate.Enter(ctx, nil, "flood"); err != nil {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.check(ctx, &revoked.Issuer{}, &jwt.Token{}, "rs"); !errors.Is(err, revoked.ErrOverloaded) {
		t.Errorf("got %v, want %v", err, revoked.ErrOverloaded)
	}
}
