package node_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

func benchCluster(b *testing.B) *nodetest.Cluster {
	b.Helper()
	return nodetest.Start(b, nodetest.Options{Node: func(_ int, c *node.Config) { c.StoreCacheSize = 128 << 20 }})
}

func pairNamed(i uint64) revoked.Registration {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], i)
	raw[15] = 1
	access := revoked.DigestToken(string(raw[:]))
	raw[15] = 2
	refresh := revoked.DigestToken(string(raw[:]))
	exp := revoked.TimeOf(time.Now().Add(time.Hour))
	return revoked.Registration{
		GrantID: fmt.Sprintf("g_%016x", i), ClientID: "app", Subject: fmt.Sprintf("user-%d", i),
		Scope: "read write", Issuer: "https://as.example",
		Tokens: []revoked.TokenRegistration{
			{Digest: access, Kind: revoked.AccessToken, ExpiresAt: exp},
			{Digest: refresh, Kind: revoked.RefreshToken, ExpiresAt: exp.Add(24 * time.Hour)},
		},
	}
}

func actor(b *testing.B, m *nodetest.Member, id string) revoked.Actor {
	b.Helper()
	c, ok := m.Node.Client(id)
	if !ok {
		b.Fatal("no client", id)
	}
	return revoked.ActorOf(c)
}

// registerAll registers pairs [from, to) in batches through all nodes.
func registerAll(b *testing.B, c *nodetest.Cluster, from, to uint64) {
	b.Helper()
	by := actor(b, c.Members[0], "issuer")
	var next atomic.Uint64
	next.Store(from)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for {
				lo := next.Add(512) - 512
				if lo >= to {
					return
				}
				var regs []revoked.Registration
				for j := lo; j < min(lo+512, to); j++ {
					regs = append(regs, pairNamed(j))
				}
				rs, err := c.Members[i%3].Node.Register(context.Background(), by, regs)
				if err != nil {
					b.Error(err)
					return
				}
				for _, r := range rs {
					if r.Err != nil {
						b.Error(r.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkRegister measures pairs registered through all three nodes of a durable cluster.
func BenchmarkRegister(b *testing.B) {
	c := benchCluster(b)
	b.ResetTimer()
	registerAll(b, c, 0, uint64(b.N))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}

// BenchmarkRevoke measures revocations of live pairs by 64 callers spread over three durable nodes.
func BenchmarkRevoke(b *testing.B) {
	c := benchCluster(b)
	registerAll(b, c, 0, uint64(b.N))
	by := actor(b, c.Members[0], "app")
	var next atomic.Uint64
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for {
				k := next.Add(1) - 1
				if k >= uint64(b.N) {
					return
				}
				if _, err := c.Members[i%3].Node.Revoke(context.Background(), by, pairNamed(k).Tokens[0].Digest); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "revocations/s")
}

// BenchmarkStatus measures introspections of live tokens on one follower, below HTTP.
func BenchmarkStatus(b *testing.B) {
	c := benchCluster(b)
	registerAll(b, c, 0, 10_000)
	m := c.Follower()
	c.WaitReady()
	var next atomic.Uint64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d := pairNamed(next.Add(1) % 10_000).Tokens[0].Digest
			if _, err := m.Node.Status(context.Background(), d, "rs"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
