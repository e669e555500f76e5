package cli_test

import (
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/cli"
)

func TestIsHost_AcceptsAddressesAndDNSNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, good := range []string{
		"localhost", "node1", "node_1", "revoked.example.org", "*.example.org", "xn--bcher-kva.example", "1a.2b",
		"10.0.0.1", "::1", long + ".org",
	} {
		if !cli.IsHost(good) {
			t.Errorf("%q: got false, want true", good)
		}
	}
	for _, bad := range []string{
		"", "foo bar", "a..b", ".a", "a.", "-a", "a-", "*", "*.", "a.*.org", "w*.example.org", "b\u00fccher.example", "a/b",
		"a:1", "[::1]", "::1%eth0",
		"10.0.0.300", "10.0.0", long + "a.org", strings.Repeat("a.", 126) + "ab",
	} {
		if cli.IsHost(bad) {
			t.Errorf("%q: got true, want false", bad)
		}
	}
}
