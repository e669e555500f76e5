package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/config"
)

func TestUnknownVariables_EachName_IsKnownOrReported(t *testing.T) {
	const is = " is set, but the program has no such variable"
	for entry, want := range map[string]string{
		"REVOKED_NODE_ID=n1":                       "",
		"REVOKED_CONFIG=/etc/revoked.yml":          "",
		"REVOKED_CLIENT_SECRET=s3cr3t":             "",
		"REVOKED_NODEID=":                          "", // an empty variable counts as absent
		"OTHER_NODE=n1":                            "",
		"REVOKED_SERVICE_HOST=10.0.0.1":            "", // set by Kubernetes
		"REVOKED_SERVICE_PORT_API=8443":            "",
		"REVOKED_PORT=tcp://10.0.0.1:8443":         "",
		"REVOKED_PORT_8443_TCP_ADDR=10.0.0.1":      "",
		"REVOKED_HEADLESS_PORT_7443_TCP_PROTO=tcp": "",
		"REVOKED_NODEID=n1":                        "REVOKED_NODEID" + is + "; did you mean REVOKED_NODE_ID?",
		"REVOKED_CA_CERT=ca.pem":                   "REVOKED_CA_CERT" + is + "; did you mean REVOKED_CACERT?",
		"REVOKED_CLIENT_SECRETS=s3cr3t=x":          "REVOKED_CLIENT_SECRETS" + is + "; did you mean REVOKED_CLIENT_SECRET?",
		"REVOKED_LOG_LEVL=debug":                   "REVOKED_LOG_LEVL" + is + "; did you mean REVOKED_LOG_LEVEL?",
		"REVOKED_ZZZ=1":                            "REVOKED_ZZZ" + is,
	} {
		got := ""
		for _, v := range config.UnknownVariables([]string{"PATH=/bin", entry}) {
			got += v.String()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", entry, got, want)
		}
	}
}

// Each variable in the source code of the program is a known variable.
func TestUnknownVariables_VariablesInSource_AreKnown(t *testing.T) {
	read := regexp.MustCompile(`"(REVOKED_[A-Z_]+)"`)
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range read.FindAllStringSubmatch(string(source), -1) {
			found++
			if unknown := config.UnknownVariables([]string{m[1] + "=x"}); len(unknown) > 0 {
				t.Errorf("%s names %s, want it among the known variables", path, m[1])
			}
		}
		return err
	})
	if err != nil || found < 8 {
		t.Errorf("got %d variables, %v; want those of the connection", found, err)
	}
}
