package config

import (
	"errors"
	"fmt"
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
func loadWith(t *testing.T, args []string, env map[string]string, file string) (*Config, error) {
	t.Helper()
	var flags Flags
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	flags.AddTo(fs)
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
	return flags.Read(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

func TestRead_UsesValueOfHighestPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want string
	}{
		{"no value means the default", nil, nil, "", "default"},
		{"the file overrides the default", nil, nil, "region: file", "file"},
		{"a variable overrides the file", nil, map[string]string{"REVOKED_REGION": "env"}, "region: file", "env"},
		{"a flag overrides a variable", []string{"--region", "flag"}, map[string]string{"REVOKED_REGION": "env"},
			"region: file", "flag"},
		{"an empty variable counts as absent", nil, map[string]string{"REVOKED_REGION": ""}, "region: file", "file"},
		{"a key without a value counts as absent", nil, nil, "region:\n", "default"},
		{"an empty file means the default", nil, nil, "# only a comment\n", "default"},
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

func TestTable_EverySettingHasFlagVariableKey(t *testing.T) {
	for _, s := range Table() {
		text := ""
		for _, try := range []string{"7", "7s", "true", "debug", "json", "10.0.0.0/8", `{"a":1}`, "0.5"} {
			if scalarValue(try, "").parse(s.field) == nil {
				text = try
				break
			}
		}
		if text == "" {
			t.Fatalf("%s accepts none of the samples", s.Key)
		}
		byFlag, err1 := loadWith(t, []string{"--" + s.Flag() + "=" + text}, nil, "")
		byEnv, err2 := loadWith(t, nil, map[string]string{Variable(s.Key): text}, "")
		quoted, err := yaml.Marshal(map[string]string{s.Key: text})
		if err != nil {
			t.Fatal(err)
		}
		byFile, err3 := loadWith(t, nil, nil, string(quoted))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Errorf("%s = %q: %v", s.Key, text, err)
			continue
		}
		opts := cmp.Comparer(func(a, b Config) bool { return cmp.Equal(a.Settings, b.Settings, cmpPrefixes) })
		if !cmp.Equal(*byFlag, *byEnv, opts) {
			t.Errorf("%s: flag and variable differ", s.Key)
		}
		if strings.HasPrefix(byFile.origin[s.Key], "default") {
			t.Errorf("%s: got origin %q from a file", s.Key, byFile.origin[s.Key])
		}
	}
}

// cmpPrefixes compares network prefixes by value.
var cmpPrefixes = cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })

func TestRead_UnknownKey_NamesLineAndSuggestion(t *testing.T) {
	_, err := loadWith(t, nil, nil, "node_id: a\n\nnode_idd: b\nlog_leve: debug\n")
	var ce *Error
	if !errors.As(err, &ce) {
		t.Fatalf("got %v, want a *Error", err)
	}
	for _, want := range []string{`revoked.yml:3: unknown key "node_idd"; did you mean node_id?`,
		`revoked.yml:4: unknown key "log_leve"; did you mean log_level?`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestRead_ManyProblems_ReportsAll(t *testing.T) {
	_, err := loadWith(t, []string{"--bootstrap-expect", "three"}, map[string]string{"REVOKED_LEASE_DURATION": "2"},
		"cache_size: 64MBB\nnon_voter: perhaps\ntrusted_proxies: [10.0.0.0/33]\nregion: [a]\nnode_id: x\nnode_id: y\n")
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		`--bootstrap-expect: got "three", want a whole number`,
		`REVOKED_LEASE_DURATION: got "2", want a duration such as 500ms, 5s or 24h`,
		`revoked.yml:1: cache_size: got "64MBB", want bytes such as 64MiB`,
		`revoked.yml:2: non_voter: got "perhaps", want true or false`,
		`revoked.yml:3: trusted_proxies: got "10.0.0.0/33", want a network such as 10.0.0.0/8 or an address`,
		`revoked.yml:4: region: want a single value`,
		`revoked.yml:6: node_id is set again; first at `,
		`7 problems`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got:\n%v\nwant %q in it", err, want)
		}
	}
}

func TestRead_ParsesValues(t *testing.T) {
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
		t.Error("--non-voter without a value: got false, want true")
	}
	if cfg.CacheSize != 64<<20 {
		t.Errorf("got cache size %d, want %d", cfg.CacheSize, 64<<20)
	}
	if cfg.MetadataExtra["op_policy_uri"] != "https://x.example" {
		t.Errorf("got metadata_extra %v", cfg.MetadataExtra)
	}
	if want := filepath.Join(filepath.Dir(cfg.File), "here"); cfg.DataDir != want {
		t.Errorf("got data_dir %q, want %q: relative to the file", cfg.DataDir, want)
	}
	if cfg.APICert != "/abs/api.pem" {
		t.Errorf("got api_cert %q", cfg.APICert)
	}
	if cfg.Replicated.SecretGrace != 48*time.Hour {
		t.Errorf("got secret_grace %v", cfg.Replicated.SecretGrace)
	}
	if got := fmt.Sprint(cfg.CheckNetworks); got != "map[::1/128:[] 10.0.0.0/8:[]]" {
		t.Errorf("got check_networks %v", got)
	}
}

func TestRead_CheckNetworks_HaveAudiences(t *testing.T) {
	for _, tt := range []struct {
		args       []string
		file, want string
	}{
		{nil, "", "map[]"},
		{nil, "check_networks: []", "map[]"},
		{nil, "check_networks: {}", "map[]"},
		{[]string{"10.0.0.0/8=rs1,10.1.0.0/16=*,192.168.0.0/16,10.2.3.4/8=rs2"}, "",
			"map[10.0.0.0/8:[rs1 rs2] 10.1.0.0/16:[*] 192.168.0.0/16:[]]"},
		{[]string{"10.0.0.0/8=rs1", "10.0.0.0/8=rs2", "fd00::/8 = https://rs.example?a=b"}, "",
			"map[10.0.0.0/8:[rs1 rs2] fd00::/8:[https://rs.example?a=b]]"},
		{[]string{"10.0.0.0/8,10.0.0.0/8=rs1,10.0.0.0/8=rs1"}, "", "map[10.0.0.0/8:[rs1]]"},
		{nil, "check_networks: 10.0.0.0/8=rs1", "map[10.0.0.0/8:[rs1]]"},
		{nil, "check_networks: [10.0.0.0/8=rs1, '::1']", "map[::1/128:[] 10.0.0.0/8:[rs1]]"},
		{nil, "check_networks: {10.0.0.0/8: rs1, '10.1.0.1': [rs1, 7], 10.2.0.0/16: '*', 10.3.0.0/16: , 10.4.0.0/16: []}",
			"map[10.0.0.0/8:[rs1] 10.1.0.1/32:[rs1 7] 10.2.0.0/16:[*] 10.3.0.0/16:[] 10.4.0.0/16:[]]"},
		{nil, "check_networks: {10.0.0.0/8: 'rs1,rs2', 10.1.0.0/16: ['rs1,rs2']}",
			"map[10.0.0.0/8:[rs1 rs2] 10.1.0.0/16:[rs1,rs2]]"},
		{nil, "check_networks: {10.0.0.0/8: &a [rs1], 10.1.0.0/16: *a}", "map[10.0.0.0/8:[rs1] 10.1.0.0/16:[rs1]]"},
		// Peers on an IPv6 socket are compared as IPv4 addresses.
		{nil, "check_networks: {'::ffff:10.0.0.0/104': rs1, '::ffff:192.0.2.1': rs2}",
			"map[10.0.0.0/8:[rs1] 192.0.2.1/32:[rs2]]"},
	} {
		var args []string
		for _, a := range tt.args {
			args = append(args, "--check-networks", a)
		}
		cfg, err := loadWith(t, args, nil, tt.file)
		if err != nil {
			t.Errorf("%q %q: %v", tt.args, tt.file, err)
		} else if got := fmt.Sprint(cfg.CheckNetworks); got != tt.want {
			t.Errorf("%q %q: got %s, want %s", tt.args, tt.file, got, tt.want)
		}
	}
}

func TestRead_MalformedCheckNetworks_NamesProblem(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/33":                            `got "10.0.0.0/33", want a network such as 10.0.0.0/8 or an address`,
		"10.0.0.0/8=rs1,rs2":                     `got "rs2", want a network such as 10.0.0.0/8 or an address; repeat the network for`,
		"=rs1":                                   `got "", want a network such as 10.0.0.0/8 or an address`,
		"10.0.0.0/8=":                            "10.0.0.0/8: the audience after = is empty",
		"10.0.0.0/8=a\u200bb":                    "invisible character",
		"{10.0.0.0/8: rs1, 10.9.9.9/8: rs2}":     "10.0.0.0/8 appears twice: use a list of audiences",
		"{10.0.0.0/8: ''}":                       "10.0.0.0/8: the audience is empty",
		"{10.0.0.0/8: [rs1, '']}":                "10.0.0.0/8: an element of the list is empty",
		"{10.0.0.0/8: {rs1: rs2}}":               "10.0.0.0/8: want an audience or a list of audiences",
		"{10.0.0.0/8: [[rs1]]}":                  "10.0.0.0/8: want a list of plain values",
		"[{10.0.0.0/8: rs1}]":                    "want a list of networks, or a map from network to audiences",
		"{rs1: 10.0.0.0/8}":                      `got "rs1", want a network such as 10.0.0.0/8 or an address`,
		"{[10.0.0.0/8]: rs1}":                    "want a network such as 10.0.0.0/8 or an address",
		"{10.0.0.0/8=rs1: rs2}":                  `got "10.0.0.0/8=rs1", want a network such as 10.0.0.0/8 or an address`,
		"10.0.0.0/8=" + strings.Repeat("a", 513): "audience too long (got 513 bytes, want at most 512)",
	} {
		_, err := loadWith(t, nil, nil, "check_networks: "+text)
		if err == nil || !strings.Contains(err.Error(), "revoked.yml:1: check_networks: ") ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// A repeated list flag adds to the list.
func TestRead_RepeatedNetworkFlag_Appends(t *testing.T) {
	cfg, err := loadWith(t, []string{"--trusted-proxies", "10.0.0.0/8", "--trusted-proxies", "::ffff:192.0.2.0/120"},
		nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(cfg.TrustedProxies); got != "[10.0.0.0/8 192.0.2.0/24]" {
		t.Errorf("got %s, want both networks", got)
	}
}

func TestRead_FlagPath_IsRelativeToWorkingDir(t *testing.T) {
	cfg, err := loadWith(t, []string{"--data-dir", "here"}, nil, "api_cert: a.pem\n")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.DataDir != "here" {
		t.Errorf("got %q, want %q", cfg.DataDir, "here")
	}
}

// The defaults are part of the contract of the program (docs/configure.md).
func TestDefaults_MatchTheContract(t *testing.T) {
	cfg, err := loadWith(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Derive(func() (string, error) { return "box", nil })
	got := []any{cfg.NodeID, cfg.Region, cfg.DataDir, cfg.APIAddr, cfg.ClusterAddr, cfg.GossipAddr, cfg.MetricsAddr,
		cfg.RequireHTTPS, cfg.RequirePost,
		cfg.Replicated.LeaseDuration, cfg.Replicated.LateRegistrationWindow, cfg.Replicated.CutoffRetention,
		cfg.Replicated.MaxClockSkew, cfg.Replicated.SecretGrace,
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.RequestTimeout, cfg.ShutdownDelay, cfg.ShutdownTimeout,
		cfg.LogLevel, cfg.LogFormat, cfg.BootstrapExpect,
		cfg.APIAdvertise, cfg.Issuer, cfg.ClusterAdvertise, cfg.GossipAdvertise}
	want := []any{"box", "default", "./data", ":8443", ":7443", ":7946", "", true, true,
		2 * time.Second, time.Hour, 9600 * time.Hour, 5 * time.Second, 24 * time.Hour,
		500 * time.Millisecond, 500 * time.Millisecond, 5 * time.Second, 5 * time.Second, 15 * time.Second, "info", "text", 0,
		"https://box:8443", "https://box:8443", "box:7443", "box:7946"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	cfg.CheckValues()
	if len(cfg.problems) > 0 {
		t.Errorf("got problems %v with the defaults, want none", cfg.problems)
	}
}

func TestCheckValues_ReportsInvalidValue(t *testing.T) {
	for _, tt := range []struct {
		name string
		file string
		want string
	}{
		{"a node id with a slash", "node_id: a/b", "node_id"},
		{"an address without a port", "api_addr: localhost", `api_addr: got "localhost", want host:port or :port`},
		{"a port out of range", "gossip_addr: ':99999'", "want a port from 1 to 65535"},
		{"two listeners on one port", "cluster_addr: 127.0.0.1:8443", "127.0.0.1:8443 uses the port of api_addr, :8443"},
		{"an advertised address without a host", "cluster_advertise: 0.0.0.0:7443", "has no reachable host"},
		{"port 0", "cluster_addr: ':0'", "cannot advertise port 0"},
		{"an issuer with a query", "issuer: https://a.example?x=1", "want a URL without query"},
		{"an issuer without TLS", "issuer: http://a.example", "want an https URL"},
		{"an API URL without TLS", "api_advertise: http://a.example", "want an https URL"},
		{"metadata that the server generates", "\nmetadata_extra: {issuer: 'https://a.example'}",
			"revoked.yml:2: metadata_extra: issuer cannot be set"},
		{"a lease of zero", "lease_duration: 0s", "want 500ms to 1m0s"},
		{"a cut-off kept shorter than late registrations", "cutoff_retention: 1h\nlate_registration_window: 2h",
			"cutoff_retention must not be shorter than late_registration_window"},
		{"elections shorter than heartbeats", "election_timeout: 100ms", "less than heartbeat_timeout"},
		{"a proxy for key sets without a scheme", "jwks_proxy: proxy.example:3128", "jwks_proxy: want a URL such as"},
		{"a proxy for key sets of another kind", "jwks_proxy: 'socks5://proxy.example'", "jwks_proxy: want a URL such as"},
		{"bootstrap_expect without join", "bootstrap_expect: 3", "cannot find each other without join"},
		{"a bootstrapping node that does not vote", "bootstrap_expect: 1\nnon_voter: true", "votes"},
		{"a peer without a port", "join: [node2]", "want host:port"},
		{"a budget of zero", "misses_per_second: 0", "got 0, want 1 or more"},
		{"no feeds", "feed_limit_per_client: 0", "got 0, want 1 or more"},
		{"a tiny spool", "spool_limit_per_request: 1000", "got 1000 bytes, want 1MiB or more"},
		{"a spool smaller than that of a request", "spool_limit: 1MiB", "less than spool_limit_per_request"},
		{"an origin with a path", "cors_origins: [https://a.example/x]", "want an origin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := loadWith(t, nil, nil, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Derive(func() (string, error) { return "box", nil })
			cfg.CheckValues()
			if err := cfg.err(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestCheckDataDir_ReportsUnusableDir(t *testing.T) {
	left, other, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "data")
	for name, text := range map[string]string{filepath.Join(left, "identity.json"): `{"cluster_id":"c","left":true}`,
		filepath.Join(other, "identity.json"): `{"node_id":"n2"}`, file: "x"} {
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
		{filepath.Join(file, "below"), false, "is below a file"},
		{filepath.Join(left, "new"), false, ""},
		{other, false, `wrong node (got "n2", want node_id "n1")`},
	} {
		c := &Config{Settings: Settings{NodeID: "n1", DataDir: tt.dir, Rejoin: tt.rejoin}}
		c.checkDataDir()
		got := c.problems
		if (len(got) > 0) != (tt.want != "") || len(got) > 0 && !strings.Contains(got[0].Text, tt.want) {
			t.Errorf("%s: got %v, want %q", tt.dir, got, tt.want)
		}
	}
}

func TestParseYAML_SyntaxError_NamesLine(t *testing.T) {
	// The library reports the line of the mistake or the line before it.
	for text, want := range map[string]string{
		"node_id: a\nregion: b\nlog_level: debug\njoin [a]\napi_addr: :1\n": "line 4: ",
		"node_id: a\nregion: b\njoin: [a, b\napi_addr: :1\n":                "line 2: ",
		"node_id: a\nregion: b\n\tjoin: [a]\n":                              "line 2: ",
		"node_id: a\nregion: b\n join: [a]\n":                               "line 3: ",
		"a: 1\n---\nb: 2\n":                                                 "more than one YAML document",
	} {
		if _, err := parseYAML([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestParseSize_AcceptsWholeNumbersWithUnits(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "64": 64, "+7": 7, "64B": 64, "64 KiB": 64 << 10, " 2MiB": 2 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40,
		"5kB": 5e3, "5KB": 5e3, "5MB": 5e6, "5GB": 5e9, "5TB": 5e12,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1.5GiB", "64mib", "64M", "64 ", "1,000", "64PiB", "GiB", "9999999999TiB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestBootstrapWarning_ComparesJoinAndExpect(t *testing.T) {
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
		c := &Config{Settings: Settings{BootstrapExpect: tt.expect, Join: tt.join, ClusterAdvertise: "self:1"}}
		if got := c.bootstrapWarning(); (got == "") != tt.right {
			t.Errorf("%d of %v: got %q, want right %t", tt.expect, tt.join, got, tt.right)
		}
	}
}

func TestWarnReadable_WorldReadableKey_Warns(t *testing.T) {
	name := filepath.Join(t.TempDir(), "api.key")
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
		f := &Files{}
		if f.warnReadable(name); len(f.Warnings) != want {
			t.Errorf("%v: got %v, want %d warnings", mode, f.Warnings, want)
		}
	}
}

func TestSampleFile_HasEveryKeyAndDefault(t *testing.T) {
	name := filepath.Join("..", "..", "..", "..", "deploy", "revoked.sample.yml")
	values, problems, err := readFile(name, "")
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	for _, s := range Table() {
		if _, ok := values[s.Key]; !ok {
			t.Errorf("the sample lacks %s", s.Key)
		}
	}
	cfg, err := (&Flags{File: name}).Read(func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Derive(os.Hostname)
	cfg.CheckValues()
	if err := cfg.err(); err != nil {
		t.Error(err)
	}
	defaults, err := loadWith(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := defaults.table()
	for i, s := range cfg.table() {
		got, ok := s.field.(*time.Duration)
		if ok && *got != *want[i].field.(*time.Duration) {
			t.Errorf("%s: got %v in the sample, want the default", s.Key, *got)
		}
	}
}

func FuzzReadFile(f *testing.F) {
	for _, seed := range []string{"", "node_id: a", "join: [a, b]\n", "metadata_extra: {a: {b: [1]}}", "a: &x [*x]",
		"? [a]\n: b", "- a", "---\n---\n",
		"check_networks: {10.0.0.0/8: [a], &x ::1: *x}", "check_networks: [&y [*y]]", "node_id: !!binary aGk="} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := parseYAML(data)
		if err != nil || root == nil {
			return
		}
		values, _ := parseKeys("f.yml", "", root)
		for _, s := range Table() {
			if v, ok := values[s.Key]; ok {
				_ = value{node: v.node}.parse(s.field) // must not panic
			}
		}
	})
}

// The bootstrap files are used only once. Afterwards a missing or unusable file must not keep a
// member from starting, because the manual recommends deleting the secret.
func TestLoadClients_Member_NeedsNoBootstrapFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	good := write("good", "\ufeff0123456789abcdef0123456789abcdef\r\n")
	for name, tt := range map[string]struct {
		secret, clients string
		clientsLoaded   int
		want            string
	}{
		"good":            {good, "", 1, ""},
		"secret missing":  {filepath.Join(dir, "none"), "", 0, "no such file"},
		"secret short":    {write("short", "hunter2"), "", 0, "7 bytes"},
		"clients missing": {good, filepath.Join(dir, "none.yml"), 1, "no such file"},
		"clients broken":  {good, write("bad.yml", "- {client_id: a, roles: [root]}"), 1, "client 1"},
	} {
		for _, identity := range []string{"", `{"cluster_id":"c-1"}`, `{"cluster_id":"c-1","left":true}`} {
			data := t.TempDir()
			if identity != "" {
				if err := os.WriteFile(filepath.Join(data, "identity.json"), []byte(identity), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := &Config{Settings: Settings{DataDir: data, BootstrapAdminSecretFile: tt.secret,
				BootstrapClientsFile: tt.clients}}
			f := &Files{}
			c.loadClients(f)
			isMember := identity == `{"cluster_id":"c-1"}`
			if got := len(c.problems) > 0; got != (tt.want != "" && !isMember) {
				t.Errorf("%s, identity %q: got problems %v, want some: %t", name, identity, c.problems, !got)
			}
			text := fmt.Sprint(c.problems, f.Warnings)
			if !strings.Contains(text, tt.want) || strings.Contains(text, "hunter2") {
				t.Errorf("%s, identity %q: got %s, want %q", name, identity, text, tt.want)
			}
			if isMember && tt.want != "" && !strings.Contains(text, "ignored, because this node is in a cluster") {
				t.Errorf("%s: got %s, want a warning with the reason", name, text)
			}
			if len(f.Clients) != tt.clientsLoaded {
				t.Errorf("%s: got %d clients, want %d", name, len(f.Clients), tt.clientsLoaded)
			}
		}
	}
}
