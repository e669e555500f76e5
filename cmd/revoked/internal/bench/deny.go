package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"revoked/client"
	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/cmd/revoked/internal/cli"
)

// deny imports a deny list, one stream per node: the jti of JWTs that no node has seen. It measures
// the rate, and the memory and disk that the entries use on every node. It also measures a single
// introspection of an opaque token before and after the import. Finally, it checks that denied JWTs
// are inactive and others active.
func (r *run) deny(ctx context.Context, m *report.Measure) error {
	signers, err := newJWTSigners()
	if err != nil {
		return err
	}
	signer, iss := signers[1], "https://deny-"+r.tokens.run+".example"
	if err := r.trust(ctx, "deny-"+r.tokens.run, iss, signers); err != nil {
		return err
	}
	before, usesErr := r.uses() // fails if the system does not report the use
	few, err := r.loneIntrospection(ctx, r.opts.Pairs)
	if err != nil {
		return err
	}
	took, err := r.importDenials(ctx, iss)
	if err != nil {
		return err
	}
	if err := r.cluster.awaitIdle(ctx); err != nil {
		return err
	}
	many, err := r.loneIntrospection(ctx, r.opts.Pairs)
	if err != nil {
		return err
	}
	entries := float64(r.opts.DenyEntries)
	m.Value = entries / took.Seconds()
	m.SetDetail("entries", r.opts.DenyEntries)
	m.SetDetail("one_lone_introspection_p50_before_ms", host.Millis(few))
	m.SetDetail("one_lone_introspection_p50_ms", host.Millis(many))
	if usesErr == nil {
		after, err := r.uses()
		if err != nil {
			return err
		}
		var resident, grown, disk []float64
		for i := range after {
			resident = append(resident, float64(after[i].resident)/(1<<20))
			grown = append(grown, float64(after[i].resident-before[i].resident)/entries)
			disk = append(disk, float64(after[i].disk-before[i].disk)/entries)
		}
		m.SetDetail("memory_of_a_node_mib", slices.Max(resident))
		m.SetDetail("memory_bytes_per_entry", slices.Max(grown))
		m.SetDetail("disk_bytes_per_entry", slices.Max(disk))
		m.SetDetail("disk_holds", formatParts(after[0].parts))
	}
	return r.checkDenials(ctx, m, signer, iss)
}

// denied returns the jti of the n-th entry of the deny list.
func denied(n uint64) string { return "denied-" + strconv.FormatUint(n, 10) }

// importDenials sends the deny list, one stream per node, and returns the time that it took.
func (r *run) importDenials(ctx context.Context, iss string) (time.Duration, error) {
	var sent atomic.Uint64
	previous := uint64(0)
	defer r.reportProgress("deny", func() string {
		now := sent.Load()
		rate := float64(now-previous) / progressTime.Seconds()
		previous = now
		return fmt.Sprintf("%d of %d entries sent, %.0f/s", now, r.opts.DenyEntries, rate)
	})()
	nodes := uint64(len(r.cluster.nodes))
	failed := make([]error, nodes)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range nodes {
		low, high := r.opts.DenyEntries*i/nodes, r.opts.DenyEntries*(i+1)/nodes
		wg.Go(func() {
			list := &denyReader{issuer: iss, expires: r.tokens.issued + int64(12*time.Hour/time.Second), low: low, high: high,
				sent: &sent}
			failed[i] = r.sendDenials(ctx, int(i), list, high-low)
		})
	}
	wg.Wait()
	return time.Since(start), errors.Join(failed...)
}

// sendDenials sends one stream to node i. It fails unless every entry is recorded afterwards.
func (r *run) sendDenials(ctx context.Context, i int, list io.Reader, want uint64) error {
	recorded, failure := uint64(0), "no summary"
	err := r.cluster.Client("admin", i).RevokeJTIs(ctx, list, true, func(l client.RevokeLine, _ []byte) error {
		switch {
		case l.Lines != nil:
			recorded = l.Revoked
		case failure == "no summary":
			failure = fmt.Sprintf("line %d: %s: %s", l.Line, cli.Clean(l.Error), cli.Clean(l.Detail))
		}
		return nil
	})
	if err == nil && recorded != want {
		err = fmt.Errorf("import a deny list at %s: %d of %d entries recorded; %s", r.cluster.nodes[i].ID, recorded, want,
			failure)
	}
	return err
}

// A denyReader returns the entries from low up to high, one JSON body per line.
type denyReader struct {
	issuer    string
	expires   int64 // Unix seconds
	low, high uint64
	sent      *atomic.Uint64
	buf, rest []byte // rest is the part of buf that is not read yet
}

func (d *denyReader) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		if d.low == d.high {
			return 0, io.EOF
		}
		end := min(d.low+256, d.high)
		d.buf = d.buf[:0]
		for n := d.low; n < end; n++ {
			d.buf = fmt.Appendf(d.buf, "{\"issuer\":%q,\"jti\":%q,\"expires_at\":%d}\n", d.issuer, denied(n), d.expires)
		}
		d.sent.Add(end - d.low)
		d.low, d.rest = end, d.buf
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// checkDenials introspects JWTs at a follower: denied ones, from the first entry to the last, must
// be inactive and others active.
func (r *run) checkDenials(ctx context.Context, m *report.Measure, s *jwtSigner, iss string) error {
	const checks = 100
	node, err := r.cluster.follower(ctx)
	if err != nil {
		return err
	}
	c := r.cluster.Client("resource_server", node)
	wrong := 0
	for i := range uint64(checks) {
		for _, jti := range []string{denied(i * (r.opts.DenyEntries - 1) / (checks - 1)), denied(r.opts.DenyEntries + i)} {
			token, err := s.token(iss, jti, r.tokens.issued)
			if err != nil {
				return err
			}
			got, err := c.Introspect(ctx, token, "")
			if err != nil {
				return err
			}
			if live := jti == denied(r.opts.DenyEntries+i); got.Value.Active() != live {
				wrong++
			}
		}
	}
	m.SetDetail("wrong_answers", wrong)
	m.SetGoal("no wrong answer", wrong == 0)
	return nil
}
