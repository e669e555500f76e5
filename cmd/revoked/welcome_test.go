package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The printed commands can be pasted. They name no log file, because these nodes write none.
func TestDev_InitOnly_PrintsCommands(t *testing.T) {
	dir := t.TempDir()
	p := startProgram(t, "dev", "--init-only", "--nodes", "2", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 2)))
	printed := p.readUntil(t, "revoked dev token --dir ")
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	for _, n := range readDevFile(t, dir).Nodes {
		if want := "\nrevoked server --config " + n.Config + "\n"; !strings.Contains(printed, want) {
			t.Errorf("got %s, want the line %q", printed, want)
		}
		if n.Log == "" || strings.Contains(printed, n.Log) {
			t.Errorf("got %s, want no %q, which no node writes", printed, n.Log)
		}
	}
	record := filepath.Join(dir, "demo-issuer.json")
	if want := "\nrevoked issuer create " + record + "\nrevoked dev token --dir " + dir + "\n"; !strings.HasSuffix(
		printed, want) {
		t.Errorf("got %s, want the lines %q at the end", printed, want)
	}
	if _, err := os.Stat(record); err != nil {
		t.Error(err)
	}
	if out, code := shell(t, dir, nil, "revoked dev token --dir "+dir); code != 0 || strings.Count(out, ".") != 2 {
		t.Errorf("got exit code %d and %s, want a JWT", code, out)
	}
}
