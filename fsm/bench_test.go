package fsm_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// bulk returns n entries, each with 512 registrations of an access and a refresh token. As in
// generated ids, only the end of a grant id is random.
func bulk(m *machine, n int) []*raft.Log {
	logs := make([]*raft.Log, n)
	for i := range logs {
		ops := make([]*command.Op, 512)
		for j := range ops {
			k := i*512 + j
			r := revoked.Registration{
				GrantID:  "g_Zl6E4" + randomText(12),
				ClientID: fmt.Sprintf("app-%d", k%6), Subject: fmt.Sprintf("user-%d", k%200_000),
				Session: randomText(9), Issuer: "https://as.example.org", Scope: "openid profile read",
				Audience: []string{"https://api.example.org"},
				Tokens: []revoked.TokenRegistration{
					{Digest: revoked.DigestToken(randomText(16)), Kind: revoked.AccessToken, IssuedAt: start,
						ExpiresAt: start.Add(time.Hour)},
					{Digest: revoked.DigestToken(randomText(16)), Kind: revoked.RefreshToken, IssuedAt: start,
						ExpiresAt: start.Add(720 * time.Hour)},
				},
			}
			r.ClientID = "app"
			ops[j] = command.RegisterOp(m.by("issuer"), r)
		}
		logs[i] = m.entry(&command.Batch{Ops: ops})
	}
	return logs
}

func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func BenchmarkRegister(b *testing.B) {
	m := newMachine(b)
	logs := bulk(m, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for _, l := range logs {
		if _, ok := m.f.Apply(l).(*fsm.Outcome); !ok {
			b.Fatal(m.fatal)
		}
	}
	b.StopTimer()
	pairs := float64(512 * b.N)
	b.ReportMetric(pairs/b.Elapsed().Seconds(), "pairs/s")
	if err := m.f.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(size(b, m.dir))/(2*pairs), "diskB/token")
}

func size(b *testing.B, dir string) (n int64) {
	b.Helper()
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func BenchmarkLookup(b *testing.B) {
	m := newMachine(b)
	logs := bulk(m, 200)
	var digests []revoked.Digest
	for _, l := range logs {
		msg, err := command.Decode(l.Data)
		if err != nil {
			b.Fatal(err)
		}
		m.f.Apply(l)
		for _, op := range msg.(*command.Batch).Ops {
			digests = append(digests, revoked.Digest(op.GetRegister().Tokens[0].Digest))
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i = (i + 7919) % len(digests)
		if r, err := lookup(m.f, digests[i]); err != nil || !r.Found {
			b.Fatal(r, err)
		}
	}
}

func BenchmarkRevoke(b *testing.B) {
	m := newMachine(b)
	logs := bulk(m, b.N)
	revs := make([]*raft.Log, len(logs))
	for i, l := range logs {
		msg, err := command.Decode(l.Data)
		if err != nil {
			b.Fatal(err)
		}
		m.f.Apply(l)
		var ops []*command.Op
		for _, op := range msg.(*command.Batch).Ops {
			by := m.by("app")
			by.RequestID, by.Via = randomText(24), "node1"
			ops = append(ops, command.RevokeOp(by, revoked.Digest(op.GetRegister().Tokens[0].Digest), ""))
		}
		revs[i] = m.entry(&command.Batch{Ops: ops, Audited: true})
	}
	b.ResetTimer()
	for _, l := range revs {
		m.f.Apply(l)
	}
	b.ReportMetric(512*float64(b.N)/b.Elapsed().Seconds(), "grants/s")
}

// BenchmarkDenyList denies JWTs that are not yet denied. One iteration applies one log entry with
// 512 denials, so the state grows with each iteration.
func BenchmarkDenyList(b *testing.B) {
	m := newMachine(b)
	m.trust(nil)
	logs := make([]*raft.Log, b.N)
	for i := range logs {
		ops := make([]*command.Op, 512)
		for k := range ops {
			ops[k] = command.RevokeJWTOp(m.by("admin"), &revoked.JWT{Issuer: testIss, JTI: randomText(16)}, "")
		}
		logs[i] = m.entry(&command.Batch{Ops: ops})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, l := range logs {
		if _, ok := m.f.Apply(l).(*fsm.Outcome); !ok {
			b.Fatal(m.fatal)
		}
	}
}
