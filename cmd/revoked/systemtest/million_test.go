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

// perSubject is how many pairs of the export belong to one subject.
const perSubject = 1000

// An export is a file of token pairs as an issuer would write it: a line a pair.
type export struct {
	pairs  int
	issued int64
}

func (e export) access(i int) string  { return fmt.Sprintf("eyJhbGciOiJub25lIn0.access.%08d", i) }
func (e export) refresh(i int) string { return fmt.Sprintf("rt.5c1f0a.%08d", i) }
func (e export) subject(i int) string { return fmt.Sprintf("user-%06d@example.org", i/perSubject) }

// write writes a share of the pairs, from..to, in the shape of POST /v1/grants.
func (e export) write(t testing.TB, name string, from, to int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := from; i < to; i++ {
		fmt.Fprintf(w, `{"grant_id":"imported-%08d","client_id":"app","subject":%q,"session":"s-%08d","issuer":"https://as.example","scope":"openid read write",`+
			`"access_token":{"token":%q,"issued_at":%d,"expires_at":%d},"refresh_token":{"token":%q,"issued_at":%d,"expires_at":%d}}`+"\n",
			i, e.subject(i), i, e.access(i), e.issued, e.issued+7200, e.refresh(i), e.issued, e.issued+30*86400)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A million pairs come from files through all three nodes at once. A sample is revoked one by one
// through every node, the rest by cut-offs, one a subject. What was revoked is inactive on every
// node, also after all of them were killed at once.
func TestMillionPairs(t *testing.T) {
	e := export{pairs: number(t, "REVOKED_PAIRS", 1_000_000), issued: time.Now().Unix() - 60}
	sample := min(number(t, "REVOKED_SAMPLE", 30_000), e.pairs/2)
	c := startCluster(t, 3)

	t.Log("pairs/s registered:", e.registerAll(t, c))
	usage(t, c, e.pairs)
	stride := e.pairs / sample
	revoked := make([]int, sample)
	for k := range revoked {
		revoked[k] = k * stride
	}
	e.ask(t, c, "active before", revoked[:sample/10], true)
	t.Log("revocations/s:", e.revokeAll(t, c, revoked))
	e.ask(t, c, "revoked one by one", revoked, false)
	cut, spared := e.cutOff(t, c, stride)
	e.ask(t, c, "revoked by subject", cut, false)
	e.ask(t, c, "of a subject that was spared", spared, true)

	for _, m := range c.Nodes {
		m.proc.kill()
	}
	started := time.Now()
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	t.Logf("ready %v after a kill -9 of all three", time.Since(started).Round(time.Millisecond))
	e.ask(t, c, "revoked one by one, after the kill", revoked, false)
	e.ask(t, c, "revoked by subject, after the kill", cut, false)
	e.ask(t, c, "of a subject that was spared, after the kill", spared, true)
	c.checkAgreement(t, c.Nodes...)
	usage(t, c, e.pairs)
}

// registerAll streams a third of the file through each node and returns how many pairs a second.
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
			// As an issuer would: what was answered with temporarily_unavailable is sent again.
			for try := 1; ; try++ {
				n, later, err := c.stream(m, names[k])
				if err != nil || try == 5 && len(later) > 0 {
					t.Errorf("%s: %d lines left: %v", m.ID, len(later), err)
				}
				done.Add(int64(n))
				if err != nil || len(later) == 0 || try == 5 {
					return
				}
				t.Logf("%s: %d lines are sent again", m.ID, len(later))
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
		t.Fatalf("%d of %d pairs were answered with active", done.Load(), e.pairs)
	}
	return int(float64(e.pairs) / took.Seconds())
}

// stream sends a file as NDJSON. It returns how many lines were answered with active, and the numbers,
// from 0, of those that may be sent again.
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

// keepLines leaves only the lines of these numbers, in order, in a file.
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

// eachOf runs f for every item, several at once.
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

// revokeAll revokes pairs through all nodes in turn, by either token.
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
				t.Errorf("pair %d cannot be revoked: %v", i, a.want(http.StatusOK))
				return
			}
		}
	})
	return int(float64(len(pairs)) / time.Since(start).Seconds())
}

// ask wants the same of both tokens of the pairs on every node.
func (e export) ask(t testing.TB, c *cluster, what string, pairs []int, want bool) {
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
					t.Errorf("%s: no answer for pair %d: %v", m.ID, i, a.want(http.StatusOK))
					return
				}
			}
		})
	}
	n := len(c.Nodes) * len(pairs)
	t.Logf("%d answers for tokens %s, %d/s", n, what, int(float64(n)/time.Since(start).Seconds()))
	if wrong.Load() > 0 {
		t.Fatalf("tokens %s: %d of %d answers are not active=%t", what, wrong.Load(), n, want)
	}
}

// cutOff ends everything of every subject but a few at the end. It returns pairs that were not revoked
// before: some of subjects that were cut off, and some of subjects that were spared.
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
		for try := 0; a.want(http.StatusOK) != nil && try < 20; try++ { // repeating is safe
			a = c.send(m, request{method: http.MethodPost, path: "/v1/revocations", as: "admin", json: selector})
		}
		if err := a.want(http.StatusOK); err != nil {
			t.Errorf("cut-off of subject %d: %v", s, err)
		}
	})
	t.Logf("%d subjects of %d pairs each were cut off in %v", len(all), perSubject, time.Since(start).Round(time.Millisecond))
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
		t.Logf("%s: resident %d MiB; on disk %d MiB, of which Raft log %d MiB; state %d bytes a token", m.ID, rss>>20, total>>20, log>>20, (total-log)/int64(2*pairs))
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
	return 0, fmt.Errorf("process %d tells no VmRSS", pid)
}

// diskBytes returns what a data directory takes on the disk, and what of it is Raft's log.
func diskBytes(dir string) (total, log int64, err error) {
	seen := map[uint64]bool{} // snapshots may be hard links
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // it may go while we walk
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
