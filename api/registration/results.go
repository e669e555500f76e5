package registration

import (
	"context"
	"errors"
	"strconv"
	"time"

	"revoked"
	"revoked/api/strictjson"
	"revoked/internal/retry"
)

// A Func commits registrations for one caller and returns one result for each, in their order.
type Func func(context.Context, []revoked.Registration) ([]revoked.RegisterResult, error)

// Limits for the number of attempts to make one call of a bulk registration.
const (
	overloadTries = 8 // while the queue is full or the caller's record is outdated: 1.4 s of pauses in all
	unknownTries  = 3 // for an unknown outcome or no leader, each with its own timeout
)

// WithRetry makes up to overloadTries or unknownTries attempts. It tries again if a queue is full,
// no leader is known, the outcome is unknown, or this node's record of the caller is outdated.
// Registrations are idempotent, so a repeated attempt is safe.
func WithRetry(register Func) Func {
	tries := func(err error) int {
		switch {
		case errors.Is(err, revoked.ErrOverloaded), errors.Is(err, revoked.ErrActorChanged):
			return overloadTries
		case errors.Is(err, revoked.ErrNoLeader), errors.Is(err, revoked.ErrOutcomeUnknown):
			return unknownTries
		}
		return 1
	}
	return func(ctx context.Context, regs []revoked.Registration) (results []revoked.RegisterResult, err error) {
		err = retry.Do(ctx, 50*time.Millisecond, tries, func() error {
			results, err = register(ctx, regs)
			return err
		})
		return results, err
	}
}

// AppendResult appends {"grant_id","index","state"}.
func AppendResult(out []byte, res *revoked.RegisterResult) []byte {
	out = append(out, `{"grant_id":`...)
	out = strictjson.AppendString(out, res.GrantID)
	out = append(out, `,"index":`...)
	out = strconv.AppendUint(out, res.Index, 10)
	if res.Revoked {
		return append(out, `,"state":"revoked"}`...)
	}
	return append(out, `,"state":"active"}`...)
}
