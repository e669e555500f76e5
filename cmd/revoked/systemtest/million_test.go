//go:build system

package systemtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// perSubject is the number of pairs of one subject in the export.
const perSubject = 1000

// An export is a file of token pairs as an issuer writes it, one pair per line.
type export struct {
	name   string // of its tokens and grants
	pairs  int
	issued int64
}

func (e export) access(i int) string  { return fmt.Sprintf("eyJhbGciOiJub25lIn0.%s.%08d", e.name, i) }
func (e export) refresh(i int) string { return fmt.Sprintf("rt.%s.%08d", e.name, i) }
func (e export) subject(i int) string { return fmt.Sprintf("user-%06d@example.org", i/perSubject) }

// write writes the pairs from..to as bodies of POST /v1/grants.
func (e export) write(t testing.TB, name string, from, to int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := from; i < to; i++ {
		fmt.Fprintf(w, `{"grant_id":"%s-%08d","client_id":"app","subject":%q,"session":"s-%08d","issuer":"https://as.example","scope":"openid read write",`+
			`"access_token":{"token":%q,"issued_at":%d,"expires_at":%d},"refresh_token":{"token":%q,"issued_at":%d,"expires_at":%d}}`+"\n",
			e.name, i, e.subject(i), i, e.access(i), e.issued, e.issued+7200, e.refresh(i), e.issued, e.issued+30*86400)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// All three nodes concurrently register a million pairs from files. The test revokes a sample one
// by one through every node and the rest by a cut-off per subject. Every node answers inactive for
// all of them, even after kill -9 of all nodes.
func TestMillionPairs_StayRevoked(t *testing.T) {
	e := export{name: "imported", pairs: number(t, "REVOKED_PAIRS", 1_000_000), issued: time.Now().Unix() - 60}
	sample := min(number(t, "REVOKED_SAMPLE", 30_000), e.pairs/2)
	c := startCluster(t, 3)

	t.Log("pairs/s registered:", e.registerAll(t, c))
	usage(t, c, e.pairs)
	stride := e.pairs / sample
	revoked := make([]int, sample)
	for k := range revoked {
		revoked[k] = k * stride
	}
	e.check(t, c, "active before", revoked[:sample/10], true)
	t.Log("revocations/s:", e.revokeAll(t, c, revoked))
	e.check(t, c, "revoked one by one", revoked, false)
	cut, spared := e.cutOff(t, c, stride)
	e.check(t, c, "revoked by subject", cut, false)
	e.check(t, c, "of a subject that was spared", spared, true)

	for _, m := range c.Nodes {
		m.proc.Kill()
	}
	started := time.Now()
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	t.Logf("ready %v after kill -9 of all three", time.Since(started).Round(time.Millisecond))
	e.check(t, c, "revoked one by one, after the kill", revoked, false)
	e.check(t, c, "revoked by subject, after the kill", cut, false)
	e.check(t, c, "of a subject that was spared, after the kill", spared, true)
	c.checkAgreement(t, c.Nodes...)
	usage(t, c, e.pairs)
}

// registerAll streams a third of the file through each node and returns the pairs per second.
func (e export) registerAll(t testing.TB, c *cluster) int {
	t.Helper()
	var names []string
	for k := range c.Nodes {
		name := filepath.Join(c.dir, fmt.Sprintf("export-%d.ndjson", k+1))
		e.write(t, name, k*e.pairs/len(c.Nodes), (k+1)*e.pairs/len(c.Nodes))
		names = append(names, name)
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	start := time.Now()
	for k, m := range c.Nodes {
		wg.Go(func() {
			// An issuer sends the lines that got temporarily_unavailable again.
			for try := 1; ; try++ {
				n, later, err := c.stream(m, names[k])
				if err != nil || try == 5 && len(later) > 0 {
					t.Errorf("%s: got %d lines without a result (error %v), want none", m.ID, len(later), err)
				}
				done.Add(int64(n))
				if err != nil || len(later) == 0 || try == 5 {
					return
				}
				t.Logf("%s: sending %d lines again", m.ID, len(later))
				if err := keepLines(names[k], later); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if t.Failed() || done.Load() != int64(e.pairs) {
		t.Fatalf("got %d active pairs, want %d", done.Load(), e.pairs)
	}
	return int(float64(e.pairs) / took.Seconds())
}

// stream sends a file as NDJSON. It returns the number of active results and the numbers, from 0,
// of the lines to send again.
func (c *cluster) stream(m *member, name string) (active int, later []int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	req, err := http.NewRequest(http.MethodPost, m.API+"/v1/grants", f)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	issuer := c.Clients["issuer"]
	req.SetBasicAuth(issuer.ClientID, issuer.ClientSecret)
	patient := *m.client
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, nil, fmt.Errorf("got %d: %s", resp.StatusCode, text)
	}
	lines := bufio.NewScanner(resp.Body)
	for n := 0; lines.Scan(); n++ {
		switch {
		case strings.Contains(lines.Text(), `"state":"active"`):
			active++
		case strings.Contains(lines.Text(), `"error":"temporarily_unavailable"`):
			later = append(later, n)
		default:
			return active, later, fmt.Errorf("line %d: %s", n+1, lines.Text())
		}
	}
	return active, later, lines.Err()
}

// keepLines drops all lines from a file except the given ones.
func keepLines(name string, numbers []int) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var kept bytes.Buffer
	n := 0
	for line := range bytes.Lines(data) {
		if len(numbers) > 0 && numbers[0] == n {
			kept.Write(line)
			numbers = numbers[1:]
		}
		n++
	}
	return os.WriteFile(name, kept.Bytes(), 0o600)
}

// eachOf runs f for every item, several concurrently.
func eachOf(items []int, workers int, f func(i int)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range workers {
		wg.Go(func() {
			for {
				k := int(next.Add(1)) - 1
				if k >= len(items) {
					return
				}
				f(items[k])
			}
		})
	}
	wg.Wait()
}

// revokeAll revokes the pairs at all nodes in turn, by the access or the refresh token. It returns
// the number of revocations a second.
func (e export) revokeAll(t testing.TB, c *cluster, pairs []int) int {
	t.Helper()
	start := time.Now()
	eachOf(pairs, 48, func(i int) {
		token := e.access(i)
		if i/7%2 == 0 {
			token = e.refresh(i)
		}
		for try := 0; ; try++ {
			a := c.revoke(c.Nodes[i%len(c.Nodes)], "app", token)
			if a.want(http.StatusOK) == nil {
				return
			}
			if try == 20 {
				t.Errorf("revoke pair %d: %v", i, a.want(http.StatusOK))
				return
			}
		}
	})
	return int(float64(len(pairs)) / time.Since(start).Seconds())
}

// check fails the test unless every node answers want for both tokens of the pairs.
func (e export) check(t testing.TB, c *cluster, what string, pairs []int, want bool) {
	t.Helper()
	var wrong atomic.Int64
	start := time.Now()
	for _, m := range c.Nodes {
		eachOf(pairs, 16, func(i int) {
			token := e.access(i)
			if i%2 == 0 {
				token = e.refresh(i)
			}
			for try := 0; ; try++ {
				a := c.introspect(m, "app", token)
				got, ok := a.active()
				if ok && got != want {
					wrong.Add(1)
				}
				if ok {
					return
				}
				if try == 20 {
					t.Errorf("%s: pair %d: %v", m.ID, i, a.want(http.StatusOK))
					return
				}
			}
		})
	}
	n := len(c.Nodes) * len(pairs)
	t.Logf("%d answers for tokens %s, %d/s", n, what, int(float64(n)/time.Since(start).Seconds()))
	if wrong.Load() > 0 {
		t.Fatalf("tokens %s: got %d of %d answers other than active %t, want none", what, wrong.Load(), n, want)
	}
}

// cutOff revokes the tokens of all subjects but the last few. It returns pairs that were active
// before: some of revoked subjects and some of spared ones.
func (e export) cutOff(t testing.TB, c *cluster, stride int) (cut, kept []int) {
	t.Helper()
	subjects := (e.pairs + perSubject - 1) / perSubject
	spared := max(1, subjects/100)
	all := make([]int, subjects-spared)
	for s := range all {
		all[s] = s
	}
	start := time.Now()
	eachOf(all, 16, func(s int) {
		m := c.Nodes[s%len(c.Nodes)]
		selector := map[string]any{"subject": e.subject(s * perSubject), "reason": "account closed"}
		a := c.send(m, request{method: http.MethodPost, path: "/v1/revocations", as: "admin", json: selector})
		for try := 0; a.want(http.StatusOK) != nil && try < 20; try++ { // a retry is safe
			a = c.send(m, request{method: http.MethodPost, path: "/v1/revocations", as: "admin", json: selector})
		}
		if err := a.want(http.StatusOK); err != nil {
			t.Errorf("cut-off of subject %d: %v", s, err)
		}
	})
	t.Logf("cut off %d subjects of %d pairs each in %v", len(all), perSubject, time.Since(start).Round(time.Millisecond))
	pick := func(from, to int) (pairs []int) {
		for i := from; i < to; i += max(1, (to-from)/4000) {
			if i%stride != 0 {
				pairs = append(pairs, i)
			}
		}
		return pairs
	}
	return pick(0, len(all)*perSubject), pick(len(all)*perSubject, e.pairs)
}

// usage logs memory and disk of every node.
func usage(t testing.TB, c *cluster, pairs int) {
	t.Helper()
	for _, m := range c.Nodes {
		rss, err := residentBytes(m.proc.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		total, log, err := diskBytes(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: resident %d MiB; on disk %d MiB, of which Raft log %d MiB; state %d bytes per token", m.ID, rss>>20,
			total>>20, log>>20, (total-log)/int64(2*pairs))
	}
}

func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: VmRSS not found", pid)
}

// diskBytes returns the disk space of a data directory and the part of Raft's log in it.
func diskBytes(dir string) (total, log int64, err error) {
	seen := map[uint64]bool{} // snapshots may be hard links
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // it may disappear during the walk
		}
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil || seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		total += st.Blocks * 512
		if filepath.Base(path) == "raft.db" {
			log = st.Blocks * 512
		}
		return nil
	})
	return total, log, err
}
