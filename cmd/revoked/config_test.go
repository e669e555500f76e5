package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v3"
)

// loadWith loads settings from flags, variables and the text of a file ("": no file).
func loadWith(t *testing.T, args []string, env map[string]string, file string) (*config, error) {
	t.Helper()
	var flags configFlags
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	flags.addFlags(fs)
	if file != "" {
		name := filepath.Join(t.TempDir(), "revoked.yml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", name)
	}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags.load(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

func TestSettingsPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want string
	}{
		{"nothing given means the default", nil, nil, "", "default"},
		{"the file goes before the default", nil, nil, "region: file", "file"},
		{"a variable goes before the file", nil, map[string]string{"REVOKED_REGION": "env"}, "region: file", "env"},
		{"a flag goes before a variable", []string{"--region", "flag"}, map[string]string{"REVOKED_REGION": "env"}, "region: file", "flag"},
		{"an empty variable counts as absent", nil, map[string]string{"REVOKED_REGION": ""}, "region: file", "file"},
		{"a key without a value counts as absent", nil, nil, "region:\n", "default"},
		{"an empty file says nothing", nil, nil, "# only a comment\n", "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := loadWith(t, tt.args, tt.env, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Region != tt.want {
				t.Errorf("got region %q, want %q", cfg.Region, tt.want)
			}
		})
	}
}

func TestEverySettingHasFlagVariableAndKey(t *testing.T) {
	for _, s := range settingsTable() {
		text := "7"
		v := s.into(&settings{})
		for _, try := range []string{"7", "7s", "true", "debug", "json", "10.0.0.0/8", `{"a":1}`} {
			if s.into(&settings{}).set(raw{text: try}) == nil {
				text = try
				break
			}
		}
		if v.isList && s.into(&settings{}).set(raw{text: text}) != nil {
			t.Fatalf("%s takes none of the samples", s.key)
		}
		byFlag, err1 := loadWith(t, []string{"--" + s.flag() + "=" + text}, nil, "")
		byEnv, err2 := loadWith(t, nil, map[string]string{s.env(): text}, "")
		quoted, err := yaml.Marshal(map[string]string{s.key: text})
		if err != nil {
			t.Fatal(err)
		}
		byFile, err3 := loadWith(t, nil, nil, string(quoted))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Errorf("%s = %q: %v", s.key, text, err)
			continue
		}
		opts := cmp.Comparer(func(a, b config) bool { return cmp.Equal(a.settings, b.settings, cmpPrefixes) })
		if !cmp.Equal(*byFlag, *byEnv, opts) {
			t.Errorf("%s: flag and variable differ", s.key)
		}
		if strings.HasPrefix(byFile.origin[s.key], "default") {
			t.Errorf("%s: got origin %q from a file", s.key, byFile.origin[s.key])
		}
	}
}

// cmpPrefixes compares network prefixes by value.
var cmpPrefixes = cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })

func TestUnknownKeyIsRefusedWithItsLine(t *testing.T) {
	_, err := loadWith(t, nil, nil, "node_id: a\n\nnode_idd: b\nlog_levle: debug\n")
	var ce *configError
	if !errors.As(err, &ce) {
		t.Fatalf("got %v, want a *configError", err)
	}
	for _, want := range []string{`revoked.yml:3: unknown key "node_idd"; did you mean node_id?`, `revoked.yml:4: unknown key "log_levle"; did you mean log_level?`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}

func TestWrongSettingsAreToldAllAtOnce(t *testing.T) {
	_, err := loadWith(t, []string{"--bootstrap-expect", "three"}, map[string]string{"REVOKED_LEASE_DURATION": "2"},
		"cache_size: 64MBB\nnon_voter: perhaps\ntrusted_proxies: [10.0.0.0/33]\nregion: [a]\nnode_id: x\nnode_id: y\n")
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		`--bootstrap-expect: want a whole number, not "three"`,
		`REVOKED_LEASE_DURATION: want a duration such as 500ms, 5s or 24h, not "2"`,
		`revoked.yml:1: cache_size: want bytes such as 64MiB, not "64MBB"`,
		`revoked.yml:2: non_voter: want true or false, not "perhaps"`,
		`revoked.yml:3: trusted_proxies: want a network such as 10.0.0.0/8 or an address, not "10.0.0.0/33"`,
		`revoked.yml:4: region: want a single value`,
		`revoked.yml:6: node_id is there a second time`,
		`7 things are wrong`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got:\n%v\nwant it to say %q", err, want)
		}
	}
}

func TestValuesOfSettings(t *testing.T) {
	cfg, err := loadWith(t, []string{"--join", "a:7443,b:7443", "--join", "c:7443", "--non-voter"},
		map[string]string{"REVOKED_METADATA_EXTRA": `{"op_policy_uri":"https://x.example"}`, "REVOKED_CACHE_SIZE": "64MiB"},
		"data_dir: here\napi_cert: /abs/api.pem\ncors_origins:\n  - https://a.example\nsecret_grace: 48h\ncheck_networks: [10.1.2.3/8, \"::1\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a:7443", "b:7443", "c:7443"}; !slices.Equal(cfg.Join, want) {
		t.Errorf("got join %v, want %v", cfg.Join, want)
	}
	if !cfg.NonVoter {
		t.Error("--non-voter alone should mean true")
	}
	if cfg.CacheSize != 64<<20 {
		t.Errorf("got cache size %d, want %d", cfg.CacheSize, 64<<20)
	}
	if cfg.MetadataExtra["op_policy_uri"] != "https://x.example" {
		t.Errorf("got metadata_extra %v", cfg.MetadataExtra)
	}
	if want := filepath.Join(filepath.Dir(cfg.file), "here"); cfg.DataDir != want {
		t.Errorf("got data_dir %q, want %q: relative to the file", cfg.DataDir, want)
	}
	if cfg.APICert != "/abs/api.pem" {
		t.Errorf("got api_cert %q", cfg.APICert)
	}
	if cfg.SecretGrace != 48*time.Hour {
		t.Errorf("got secret_grace %v", cfg.SecretGrace)
	}
	if got := []string{cfg.CheckNetworks[0].String(), cfg.CheckNetworks[1].String()}; !slices.Equal(got, []string{"10.0.0.0/8", "::1/128"}) {
		t.Errorf("got check_networks %v", got)
	}
}

func TestPathsOfFlagsStartFromTheWorkingDirectory(t *testing.T) {
	cfg, err := loadWith(t, []string{"--data-dir", "here"}, nil, "api_cert: a.pem\n")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir != "here" {
		t.Errorf("got %q, want %q", cfg.DataDir, "here")
	}
}

// The defaults of contract.md, "Settings".
func TestDefaultSettings(t *testing.T) {
	cfg, err := loadWith(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if bad := cfg.derive(func() (string, error) { return "box", nil }); len(bad) > 0 {
		t.Fatal(bad)
	}
	got := []any{cfg.NodeID, cfg.Region, cfg.DataDir, cfg.APIAddr, cfg.ClusterAddr, cfg.GossipAddr, cfg.MetricsAddr, cfg.RequireHTTPS, cfg.RequirePost,
		cfg.LeaseDuration, cfg.LateRegistrationWindow, cfg.CutoffRetention, cfg.MaxClockSkew, cfg.SecretGrace,
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.RequestTimeout, cfg.ShutdownTimeout, cfg.LogLevel, cfg.LogFormat, cfg.BootstrapExpect,
		cfg.APIAdvertise, cfg.Issuer, cfg.ClusterAdvertise, cfg.GossipAdvertise}
	want := []any{"box", "default", "./data", ":8443", ":7443", ":7946", "", true, true,
		2 * time.Second, time.Hour, 9600 * time.Hour, 5 * time.Second, 24 * time.Hour,
		500 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second, 15 * time.Second, "info", "text", 0,
		"https://box:8443", "https://box:8443", "box:7443", "box:7946"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if bad := cfg.checkValues(); len(bad) > 0 {
		t.Errorf("the defaults are found wrong: %v", bad)
	}
}

func TestCheckValues(t *testing.T) {
	for _, tt := range []struct {
		name string
		file string
		want string
	}{
		{"a node id with a slash", "node_id: a/b", "node_id"},
		{"an address without a port", "api_addr: localhost", `api_addr: want host:port or :port, not "localhost"`},
		{"a port that is none", "gossip_addr: ':99999'", "want a port from 0 to 65535"},
		{"two listeners on one port", "cluster_addr: 127.0.0.1:8443", "127.0.0.1:8443 takes the port of api_addr, :8443"},
		{"an advertised address that nobody can dial", "cluster_advertise: 0.0.0.0:7443", "names no host that others could reach"},
		{"an issuer with a query", "issuer: https://a.example?x=1", "no query"},
		{"an issuer without TLS", "issuer: http://a.example", "want an https URL"},
		{"an API URL without TLS", "api_advertise: http://a.example", "want an https URL"},
		{"metadata that the server makes itself", "\nmetadata_extra: {issuer: 'https://a.example'}", "revoked.yml:2: metadata_extra: issuer is not yours to set"},
		{"a lease of nothing", "lease_duration: 0s", "lease_duration: want 500ms to 1m0s"},
		{"cut-offs forgotten before late registrations", "cutoff_retention: 1h\nlate_registration_window: 2h", "less than late_registration_window"},
		{"elections shorter than heartbeats", "election_timeout: 100ms", "less than heartbeat_timeout"},
		{"expected nodes that cannot be found", "bootstrap_expect: 3", "cannot find each other without join"},
		{"a founding node that does not vote", "bootstrap_expect: 1\nnon_voter: true", "votes"},
		{"a peer without a port", "join: [node2]", "join: want host:port"},
		{"a budget of nothing", "misses_per_second: 0", "want 1 or more, not 0"},
		{"an origin with a path", "cors_origins: [https://a.example/x]", "want an origin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := loadWith(t, nil, nil, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			problems := cfg.derive(func() (string, error) { return "box", nil })
			if len(problems) == 0 {
				problems = cfg.checkValues()
			}
			got := (&configError{problems}).Error()
			if len(problems) == 0 || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want it to say %q", got, tt.want)
			}
		})
	}
}

func TestADataDirectoryThatServerRefuses(t *testing.T) {
	left, file := t.TempDir(), filepath.Join(t.TempDir(), "data")
	for name, text := range map[string]string{filepath.Join(left, "identity.json"): `{"cluster_id":"c","left":true}`, file: "x"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		dir    string
		rejoin bool
		want   string
	}{
		{left, false, "--rejoin"},
		{left, true, ""},
		{file, false, "is not a directory"},
		{filepath.Join(file, "below"), false, "lies under a file"},
		{filepath.Join(left, "new"), false, ""},
	} {
		c := &config{settings: settings{DataDir: tt.dir, Rejoin: tt.rejoin}}
		got := c.checkDataDir()
		if (len(got) > 0) != (tt.want != "") || len(got) > 0 && !strings.Contains(got[0].text, tt.want) {
			t.Errorf("%s: got %v, want %q", tt.dir, got, tt.want)
		}
	}
}

func TestBadYAMLNamesItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"node_id: a\nregion: b\n\nlog_level: debug\njoin [a]\napi_addr: :1\n": "f.yml: line 5: ",
		"node_id: a\nregion: b\njoin: [a, b\napi_addr: :1\n":                  "f.yml: line 3: ",
		"node_id: a\nregion: b\n\tjoin: [a]\n":                                "f.yml: line 3: ",
		"node_id: a\nregion: b\n join: [a]\n":                                 "f.yml: line 3: ",
		"node_id: a\nregion: \"b\nlog_level: debug\n":                         "f.yml: line 2: ",
	} {
		_, problems := parseConfig("f.yml", []byte(text))
		if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), want) {
			t.Errorf("%q: got %v, want %s", text, problems, want)
		}
	}
}

func TestFoundersAreCounted(t *testing.T) {
	for _, tt := range []struct {
		expect int
		join   []string
		right  bool
	}{
		{0, []string{"a:1"}, true},
		{1, nil, true},
		{3, []string{"a:1", "b:1", "self:1"}, true},
		{3, []string{"a:1", "b:1"}, true},
		{3, []string{"a:1", "b:1", "other-name:1"}, true},
		{3, []string{"a:1", "self:1"}, false},
		{3, []string{"a:1", "a:1", "self:1"}, false},
		{5, []string{"a:1", "b:1", "self:1"}, false},
		{2, []string{"a:1", "b:1", "self:1"}, false},
	} {
		c := &config{settings: settings{BootstrapExpect: tt.expect, Join: tt.join, ClusterAdvertise: "self:1"}}
		if got := c.founders(); (got == "") != tt.right {
			t.Errorf("%d of %v: got %q, want right %t", tt.expect, tt.join, got, tt.right)
		}
	}
}

func TestAKeyThatEverybodyMayRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "api.key")
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
		if got := keyWarnings(name); len(got) != want {
			t.Errorf("%v: got %v, want %d warnings", mode, got, want)
		}
	}
}

func TestSampleFileHoldsEveryKey(t *testing.T) {
	name := filepath.Join("..", "..", "deploy", "revoked.sample.yml")
	got, problems := readConfigFile(name)
	if len(problems) > 0 {
		t.Fatal(&configError{problems})
	}
	for _, s := range settingsTable() {
		if _, ok := got[s.key]; !ok {
			t.Errorf("%s is not in the sample", s.key)
		}
	}
	var flags configFlags
	flags.file = name
	cfg, err := flags.load(func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if bad := append(cfg.derive(os.Hostname), cfg.checkValues()...); len(bad) > 0 {
		t.Error(&configError{bad})
	}
	// Where the sample shows a default it must be the default.
	defaults, err := loadWith(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range cfg.durations() {
		for _, def := range defaults.durations() {
			if d.key == def.key && d.value != def.value {
				t.Errorf("%s: the sample says %v, the default is %v", d.key, d.value, def.value)
			}
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{"", "node_id: a", "join: [a, b]\n", "metadata_extra: {a: {b: [1]}}", "a: &x [*x]", "? [a]\n: b", "- a", "---\n---\n", "node_id: !!binary aGk="} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, _ := parseConfig("f.yml", data)
		for _, s := range settingsTable() {
			if v, ok := got[s.key]; ok {
				_ = s.into(&settings{}).set(v.raw) // must not panic
			}
		}
	})
}
