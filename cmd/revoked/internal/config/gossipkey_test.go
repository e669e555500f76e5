package config

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked/cluster"
)

// The gossip key follows the rule of all files with secrets. A byte order mark and line ends are
// dropped. Everything else that an editor may add is refused, with a message that names the file.
func TestLoadGossipKey_InvisibleParts_DroppedOrRefused(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, cluster.KeySize))
	name := filepath.Join(t.TempDir(), "gossip.key")
	for content, want := range map[string]string{
		key: "", key + "\n": "", key + "\r\n": "", "\ufeff" + key: "", "\ufeff# a comment\r\n" + key + "\r\n": "",
		" " + key: "begins or ends with white space", key + " \n": "begins or ends with white space",
		"\xff\xfe" + key: "text is UTF-16 or binary", "\ufeff\ufeff" + key: "not base64", key + "\n" + key: "a second key",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, f := &Config{Settings: Settings{GossipKeyFile: name}}, &Files{}
		c.loadGossipKey(f)
		switch err := c.err(); {
		case want == "" && (err != nil || len(f.GossipKey) != cluster.KeySize):
			t.Errorf("%q: got %v and a key of %d bytes, want the key", content, err, len(f.GossipKey))
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name)):
			t.Errorf("%q: got %v, want %q and the name of the file", content, err, want)
		}
	}
}

// The secret of the administrator must not be the gossip key, even behind a byte order mark.
func TestLoadGossipKey_SecretOfAdministrator_IsRefused(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, cluster.KeySize))
	dir := t.TempDir()
	names := [2]string{filepath.Join(dir, "gossip.key"), filepath.Join(dir, "admin.secret")}
	for _, mark := range [][2]string{{"", ""}, {"\ufeff", ""}, {"", "\ufeff"}, {"\ufeff", "\ufeff"}} {
		for i, name := range names {
			if err := os.WriteFile(name, []byte(mark[i]+key+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := &Config{Settings: Settings{GossipKeyFile: names[0], BootstrapAdminSecretFile: names[1]}}
		c.loadGossipKey(&Files{})
		const want = "contains the secret of bootstrap_admin_secret_file"
		if err := c.err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("marks %q: got %v, want a problem", mark, err)
		}
	}
}
