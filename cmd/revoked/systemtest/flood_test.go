//go:build system

package systemtest

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFloodOfRandomTokens has one client ask for random tokens as fast as it can, while another asks for
// its live ones at the same node. The flood costs the leader a bounded number of calls and ends in
// 429 beyond its budget; the good client is always answered. What the good client gets beside it is
// printed next to what it gets beside the same flood of known tokens. REVOKED_FLOOD is its length in
// seconds (4 without), REVOKED_MISSES the budget a second (100 without).
func TestFloodOfRandomTokens(t *testing.T) {
	length := time.Duration(number(t, "REVOKED_FLOOD", 4)) * time.Second
	budget := number(t, "REVOKED_MISSES", 100)
	c := newCluster(t, 3)
	for _, m := range c.Nodes {
		m.args = append(m.args, "--misses-per-second", strconv.Itoa(budget))
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	leader := c.leader(t)
	asked := c.without(leader)[0]
	const pairs = 200
	for i := range pairs {
		c.mustRegister(t, asked, fmt.Sprintf("flood-%d", i), "alice", knownToken(i), fmt.Sprintf("flood-refresh-%d", i))
	}
	c.awaitKnown(t, asked, knownToken(pairs-1))

	known, random := &floodSum{}, &floodSum{}
	for range 2 { // in turns: what else the machine does weighs on both
		c.flood(t, asked, length/2, known, func(i int) string { return knownToken(i % pairs) })
		c.flood(t, asked, length/2, random, func(int) string { return randomToken(t) })
	}
	t.Logf("beside a flood of known tokens:  %v", known)
	t.Logf("beside a flood of random tokens: %v", random)

	if n := known.answers[http.StatusOK]; n == 0 || len(known.answers) != 1 {
		t.Errorf("the flood of known tokens got %v, want nothing but 200", known.answers)
	}
	admitted, throttled := random.answers[http.StatusOK], random.answers[http.StatusTooManyRequests]
	// A full bucket to begin with, what runs in meanwhile, the turns of the other flood included, and what
	// was under way at once, which is paid for later.
	most := budget + flooders + int(float64(budget)*(random.took+known.took+time.Second).Seconds())
	if admitted == 0 || throttled == 0 || admitted > most || len(random.answers) != 2 {
		t.Errorf("the flood of random tokens got %v, want at most %d times 200 and then 429", random.answers, most)
	}
	// On a machine that stalls, the node may lose its lease: then answers to known tokens are proven too.
	if random.calls == 0 || random.calls > random.questions {
		t.Errorf("the flood of random tokens cost the leader %d calls, want some, and no more than there were questions, %d", random.calls, random.questions)
	}
	if random.unknown > most {
		t.Errorf("the flood of random tokens had %d unknown tokens asked about, want at most %d, as many as its budget answers", random.unknown, most)
	}
	for name, f := range map[string]*floodSum{"known": known, "random": random} {
		if f.bad != "" || len(f.good) == 0 {
			t.Errorf("the good client beside the flood of %s tokens: got %d right answers and %q, want answers and nothing else", name, len(f.good), f.bad)
		}
	}
}

func knownToken(i int) string { return fmt.Sprintf("flood-access-%d", i) }

func randomToken(t testing.TB) string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(b[:])
}

// awaitKnown returns when the node has the token in its own copy.
func (c *cluster) awaitKnown(t testing.TB, m *member, token string) {
	t.Helper()
	await(t, m.ID+" to know a token", func() error {
		a := c.introspect(m, "resource_server", token)
		if err := a.want(http.StatusOK); err != nil {
			return err
		}
		if !strings.Contains(string(a.body), `"active":true`) {
			return fmt.Errorf("got %s", a.body)
		}
		return nil
	})
}

// A floodSum is what floods of one kind came to.
type floodSum struct {
	took    time.Duration
	answers map[int]int     // to the flood, by status
	good    []time.Duration // how long each right answer to the good client took
	bad     string          // the first other one
	calls   int             // that the node made to the leader to have answers proven

	unknown, questions int // look-ups of unknown tokens, and all that had to be proven
}

// flooders is how many requests of a flood are under way at once.
const flooders = 128

func (f *floodSum) String() string {
	sent := 0
	for _, n := range f.answers {
		sent += n
	}
	slices.Sort(f.good)
	at := func(q float64) time.Duration {
		if len(f.good) == 0 {
			return 0
		}
		return f.good[int(q*float64(len(f.good)-1))].Round(10 * time.Microsecond)
	}
	s := f.took.Seconds()
	return fmt.Sprintf("the flood got %v, %.0f/s, and cost the leader %.0f calls/s; the good client got %.0f/s, p50 %v, p99 %v",
		f.answers, float64(sent)/s, float64(f.calls)/s, float64(len(f.good))/s, at(0.5), at(0.99))
}

// flood floods a node with introspections of one client, with those of a good one beside, and adds up.
func (c *cluster) flood(t *testing.T, m *member, length time.Duration, sum *floodSum, token func(i int) string) {
	t.Helper()
	const good = 4
	flooder := *m // with connections of its own
	flooder.client = c.httpClient()
	flooder.client.Transport.(*http.Transport).MaxIdleConnsPerHost = flooders
	defer flooder.client.CloseIdleConnections()
	counts := func() (calls, unknown, unleased int) {
		return int(c.metric(t, m, "revoked_forwarded_operations_total")), int(c.metric(t, m, `revoked_lookups_total{verdict="unknown"}`)),
			int(c.metric(t, m, `revoked_lookups_total{verdict="unleased"}`))
	}
	calls, unknown, unleased := counts()
	begun := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range flooders {
		wg.Go(func() {
			answers := map[int]int{}
			for i := w; time.Since(begun) < length; i += flooders {
				a := c.introspect(&flooder, "resource_server", token(i))
				answers[a.status]++ // 0: none came
				if a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if sum.answers == nil {
				sum.answers = map[int]int{}
			}
			for status, n := range answers {
				sum.answers[status] += n
			}
		})
	}
	for w := range good {
		wg.Go(func() {
			var took []time.Duration
			bad := ""
			for i := w; time.Since(begun) < length && bad == ""; i++ {
				start := time.Now()
				a := c.introspect(m, "app", knownToken(i%100))
				took = append(took, time.Since(start))
				if a.status != http.StatusOK || !strings.Contains(string(a.body), `"active":true`) {
					bad = fmt.Sprintf("%d %s %v", a.status, a.body, a.err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sum.good, sum.bad = append(sum.good, took...), sum.bad+bad
		})
	}
	wg.Wait()
	sum.took += time.Since(begun)
	calls2, unknown2, unleased2 := counts()
	sum.calls += calls2 - calls
	sum.unknown += unknown2 - unknown
	sum.questions += unknown2 - unknown + unleased2 - unleased
}

// metric is the sum of a node's series of that name, with or without labels.
func (c *cluster) metric(t testing.TB, m *member, name string) float64 {
	t.Helper()
	a := c.send(m, request{method: http.MethodGet, path: "/metrics"})
	if err := a.want(http.StatusOK); err != nil {
		t.Fatalf("metrics of %s: %v", m.ID, err)
	}
	sum := 0.0
	for lines := bufio.NewScanner(strings.NewReader(string(a.body))); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("metrics of %s: %q", m.ID, lines.Text())
		}
		sum += v
	}
	return sum
}
