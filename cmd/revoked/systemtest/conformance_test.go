//go:build system

package systemtest

import (
	"os/exec"
	"testing"
	"time"
)

// TestConformance_RealProcesses_Passes runs every test of api/conformance against processes of the
// program. The tests that move the clock skip themselves.
func TestConformance_RealProcesses_Passes(t *testing.T) {
	t.Parallel() // see doc.go
	program, err := exec.LookPath("revoked")
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, "", func(c *exec.Cmd) {
		c.Env = append(c.Env, "REVOKED_CONFORMANCE_BINARY="+program)
	}, "go", "test", "-count=1", "-timeout=15m", "revoked/api/conformance")
	select {
	case <-p.Done():
	case <-time.After(16 * time.Minute):
		t.Fatalf("the conformance tests did not finish; output:\n%s", p.out.String())
	}
	if p.Err() != nil {
		t.Errorf("conformance tests: %v\n%s", p.Err(), p.out.String())
	}
}
