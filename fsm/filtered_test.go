package fsm_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"pgregory.net/rapid"

	"revoked"
	"revoked/fsm/command"
)

// The test applies random denials, registrations, expiry, restarts and received snapshots. The
// filter never reports a row of the state as absent. It shows without a read that a new denial is
// absent.
func TestFilteredFamilies_RandomHistory_LackNoRow(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t)
		m.trust(func(i *revoked.Issuer) { i.GrantClaim = "gid" })
		for step := range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0, 1:
				var ops []*command.Op
				for range rapid.IntRange(1, 30).Draw(r, "entries") {
					j := revoked.JWT{Issuer: testIss, JTI: fmt.Sprint(rapid.IntRange(0, 60).Draw(r, "jti"))}
					if minutes := rapid.IntRange(0, 90).Draw(r, "minutes"); minutes > 0 {
						j.ExpiresAt = m.now.Add(time.Duration(minutes) * time.Minute)
					}
					ops = append(ops, command.RevokeJWTOp(m.by("admin"), &j, ""))
				}
				for _, res := range m.do(ops...) {
					wantErr(t, res.Err, nil)
				}
			case 2:
				j := jwt(fmt.Sprint(step))
				m.must(command.RevokeJWTOp(m.by("admin"), j, ""))
				m.revoke("app", fmt.Sprint("unknown ", step))
				reg := pair(fmt.Sprint(step))
				reg.Tokens[0].ExpiresAt, reg.Tokens[1].ExpiresAt = m.now.Add(time.Hour), m.now.Add(24*time.Hour)
				m.register(reg)
			case 3:
				m.later(time.Duration(rapid.IntRange(1, 600).Draw(r, "later")) * time.Minute)
				m.drain()
			case 4:
				crashed := m.crash()
				for i := 0; i < len(m.log); i += 5 {
					crashed.f.ApplyBatch(m.log[i:min(i+5, len(m.log))])
				}
				_ = m.f.Close()
				m = crashed
			case 5:
				restored := empty(t)
				if err := restored.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
					r.Fatal(err)
				}
				restored.now, restored.log = m.now, m.log
				_ = m.f.Close()
				m = restored
			}
			n, lacked, err := m.f.FilteredRows()
			if err != nil || lacked != nil {
				r.Fatalf("step %d: filter lacks row %q of %d, %v", step, lacked, n, err)
			}
		}
		absent := 0
		for i := range 100 {
			lacks, err := m.f.LacksDenial(revoked.DenialKey(revoked.DenyJTI, testIss, fmt.Sprint("absent ", i)))
			if err != nil {
				r.Fatal(err)
			}
			if lacks {
				absent++
			}
		}
		if absent < 80 {
			r.Fatalf("got %d of 100 new denials that need no read, want at least 80", absent)
		}
		if len(m.fatal) > 0 {
			r.Fatalf("fatal: got %v, want none", m.fatal)
		}
		if err := m.f.Close(); err != nil {
			r.Fatal(err)
		}
	})
}
