package server

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked/cmd/revoked/internal/config"
)

// The effective settings are the ones read at startup; serving them reads no file. The log level is
// the current one.
func TestEffective_FileIsGone_ShowsStartupValues(t *testing.T) {
	key := filepath.Join(t.TempDir(), "gossip.key")
	if err := os.WriteFile(key, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg config.Config
	cfg.GossipKeyFile = key
	s := &server{cfg: &cfg, settings: cfg.Effective(), level: new(slog.LevelVar)}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelWarn} {
		s.level.Set(level)
		b, err := json.Marshal(s.effective())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`{"key":"gossip_key_file","value":"` + key + `"`,
			`{"key":"log_level","value":"` + strings.ToLower(level.String()) + `"`,
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("got %s, want %s in it", b, want)
			}
		}
	}
}
