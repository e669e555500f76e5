package clientauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"revoked"
)

// maxResults bounds each map of remembered argon2id results.
const maxResults = 16384

// A resultKey identifies a stored hash, a secret and possibly an address. It is an HMAC under the
// random key of this process.
type resultKey [sha256.Size]byte

// A verifier compares secrets with stored hashes. Methods may be called concurrently.
//
// A strong secret costs one SHA-256, a weak one argon2id. The verifier remembers results under a
// random key chosen at start. Once it remembers the correct secret of a hash, it rejects any other
// without argon2id. Clients with recent failures share one argon2id slot, so that guesses at them
// do not delay others.
type verifier struct {
	key     []byte
	fresh   chan struct{} // argon2id for clients without recent failures
	suspect chan struct{} // argon2id for all others
	typical atomic.Int64  // duration of one argon2id run, a moving average in ns

	mu    sync.Mutex
	right map[resultKey]resultKey // maps a stored hash to its correct secret
	wrong map[resultKey]struct{}  // secrets that did not match
	seen  map[resultKey]struct{}  // correct secrets, each with an address that used it
}

func newVerifier() *verifier {
	v := &verifier{
		key:     make([]byte, 32),
		fresh:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		suspect: make(chan struct{}, 1),
		right:   make(map[resultKey]resultKey),
		wrong:   make(map[resultKey]struct{}),
		seen:    make(map[resultKey]struct{}),
	}
	rand.Read(v.key) // never fails
	v.typical.Store(int64(50 * time.Millisecond))
	return v
}

// recall compares secret with the hashes of c that have not expired, without argon2id. It returns
// the hash that matches. costly is true if the result needs argon2id. If known is set, a weak
// secret passes only if this address has presented it successfully before.
func (v *verifier) recall(
	c *revoked.Client, secret string, now time.Time, from netip.Addr, known bool,
) (match *revoked.SecretHash, costly bool) {
	for i := range c.Secrets {
		s := &c.Secrets[i]
		if expired(s, now) {
			continue
		}
		if s.Kind != revoked.HashArgon2id {
			h := computeHash(s.Kind, s.Salt, secret)
			if h != nil && subtle.ConstantTimeCompare(h, s.Hash) == 1 {
				match = s
			}
			continue
		}
		right, decided := v.remembered(s, secret)
		if right && known && !v.seenFrom(s, secret, from) {
			right, decided = false, false
		}
		costly = costly || !decided
		if right {
			match = s
			v.remember(v.seen, v.addressKey(s, secret, from))
		}
	}
	return match, costly
}

// verify is like recall, but runs argon2id if the result needs it. The caller must have the turn at
// c. verify returns [revoked.ErrOverloaded] if ctx ends before a slot is free.
func (v *verifier) verify(
	ctx context.Context, c *revoked.Client, secret string, now time.Time, from netip.Addr, slots chan struct{},
) (match *revoked.SecretHash, err error) {
	match, costly := v.recall(c, secret, now, from, false)
	for i := range c.Secrets {
		s := &c.Secrets[i]
		if !costly || expired(s, now) || s.Kind != revoked.HashArgon2id {
			continue
		}
		right, decided := v.remembered(s, secret)
		if !decided {
			if right, err = v.compute(ctx, s, secret, slots); err != nil {
				return nil, err
			}
		}
		if right {
			match = s
			v.remember(v.seen, v.addressKey(s, secret, from))
		}
	}
	return match, nil
}

// compute runs argon2id in a slot and remembers the result.
func (v *verifier) compute(
	ctx context.Context, s *revoked.SecretHash, secret string, slots chan struct{},
) (bool, error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("%w: no free slot to verify a weak secret", revoked.ErrOverloaded)
	}
	start := time.Now()
	right := subtle.ConstantTimeCompare(computeHash(s.Kind, s.Salt, secret), s.Hash) == 1
	if took := time.Since(start); took > 0 {
		v.typical.Store((v.typical.Load()*7 + int64(took)) / 8)
	}
	<-slots
	if !right {
		v.remember(v.wrong, v.resultKey(s, secret))
		return false, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	trim(v.right)
	v.right[v.resultKey(s, "")] = v.resultKey(s, secret)
	return true, nil
}

// remembered returns the remembered result of a comparison. decided is false if there is none.
func (v *verifier) remembered(s *revoked.SecretHash, secret string) (right, decided bool) {
	id, k := v.resultKey(s, ""), v.resultKey(s, secret)
	v.mu.Lock()
	defer v.mu.Unlock()
	if known, ok := v.right[id]; ok {
		return known == k, true
	}
	_, decided = v.wrong[k]
	return false, decided
}

func (v *verifier) seenFrom(s *revoked.SecretHash, secret string, from netip.Addr) bool {
	k := v.addressKey(s, secret, from)
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.seen[k]
	return ok
}

func (v *verifier) remember(set map[resultKey]struct{}, k resultKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	trim(set)
	set[k] = struct{}{}
}

// trim makes room for one element. It deletes random elements, because Go iterates over a map in
// random order.
func trim[V any](m map[resultKey]V) {
	for k := range m {
		if len(m) < maxResults {
			return
		}
		delete(m, k)
	}
}

// addressKey is the key of a secret that came from an address.
func (v *verifier) addressKey(s *revoked.SecretHash, secret string, from netip.Addr) resultKey {
	return v.resultKey(s, secret+"\x00"+source(from).String())
}

// resultKey covers the stored hash, so a result does not outlive a change of the record.
func (v *verifier) resultKey(s *revoked.SecretHash, secret string) (k resultKey) {
	m := hmac.New(sha256.New, v.key)
	m.Write([]byte{byte(len(s.Salt)), byte(len(s.Hash))})
	m.Write(s.Salt)
	m.Write(s.Hash)
	m.Write([]byte(secret))
	m.Sum(k[:0])
	return k
}
