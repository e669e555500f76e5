// Package config reads and checks the settings of a node.
//
// Every setting is a row of one table. Its flag, its variable and its key in the file follow from
// its name. A flag overrides a variable, a variable overrides the file, the file overrides the
// default. [Load] reports all problems together, each with the place where the setting was written.
//
// No error quotes a secret. The package writes no file, and opens a port only during a check.
package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"revoked"
)

// Settings has the values of all settings of one node: from flags, the environment, the
// configuration file and the defaults.
type Settings struct {
	NodeID, Region, DataDir string
	Issuer                  string
	MetadataExtra           map[string]any

	APIAddr, APIAdvertise, APICert, APIKey, APIClientCA               string
	ClusterAddr, ClusterAdvertise, ClusterCA, ClusterCert, ClusterKey string
	ClusterCAKey                                                      string // empty: this node signs no certificates
	GossipAddr, GossipAdvertise, GossipKeyFile                        string
	MetricsAddr                                                       string

	BootstrapAdminSecretFile, BootstrapClientsFile string
	BootstrapExpect                                int
	Join                                           []string
	JoinTokenFile                                  string
	NonVoter, Rejoin                               bool

	RequireHTTPS, RequirePost bool
	CORSOrigins               []string
	TrustedProxies            []netip.Prefix
	CheckNetworks             map[netip.Prefix][]string // audiences of each network
	MetricsNetworks           []netip.Prefix
	Pprof                     bool // profiles at MetricsAddr
	Console                   bool // pages at /ui

	// Fetches of key sets of trusted issuers.
	JWKSCAFile        string
	JWKSAllowNetworks []netip.Prefix
	JWKSProxy         string // URL; empty: none

	// Replicated is used only at bootstrap: after that PATCH /v1/settings changes it.
	Replicated revoked.Settings

	HeartbeatTimeout, ElectionTimeout, RequestTimeout time.Duration
	ShutdownDelay, ShutdownTimeout                    time.Duration

	CacheSize, StoreCacheSize              int64 // bytes; 0: a share of the memory
	AuthFailuresPerMinute, MissesPerSecond int
	FeedLimit, FeedLimitPerClient          int
	BulkLimit, BulkLimitPerClient          int
	TempDir                                string // empty: the system's
	SpoolLimit, SpoolLimitPerRequest       int64  // bytes
	PublicRevocationsPerMinute             int
	LogLevel, LogFormat                    string
	AuditLog                               string // Stderr or a path; empty: none

	// Spans of requests. Empty endpoint: none.
	TracesEndpoint, TracesCAFile string
	TracesSample                 float64 // share of the requests, 0 to 1
	TracesNetworks               []netip.Prefix

	// Scheduled backups. Schedule and directory must be set together.
	BackupSchedule, BackupDir string
	BackupKeep                int

	// The bucket that backups are copied to. Endpoint and bucket must be set together.
	BackupS3Endpoint, BackupS3Bucket, BackupS3Prefix, BackupS3Region string
	BackupS3AccessKeyFile, BackupS3SecretKeyFile, BackupS3CAFile     string
	BackupS3PathStyle                                                bool

	// Limits of the API port. The value 0 means a default: it depends on the memory
	// of the machine, or on the limit for all callers.
	MaxConnections, MaxConnectionsPerAddress                 int
	MaxRequests, MaxRequestsPerAddress, MaxRequestsPerClient int
}

// A Setting is one row of the table.
type Setting struct {
	Key      string        // key in the settings file
	Default  string        // as written in a file; empty if it is computed or absent
	help     string        // one line, no full stop
	field    any           // pointer to the field; its type decides how a value is parsed
	Min, Max time.Duration // bounds of a duration, both inclusive; a number has a minimum only
}

// Flag returns the name of the setting's flag: "node-id".
func (s Setting) Flag() string { return strings.ReplaceAll(s.Key, "_", "-") }

// Variable returns the name of the environment variable of a setting: "REVOKED_NODE_ID".
func Variable(key string) string { return "REVOKED_" + strings.ToUpper(key) }

// Table returns every setting, in the order of the sample file.
func Table() []Setting { return new(Settings).table() }

func (s *Settings) table() []Setting {
	return slices.Concat(s.network(), s.replicated(), s.local(), s.backup())
}

func (s *Settings) network() []Setting {
	return []Setting{
		{"node_id", "", "name of this node, unique in the cluster (default: the host name)", &s.NodeID, 0, 0},
		{"region", "default", "location of this node: shown, labeled in metrics, used to spread voters", &s.Region, 0, 0},
		{"data_dir", "./data", "directory of the log and the store", (*path)(&s.DataDir), 0, 0},
		{"issuer", "", "issuer of RFC 8414, the same on every node (default: https:// and the advertised API address)",
			&s.Issuer, 0, 0},
		{"metadata_extra", "", "a map merged into the RFC 8414 document (flag and variable: as JSON)",
			&s.MetadataExtra, 0, 0},
		{"api_addr", ":8443", "address the API listens on", &s.APIAddr, 0, 0},
		{"api_advertise", "", "host:port or https URL of the API for others (default: api_addr with the host name)",
			&s.APIAdvertise, 0, 0},
		{"api_cert", "", "certificate of the API, PEM", (*path)(&s.APICert), 0, 0},
		{"api_key", "", "private key of api_cert, PEM", (*path)(&s.APIKey), 0, 0},
		{"api_client_ca", "", "CA that must have issued the certificate of a caller that presents one, PEM",
			(*path)(&s.APIClientCA), 0, 0},
		{"metrics_addr", "", "address of a plain HTTP listener with /livez, /readyz, /metrics (default: on the API port)",
			&s.MetricsAddr, 0, 0},
		{"metrics_networks", "0.0.0.0/0,::/0",
			"networks that may read /metrics without credentials; others need a client with the role viewer",
			&s.MetricsNetworks, 0, 0},
		{"pprof", "false", "serve profiles of the program to administrators, at metrics_addr", &s.Pprof, 0, 0},
		{"console", "false", "serve pages for operators at /ui of the API port", &s.Console, 0, 0},
		{"require_https", "true", "refuse plain HTTP on the API port", &s.RequireHTTPS, 0, 0},
		{"require_post", "true", "refuse GET at the OAuth endpoints", &s.RequirePost, 0, 0},
		{"cors_origins", "", "origins that browsers may call the OAuth endpoints from", &s.CORSOrigins, 0, 0},
		{"trusted_proxies", "", "networks whose X-Forwarded-For is trusted", &s.TrustedProxies, 0, 0},
		{"check_networks", "",
			"networks that may call /v1/check without credentials, with audiences: NETWORK[=AUDIENCE]",
			&s.CheckNetworks, 0, 0},
		{"jwks_ca_file", "", "CA of the servers with key sets of trusted issuers, PEM (default: the system's)",
			(*path)(&s.JWKSCAFile), 0, 0},
		{"jwks_allow_networks", "", "networks beyond the public ones that key sets may be fetched from",
			&s.JWKSAllowNetworks, 0, 0},
		{"jwks_proxy", "", "URL of the HTTP proxy that key sets are fetched through", &s.JWKSProxy, 0, 0},
		{"cluster_addr", ":7443", "address of the port for other nodes", &s.ClusterAddr, 0, 0},
		{"cluster_advertise", "", "host:port of cluster_addr for others (default: cluster_addr with the host name)",
			&s.ClusterAdvertise, 0, 0},
		{"cluster_ca", "", "CA of the nodes, PEM (default with join_token_file: tls/ca.crt below data_dir)",
			(*path)(&s.ClusterCA), 0, 0},
		{"cluster_cert", "", "certificate that names this node, PEM (default with join_token_file: tls/node.crt)",
			(*path)(&s.ClusterCert), 0, 0},
		{"cluster_key", "", "private key of cluster_cert, PEM (default with join_token_file: tls/node.key)",
			(*path)(&s.ClusterKey), 0, 0},
		{"cluster_ca_key", "", "private key of a CA in cluster_ca: this node signs certificates of nodes with join tokens",
			(*path)(&s.ClusterCAKey), 0, 0},
		{"gossip_addr", ":7946", "address gossip listens on, TCP and UDP", &s.GossipAddr, 0, 0},
		{"gossip_advertise", "",
			"host:port of gossip_addr for others (default: gossip_addr with the host of cluster_advertise)",
			&s.GossipAdvertise, 0, 0},
		{"gossip_key_file", "", "key of the gossip, the same on every node; made by revoked keygen",
			(*path)(&s.GossipKeyFile), 0, 0},
		{"bootstrap_expect", "0", "number of nodes that bootstrap the cluster together; ignored once a member",
			&s.BootstrapExpect, 0, 0},
		{"join", "", "cluster addresses of nodes to find the cluster through", &s.Join, 0, 0},
		{"join_token_file", "", "file with the join token that admits this node; made by revoked join-token create",
			(*path)(&s.JoinTokenFile), 0, 0},
		{"non_voter", "false", "answer introspections and forward writes, but never vote", &s.NonVoter, 0, 0},
		{"rejoin", "false", "start again from the data of a node that left, as a new member", &s.Rejoin, 0, 0},
		{"bootstrap_admin_secret_file", "", "file with the secret of the first administrator, client id \"admin\"",
			(*path)(&s.BootstrapAdminSecretFile), 0, 0},
		{"bootstrap_clients_file", "", "YAML or JSON list of the first clients", (*path)(&s.BootstrapClientsFile), 0, 0},
	}
}

// replicated returns a row for each rule of the root package.
func (s *Settings) replicated() []Setting {
	help := map[string]string{
		"lease_duration":           "how long a node may answer from its copy without calling the leader",
		"late_registration_window": "how long a revoked unknown token is remembered",
		"cutoff_retention":         "how long a cut-off is kept",
		"max_clock_skew":           "how far a node's clock may be off before it loses its lease",
		"secret_grace":             "how long a rotated client secret remains valid",
		"audit_retention":          "how long an audit entry is kept",
		"audit_max_entries":        "audit entries that are kept",
	}
	var t []Setting
	defaults := revoked.DefaultSettings()
	for _, r := range revoked.SettingRules() {
		t = append(t, Setting{
			r.Name, r.Format(r.Value(&defaults)), help[r.Name] + " (replicated)", r.Field(&s.Replicated),
			time.Duration(r.Min), time.Duration(r.Max),
		})
	}
	return t
}

func (s *Settings) local() []Setting {
	return []Setting{
		{"heartbeat_timeout", "500ms", "silence of the leader after which a node becomes a candidate",
			&s.HeartbeatTimeout, 10 * time.Millisecond, time.Minute},
		{"election_timeout", "500ms", "how long a candidate waits for votes",
			&s.ElectionTimeout, 10 * time.Millisecond, time.Minute},
		{"request_timeout", "5s", "how long a request may wait for the cluster",
			&s.RequestTimeout, 100 * time.Millisecond, 10 * time.Minute},
		{"shutdown_delay", "5s", "how long a stopping node continues to serve while /readyz answers 503",
			&s.ShutdownDelay, 0, 10 * time.Minute},
		{"shutdown_timeout", "15s", "how long a clean shutdown may take after shutdown_delay",
			&s.ShutdownTimeout, 100 * time.Millisecond, time.Hour},
		{"cache_size", "0", "bytes of the record cache, such as 64MiB (0: a share of the memory of the machine or container)",
			(*size)(&s.CacheSize), 0, 0},
		{"store_cache_size", "0", "bytes of the store's block cache (0: a share of the memory)",
			(*size)(&s.StoreCacheSize), 0, 0},
		{"auth_failures_per_minute", "60", "failed authentications of one client id before 429",
			&s.AuthFailuresPerMinute, 1, 0},
		{"misses_per_second", "2000", "introspections of unknown tokens by one client before 429", &s.MissesPerSecond, 1, 0},
		{"public_revocations_per_minute", "30",
			"revocations of unknown tokens by one public client from one address before 429",
			&s.PublicRevocationsPerMinute, 1, 0},
		{"max_connections", "0", "open connections of the API port (0: by memory, 1,000 to 10,000)", &s.MaxConnections, 0, 0},
		{"max_connections_per_address", "0", "open connections of one address outside trusted_proxies (0: a quarter)",
			&s.MaxConnectionsPerAddress, 0, 0},
		{"max_requests", "0", "requests in progress before 503 (0: by memory, 1,000 to 10,000)", &s.MaxRequests, 0, 0},
		{"max_requests_per_address", "0", "requests in progress of one address outside trusted_proxies (0: a quarter)",
			&s.MaxRequestsPerAddress, 0, 0},
		{"max_requests_per_client", "0", "requests in progress of one client before 429 (0: a half)",
			&s.MaxRequestsPerClient, 0, 0},
		{"feed_limit", "1000", "open feeds of all clients before 429", &s.FeedLimit, 1, 0},
		{"feed_limit_per_client", "100", "open feeds of one client before 429", &s.FeedLimitPerClient, 1, 0},
		{"bulk_limit", "16", "concurrent bulk registrations of all clients before 429", &s.BulkLimit, 1, 0},
		{"bulk_limit_per_client", "4", "concurrent bulk registrations of one client before 429", &s.BulkLimitPerClient, 1, 0},
		{"temp_dir", "", "directory for results that callers of bulk registrations have not read (default: TMPDIR or /tmp)",
			(*path)(&s.TempDir), 0, 0},
		{"spool_limit", "512MiB", "total bytes of unread results of bulk registrations", (*size)(&s.SpoolLimit), 0, 0},
		{"spool_limit_per_request", "64MiB", "bytes of unread results of one request; then the node waits for the caller",
			(*size)(&s.SpoolLimitPerRequest), 0, 0},
		{"log_level", "info", "debug, info, warn or error",
			choice{&s.LogLevel, []string{"debug", "info", "warn", "error"}}, 0, 0},
		{"log_format", "text", "text or json", choice{&s.LogFormat, []string{"text", "json"}}, 0, 0},
		{"traces_endpoint", "", "URL of an OpenTelemetry collector that spans are sent to, OTLP over HTTP (default: none)",
			&s.TracesEndpoint, 0, 0},
		{"traces_sample", "0.1", "share of the new traces that are recorded, 0 to 1", &s.TracesSample, 0, 0},
		{"traces_ca_file", "", "CA of the collector, PEM (default: the system's)", (*path)(&s.TracesCAFile), 0, 0},
		{"traces_networks", "", "networks of callers whose traceparent is continued, including its decision to sample",
			&s.TracesNetworks, 0, 0},
		{"audit_log", "", "file to append the audit log to as JSON lines, or \"stderr\" (default: none)",
			(*destination)(&s.AuditLog), 0, 0},
	}
}

func (s *Settings) backup() []Setting {
	return []Setting{
		{"backup_schedule", "", "when this node makes a backup: an interval such as 1h, or a cron expression in UTC " +
			"such as \"17 3 * * *\" (default: never)", &s.BackupSchedule, 0, 0},
		{"backup_dir", "", "directory of the backups; it must exist", (*path)(&s.BackupDir), 0, 0},
		{"backup_keep", "24", "how many backups are kept in the directory, and in the bucket", &s.BackupKeep, 1, 0},
		{"backup_s3_endpoint", "", "URL of an S3 service that backups are copied to", &s.BackupS3Endpoint, 0, 0},
		{"backup_s3_bucket", "", "bucket for the copies", &s.BackupS3Bucket, 0, 0},
		{"backup_s3_prefix", "", "prefix of the names in the bucket; different on every node", &s.BackupS3Prefix, 0, 0},
		{"backup_s3_region", "us-east-1", "region of the bucket", &s.BackupS3Region, 0, 0},
		{"backup_s3_access_key_file", "", "file with the access key (default: requests without a signature)",
			(*path)(&s.BackupS3AccessKeyFile), 0, 0},
		{"backup_s3_secret_key_file", "", "file with the secret key", (*path)(&s.BackupS3SecretKeyFile), 0, 0},
		{"backup_s3_ca_file", "", "CA of the S3 service, PEM (default: the system's)", (*path)(&s.BackupS3CAFile), 0, 0},
		{"backup_s3_path_style", "true", "put the name of the bucket into the path, not into the host name",
			&s.BackupS3PathStyle, 0, 0},
	}
}
