package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each setting shows its value and its source. A value that may be a secret is replaced.
func TestEffective_EachSetting_ShowsNoSecret(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "admin.secret")
	if err := os.WriteFile(secret, []byte("canary-content"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadWith(t, []string{
		"--jwks-proxy", "http://canary-user:canary%2Fpass@proxy.example:3128/?key=canary-query#canary-fragment",
		"--backup-s3-endpoint", "https://canary-user:canary-pass@s3.example", "--issuer", "https://canary canary@x/%zz",
		"--join", "node1:7443,https://u:canary-pass@node2:7443", "--join-token-file", "canary-token",
		"--gossip-key-file", "canary-key", "--api-key", "canary-key", "--bootstrap-clients-file", "canary-clients",
		"--bootstrap-admin-secret-file", secret,
	}, map[string]string{"REVOKED_BACKUP_S3_SECRET_KEY_FILE": "canary-key", "REVOKED_REGION": "eu"},
		"request_timeout: 7s\ncache_size: 64MiB\ncheck_networks: [10.0.0.0/8=rs1]\nmetadata_extra: {a: {b: 1}}\n")
	if err != nil {
		t.Fatal(err)
	}
	all := cfg.Effective()
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "canary") {
		t.Errorf("got %s, want no canary", b)
	}
	got := map[string]string{}
	for _, e := range all {
		value, err := json.Marshal(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		got[e.Key] = string(value) + " " + filepath.Base(e.Source)
	}
	for key, want := range map[string]string{
		"jwks_proxy":                  `"http://REDACTED@proxy.example:3128/?REDACTED" --jwks-proxy`,
		"backup_s3_endpoint":          `"https://REDACTED@s3.example" --backup-s3-endpoint`,
		"issuer":                      `"REDACTED" --issuer`,
		"join":                        `["node1:7443","https://REDACTED@node2:7443"] --join`,
		"join_token_file":             `"REDACTED" --join-token-file`,
		"bootstrap_admin_secret_file": `"` + secret + `" --bootstrap-admin-secret-file`,
		"region":                      `"eu" REVOKED_REGION`,
		"request_timeout":             `"7s" revoked.yml:1`,
		"cache_size":                  `67108864 revoked.yml:2`,
		"check_networks":              `{"10.0.0.0/8":["rs1"]} revoked.yml:3`,
		"metadata_extra":              `{"a":{"b":1}} revoked.yml:4`,
		"require_post":                `true default`,
		"lease_duration":              `"2s" default`,
		"audit_max_entries":           `1000000 default`,
	} {
		if got[key] != want {
			t.Errorf("%s: got %s, want %s", key, got[key], want)
		}
	}
	if len(all) != len(Table()) {
		t.Errorf("got %d settings, want %d", len(all), len(Table()))
	}
}

// Effective shows every type of setting. It would hide a setting of an unknown type.
func TestEffective_Defaults_AreAllShown(t *testing.T) {
	cfg, err := loadWith(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range cfg.Effective() {
		if e.Value == redacted {
			t.Errorf("%s: got %v, want the default", e.Key, e.Value)
		}
	}
}
