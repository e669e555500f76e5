package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
)

// A fakeSource is a Source with tokens and grants in memory. If the function between is set, it
// runs after a row was read and before the row is returned, as if the reader were slow.
type fakeSource struct {
	mu      sync.RWMutex
	tokens  map[revoked.Digest]revoked.Token
	grants  map[string]revoked.Grant
	denials map[revoked.Digest]bool
	err     error
	between func(row string)
	reads   atomic.Int64
}

func newFakeSource() *fakeSource {
	return &fakeSource{tokens: map[revoked.Digest]revoked.Token{}, grants: map[string]revoked.Grant{},
		denials: map[revoked.Digest]bool{}}
}

func (f *fakeSource) LookupToken(d revoked.Digest) (revoked.Token, bool, error) {
	f.reads.Add(1)
	f.mu.RLock()
	t, ok := f.tokens[d]
	err := f.err
	f.mu.RUnlock()
	if f.between != nil {
		f.between("token")
	}
	return t, ok, err
}

func (f *fakeSource) LookupGrant(id string) (revoked.Grant, bool, error) {
	f.mu.RLock()
	g, ok := f.grants[id]
	f.mu.RUnlock()
	if f.between != nil {
		f.between("grant")
	}
	return g, ok, nil
}

func (f *fakeSource) IsDenied(j *revoked.JWT, _ bool) (bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, id := range j.DenialKeys() {
		if f.denials[id] {
			return true, nil
		}
	}
	return false, f.err
}

func (f *fakeSource) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// put adds token i with its own grant. Both rows have version 0.
func (f *fakeSource) put(i int) revoked.Digest {
	d := revoked.DigestToken(fmt.Sprint("token ", i))
	id := fmt.Sprint("grant ", i)
	f.change(func() {
		f.tokens[d] = revoked.Token{Digest: d, Kind: revoked.AccessToken, State: revoked.Live, GrantID: id}
		f.grants[id] = revoked.Grant{ID: id, ClientID: "c"}
	})
	return d
}

func newTestCache(t testing.TB, maxBytes int64, source Source) (*Cache, *Epochs, *prometheus.Registry) {
	t.Helper()
	ep, reg := NewEpochs(), prometheus.NewRegistry()
	c, err := New(maxBytes, ep, source, reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, ep, reg
}

func lookup(t testing.TB, c *Cache, d revoked.Digest) *revoked.Record {
	t.Helper()
	r, err := c.Lookup(d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// metric returns the value of the named metric.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestCache_SecondLookup_HitsCache(t *testing.T) {
	source := newFakeSource()
	d := source.put(1)
	c, _, reg := newTestCache(t, 1<<20, source)
	first := lookup(t, c, d)
	if !first.Found || first.Token.Digest != d || first.Grant.ID != "grant 1" {
		t.Fatalf("got %+v, want the record of the token", first)
	}
	c.entries.Wait()
	if again := lookup(t, c, d); again != first {
		t.Errorf("got another record, want the same record")
	}
	for name, want := range map[string]float64{
		"revoked_cache_hits_total": 1, "revoked_cache_misses_total": 1,
		"revoked_cache_stale_total": 0, "revoked_cache_evictions_total": 0,
	} {
		if got := metric(t, reg, name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if got := metric(t, reg, "revoked_cache_bytes"); got < 300 {
		t.Errorf("revoked_cache_bytes: got %v, want at least 300", got)
	}
}

// A reader reads a row and stalls. The row changes and the change is published. Then the reader
// fills the cache with the old row, which later lookups must not return.
func TestCache_LateFill_IsStale(t *testing.T) {
	d := revoked.DigestToken("token 1")
	tests := []struct {
		name    string
		stallAt string
		change  func(*fakeSource, *Epochs)
	}{
		{"token changes during its read", "token", func(f *fakeSource, ep *Epochs) {
			f.tokens[d] = revoked.Token{Digest: d, State: revoked.Revoked, GrantID: "grant 1"}
			ep.TokenChanged(d)
		}},
		{"token changes during the read of its grant", "grant", func(f *fakeSource, ep *Epochs) {
			f.tokens[d] = revoked.Token{Digest: d, State: revoked.Revoked, GrantID: "grant 1"}
			ep.TokenChanged(d)
		}},
		{"grant changes during its read", "grant", func(f *fakeSource, ep *Epochs) {
			f.grants["grant 1"] = revoked.Grant{ID: "grant 1", Revoked: &revoked.Revocation{Index: 9}}
			ep.GrantChanged("grant 1")
		}},
		{"state is replaced during the read of the token", "token", func(f *fakeSource, ep *Epochs) {
			f.tokens[d] = revoked.Token{Digest: d, State: revoked.Revoked, GrantID: "grant 1"}
			ep.AllChanged()
		}},
		{"state is replaced during the read of the grant", "grant", func(f *fakeSource, ep *Epochs) {
			f.grants["grant 1"] = revoked.Grant{ID: "grant 1", Revoked: &revoked.Revocation{Index: 9}}
			ep.AllChanged()
		}},
	}
	for _, test := range tests {
		for _, ignore := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, epochs ignored %t", test.name, ignore), func(t *testing.T) {
				source := newFakeSource()
				source.put(1)
				c, ep, reg := newTestCache(t, 1<<20, source)
				c.ignoreEpochs = ignore
				stalled, goOn := make(chan struct{}), make(chan struct{})
				var once sync.Once
				source.between = func(row string) {
					if row == test.stallAt {
						once.Do(func() { close(stalled); <-goOn })
					}
				}
				done := make(chan error, 1)
				go func() {
					_, err := c.Lookup(d)
					done <- err
				}()
				<-stalled
				source.change(func() { test.change(source, ep) })
				close(goOn)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				c.entries.Wait()
				got := lookup(t, c, d)
				dead := got.Token.State == revoked.Revoked || got.Grant.Revoked != nil
				if dead == ignore {
					t.Errorf("got dead %t, want %t", dead, !ignore)
				}
				if got := metric(t, reg, "revoked_cache_stale_total"); !ignore && got != 1 {
					t.Errorf("revoked_cache_stale_total: got %v, want 1 for the late fill", got)
				}
			})
		}
	}
}

// readUnderChanges makes readers fill the cache late while one goroutine changes tokens, grants and
// the whole state. The expiry of a row serves as its version. A read is stale if it returns a
// version older than the newest one published before the read began.
func readUnderChanges(t *testing.T, reads int64, ignoreEpochs bool) (stale, hits int64) {
	const tokens = 2000
	source := newFakeSource()
	digests := make([]revoked.Digest, tokens)
	for i := range digests {
		digests[i] = source.put(i)
	}
	c, ep, reg := newTestCache(t, 1<<20, source) // small, so that entries are evicted
	c.ignoreEpochs = ignoreEpochs
	source.between = func(string) {
		if rand.IntN(16) == 0 {
			runtime.Gosched()
		}
	}
	var published [tokens]struct{ token, grant atomic.Int64 }
	stop := make(chan struct{})
	var writer, readers sync.WaitGroup
	writer.Go(func() {
		for version := int64(1); ; version++ {
			select {
			case <-stop:
				return
			default:
			}
			i := rand.IntN(tokens)
			d, id := digests[i], fmt.Sprint("grant ", i)
			source.change(func() {
				if version%2 == 0 {
					row := source.tokens[d]
					row.ExpiresAt = revoked.Time(version)
					source.tokens[d] = row
				} else {
					row := source.grants[id]
					row.LatestExpiry = revoked.Time(version)
					source.grants[id] = row
				}
			})
			switch {
			case version%64 == 0:
				ep.AllChanged()
			case version%2 == 0:
				ep.TokenChanged(d)
			default:
				ep.GrantChanged(id)
			}
			if version%2 == 0 {
				published[i].token.Store(version)
			} else {
				published[i].grant.Store(version)
			}
			runtime.Gosched()
		}
	})
	var left, found atomic.Int64
	left.Store(reads)
	for range 8 {
		readers.Go(func() {
			for left.Add(-1) >= 0 {
				i := rand.IntN(tokens) * rand.IntN(tokens) / tokens // low token numbers are read more often
				token, grant := published[i].token.Load(), published[i].grant.Load()
				r, err := c.Lookup(digests[i])
				if err != nil {
					t.Error(err)
					return
				}
				if int64(r.Token.ExpiresAt) < token || int64(r.Grant.LatestExpiry) < grant {
					found.Add(1)
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writer.Wait()
	return found.Load(), int64(metric(t, reg, "revoked_cache_hits_total"))
}

func TestCache_RandomLateFills_NeverStale(t *testing.T) {
	reads := int64(5_000_000)
	if underRace || testing.Short() {
		reads = 500_000
	}
	stale, hits := readUnderChanges(t, reads, false)
	if stale != 0 {
		t.Errorf("got %d stale reads of %d, want 0", stale, reads)
	}
	if hits < reads/20 {
		t.Errorf("got %d hits in %d reads, want at least %d", hits, reads, reads/20)
	}
}

func TestCache_WithoutEpochs_IsStale(t *testing.T) {
	if stale, _ := readUnderChanges(t, 100_000, true); stale == 0 {
		t.Error("got no stale read, want some without epochs")
	}
}

func TestCache_UnknownToken_IsNotKept(t *testing.T) {
	source := newFakeSource()
	known := source.put(1)
	c, _, reg := newTestCache(t, 1<<20, source)
	lookup(t, c, known)
	for i := range 10_000 {
		if r := lookup(t, c, revoked.DigestToken(fmt.Sprint("unknown ", i))); r.Found {
			t.Fatalf("got %+v, want no record", r)
		}
	}
	c.entries.Wait()
	before := source.reads.Load()
	lookup(t, c, known)
	if source.reads.Load() != before {
		t.Error("got a read of the state, want the known token to stay cached")
	}
	if got := metric(t, reg, "revoked_cache_evictions_total"); got != 0 {
		t.Errorf("got %v evictions, want none", got)
	}
	d := revoked.DigestToken("unknown 1")
	lookup(t, c, d)
	if source.reads.Load() != before+1 {
		t.Error("got no read of the state for an unknown token, want one for each lookup")
	}
}

func TestCache_KeyCollision_ComparesDigests(t *testing.T) {
	source := newFakeSource()
	a, b := source.put(1), source.put(2)
	c, _, _ := newTestCache(t, 1<<20, source)
	e, err := c.read(a)
	if err != nil {
		t.Fatal(err)
	}
	// If the keys of both tokens collided, the cache would contain this entry.
	c.entries.Set(c.key(b), e, e.cost())
	c.entries.Wait()
	if got := lookup(t, c, b); got.Token.Digest != b {
		t.Errorf("got the record of %s, want that of %s", got.Token.Digest.Prefix(), b.Prefix())
	}
}

func TestCache_TokenWithoutGrant_FailsOnlyIfLive(t *testing.T) {
	tests := []struct {
		name  string
		token revoked.Token
		found bool
	}{
		{"stub that outlived its grant", revoked.Token{State: revoked.Revoked, GrantID: "gone"}, true},
		{"tombstone without a grant", revoked.Token{State: revoked.Revoked}, true},
		{"live token is an error", revoked.Token{State: revoked.Live, GrantID: "gone"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			source := newFakeSource()
			d := revoked.DigestToken("a")
			source.tokens[d] = test.token
			c, _, _ := newTestCache(t, 1<<20, source)
			r, err := c.Lookup(d)
			if (err == nil) != test.found {
				t.Fatalf("got %v, want an error %t", err, !test.found)
			}
			if err == nil && revoked.Decide(r, revoked.DecideInput{}).Verdict != revoked.Dead {
				t.Errorf("got %+v, want a token that is not live", r)
			}
		})
	}
}

func TestCache_TokenRemovedDuringRead_IsUnknown(t *testing.T) {
	for _, published := range []bool{true, false} {
		t.Run(fmt.Sprintf("change is published %t", published), func(t *testing.T) {
			source := newFakeSource()
			d := source.put(1)
			c, ep, _ := newTestCache(t, 1<<20, source)
			var once sync.Once
			source.between = func(string) {
				once.Do(func() {
					source.change(func() { delete(source.tokens, d); delete(source.grants, "grant 1") })
					if published {
						ep.TokenChanged(d)
						ep.GrantChanged("grant 1")
					}
				})
			}
			if r := lookup(t, c, d); r.Found {
				t.Errorf("got %+v, want no record", r)
			}
		})
	}
}

func TestCache_StateError_IsNotKept(t *testing.T) {
	source := newFakeSource()
	d := source.put(1)
	c, _, _ := newTestCache(t, 1<<20, source)
	broken := errors.New("broken")
	source.err = broken
	if _, err := c.Lookup(d); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	source.change(func() { source.err = nil })
	if r := lookup(t, c, d); !r.Found {
		t.Error("got no record, want the token")
	}
}

func TestCache_Full_EvictsRecords(t *testing.T) {
	const maxBytes = 256 << 10
	source := newFakeSource()
	c, _, reg := newTestCache(t, maxBytes, source)
	for i := range 5000 {
		lookup(t, c, source.put(i))
		if i%100 == 0 {
			c.entries.Wait()
		}
	}
	c.entries.Wait()
	if got := metric(t, reg, "revoked_cache_bytes"); got > maxBytes || got < maxBytes/2 {
		t.Errorf("got %v bytes, want between %d and %d", got, maxBytes/2, maxBytes)
	}
	if metric(t, reg, "revoked_cache_evictions_total") == 0 {
		t.Error("got no evictions, want some")
	}
}

func TestEntryCost_LongStrings_AreCounted(t *testing.T) {
	empty := (&entry{}).cost()
	full := &entry{}
	long := strings.Repeat("x", 100)
	full.record.Token = revoked.Token{
		GrantID: long, Scope: long, Username: long, JTI: long, CNF: []byte(long), Audience: []string{long, long},
	}
	full.record.Grant = revoked.Grant{
		ID: long, ClientID: long, Subject: long, Session: long, Issuer: long, RegisteredBy: long,
		Revoked: &revoked.Revocation{By: long, Reason: long},
	}
	if got := full.cost() - empty; got < 1500 || got > 1700 {
		t.Errorf("got %d bytes above an empty entry, want 15 strings of 100 and their headers", got)
	}
}

func TestCache_Close_WaitsForLookups(t *testing.T) {
	source := newFakeSource()
	c, _, _ := newTestCache(t, 1<<20, source)
	digests := make([]revoked.Digest, 100)
	for i := range digests {
		digests[i] = source.put(i)
	}
	var readers sync.WaitGroup
	started := make(chan struct{}, 4)
	for range cap(started) {
		readers.Go(func() {
			for i := 0; ; i++ {
				_, err := c.Lookup(digests[i%len(digests)])
				if errors.Is(err, revoked.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if i == len(digests) {
					started <- struct{}{}
				}
			}
		})
	}
	for range cap(started) {
		select {
		case <-started:
		case <-time.After(30 * time.Second):
			t.Fatal("got too few lookups in 30 s, want one from each reader")
		}
	}
	c.Close()
	c.Close()
	readers.Wait()
}

func TestCache_Hit_AllocatesNothing(t *testing.T) {
	if underRace {
		t.Skip("the race detector allocates")
	}
	source := newFakeSource()
	d := source.put(1)
	c, _, _ := newTestCache(t, 1<<20, source)
	lookup(t, c, d)
	c.entries.Wait()
	if n := testing.AllocsPerRun(1000, func() { lookup(t, c, d) }); n != 0 {
		t.Errorf("got %v allocations per hit, want 0", n)
	}
}

func BenchmarkCacheHit(b *testing.B) {
	source := newFakeSource()
	digests := make([]revoked.Digest, 10_000)
	c, _, _ := newTestCache(b, 64<<20, source)
	for i := range digests {
		digests[i] = source.put(i)
		lookup(b, c, digests[i])
	}
	c.entries.Wait()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(digests)); pb.Next(); i++ {
			if _, err := c.Lookup(digests[i%len(digests)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestEpochs_Change_AdvancesOneShard(t *testing.T) {
	ep := NewEpochs()
	a, b := revoked.Digest{1}, revoked.Digest{2}
	ep.TokenChanged(a)
	if got, other := ep.token(a).Load(), ep.token(b).Load(); got != 1 || other != 0 {
		t.Errorf("got epochs %d and %d, want 1 and 0", got, other)
	}
	ep.GrantChanged("g")
	ep.GrantChanged("g")
	if got := ep.grant("g").Load(); got != 2 {
		t.Errorf("got epoch %d, want 2", got)
	}
	ep.AllChanged()
	if got := ep.generation.Load(); got != 1 {
		t.Errorf("got generation %d, want 1", got)
	}
}
