package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"revoked"
)

// Parameters of HashArgon2id, part of stored records: 2 passes over 19 MiB.
const (
	argonTime    = 2
	argonMemory  = 19456 // KiB
	argonThreads = 1
	hashLen      = 32
)

// hashSecret returns the hash of a secret, nil for a kind it does not know.
func hashSecret(kind revoked.HashKind, salt []byte, secret string) []byte {
	switch kind {
	case revoked.HashSHA256:
		b := make([]byte, 0, 128)
		b = append(append(b, salt...), secret...)
		sum := sha256.Sum256(b)
		clear(b)
		return sum[:]
	case revoked.HashArgon2id:
		return argon2.IDKey([]byte(secret), salt, argonTime, argonMemory, argonThreads, hashLen)
	}
	return nil
}

// A verifier checks secrets against stored hashes. A strong secret costs one SHA-256. A weak one
// costs argon2id, so no more than a few are computed at once and what was found is remembered, under
// a key drawn at start.
//
// While someone guesses at a weak secret faster than one slot can compute, its owner passes if it was seen
// since the start, and otherwise waits in the same queue.
//
// An argon2id hash takes longer than the decoy of an unknown client: that a client with an imported,
// weak secret exists can be told by timing. Burning argon2id for every unknown id instead would hand
// anyone the means to stop the node.
type verifier struct {
	key     []byte
	slots   chan struct{} // argon2id for clients in good standing
	suspect chan struct{} // and for those over their budget of failures
	wait    time.Duration // for a slot

	mu    sync.Mutex
	known map[[sha256.Size]byte]bool // (salt, hash, secret) under key: does the secret match?
}

// maxKnown bounds the memory of argon2id results.
const maxKnown = 4096

func newVerifier(wait time.Duration) (*verifier, error) {
	v := &verifier{
		wait:    wait,
		key:     make([]byte, 32),
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		suspect: make(chan struct{}, 1),
		known:   make(map[[sha256.Size]byte]bool),
	}
	if _, err := rand.Read(v.key); err != nil {
		return nil, fmt.Errorf("draw key: %w", err)
	}
	return v, nil
}

// decoy does the work of verifying one strong secret.
func (v *verifier) decoy(secret string) {
	h := hashSecret(revoked.HashSHA256, v.key[:16], secret)
	subtle.ConstantTimeCompare(h, v.key)
}

// verify reports whether secret is one of the client's that has not ended. Every one of them is
// compared, in constant time. The error is [revoked.ErrOverloaded] when no slot came free in time.
func (v *verifier) verify(ctx context.Context, c *revoked.Client, secret string, now time.Time, suspect bool) (bool, error) {
	if len(c.Secrets) == 0 {
		v.decoy(secret)
		return false, nil
	}
	match := 0
	for i := range c.Secrets {
		s := &c.Secrets[i]
		if s.ExpiresAt != 0 && s.ExpiresAt <= revoked.TimeOf(now) {
			continue
		}
		if s.Kind == revoked.HashArgon2id {
			ok, err := v.weak(ctx, s, secret, suspect)
			if err != nil {
				return false, err
			}
			if ok {
				match = 1
			}
			continue
		}
		if h := hashSecret(s.Kind, s.Salt, secret); h != nil {
			match |= subtle.ConstantTimeCompare(h, s.Hash)
		}
	}
	return match == 1, nil
}

// weak verifies by argon2id, or by what an earlier computation found.
func (v *verifier) weak(ctx context.Context, s *revoked.SecretHash, secret string, suspect bool) (bool, error) {
	k := v.remember(s, secret)
	v.mu.Lock()
	ok, hit := v.known[k]
	v.mu.Unlock()
	if hit {
		return ok, nil
	}
	ctx, cancel := context.WithTimeout(ctx, v.wait)
	defer cancel()
	lane := v.slots
	if suspect {
		lane = v.suspect
	}
	select {
	case lane <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("%w: no room to verify a weak secret", revoked.ErrOverloaded)
	}
	ok = subtle.ConstantTimeCompare(hashSecret(s.Kind, s.Salt, secret), s.Hash) == 1
	<-lane
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxKnown {
		v.forget()
	}
	v.known[k] = ok
	return ok, nil
}

// forget makes room: wrong guesses go first, so that guessing does not push out what is right.
func (v *verifier) forget() {
	for k, ok := range v.known {
		if !ok {
			delete(v.known, k)
		}
	}
	for k := range v.known {
		if len(v.known) < maxKnown {
			return
		}
		delete(v.known, k)
	}
}

// remember returns the key under which the result for a stored hash and a secret is known. The hash
// is part of it, so a result never outlives a change of the record.
func (v *verifier) remember(s *revoked.SecretHash, secret string) (k [sha256.Size]byte) {
	m := hmac.New(sha256.New, v.key)
	m.Write([]byte{byte(len(s.Salt)), byte(len(s.Hash))})
	m.Write(s.Salt)
	m.Write(s.Hash)
	m.Write([]byte(secret))
	m.Sum(k[:0])
	return k
}
