package clientauth

import (
	"context"
	"errors"
	"slices"
	"time"

	"revoked"
)

// endedRole is a reason of an [EndedError], in addition to those of [Caller.Ended].
const endedRole = "role_lost"

// sessionCheck is the time between two checks of a client's record. The checks are necessary,
// because not every change of a client causes an event.
const sessionCheck = time.Second

// An EndedError is returned if the credential that opened a stream no longer allows the stream.
type EndedError struct{ Reason string }

func (e *EndedError) Error() string { return "credential of this stream ended: " + e.Reason }

// A Session is the right of a caller to a stream. Client records change and secrets expire while a
// stream is open. Methods may be called concurrently.
type Session struct {
	auth   *Authenticator
	caller *Caller
	roles  []revoked.Role
}

// Open returns the session of a caller who needs one of the roles.
func (a *Authenticator) Open(caller *Caller, roles ...revoked.Role) *Session {
	return &Session{a, caller, roles}
}

// Client returns this node's current record of the caller, or an [EndedError].
func (s *Session) Client() (*revoked.Client, error) {
	record, _ := s.auth.cfg.Clients.Client(s.caller.Client.ID)
	now := s.auth.cfg.Now()
	if reason := s.caller.Ended(record, now); reason != "" {
		return nil, &EndedError{reason}
	}
	if !s.auth.chainHolds(s.caller, now) {
		return nil, &EndedError{EndedKey}
	}
	if !slices.ContainsFunc(s.roles, record.Has) {
		return nil, &EndedError{endedRole}
	}
	return record, nil
}

// Actor returns the session's caller as the actor of a change. record is the caller's client
// record.
func (s *Session) Actor(record *revoked.Client) revoked.Actor { return s.caller.Actor(record) }

// Pause returns how long a stream may continue without a call to Client, at most a second.
func (s *Session) Pause() time.Duration {
	record, _ := s.auth.cfg.Clients.Client(s.caller.Client.ID)
	if record == nil {
		return time.Millisecond
	}
	at, expires := s.caller.Expires(record)
	if !expires {
		return sessionCheck
	}
	return min(sessionCheck, max(at.Sub(s.auth.cfg.Now()), time.Millisecond))
}

// Watch calls ended once the session has ended, and returns. It returns earlier if ctx ends.
func (s *Session) Watch(ctx context.Context, ended func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.Pause()):
		}
		var e *EndedError
		if _, err := s.Client(); errors.As(err, &e) {
			ended()
			return
		}
	}
}
