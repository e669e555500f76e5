package main

import (
	"strings"
	"testing"
)

func TestIsHost(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, good := range []string{
		"localhost", "node1", "node_1", "revoked.example.org", "*.example.org", "xn--bcher-kva.example", "1a.2b", "10.0.0.1", "::1", long + ".org",
	} {
		if !isHost(good) {
			t.Errorf("%q: got no host, want one", good)
		}
	}
	for _, bad := range []string{
		"", "foo bar", "a..b", ".a", "a.", "-a", "a-", "*", "*.", "a.*.org", "w*.example.org", "b\u00fccher.example", "a/b", "a:1", "[::1]", "::1%eth0",
		"10.0.0.300", "10.0.0", long + "a.org", strings.Repeat("a.", 126) + "ab",
	} {
		if isHost(bad) {
			t.Errorf("%q: got a host, want none", bad)
		}
	}
}
