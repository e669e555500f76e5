package main

import (
	"net/netip"
	"strings"
	"time"
)

// Settings are what a node was told, by the command line, the environment, the file and the defaults.
// One table, settingsTable, names them all; flags, variables and file keys are derived from it.
type settings struct {
	NodeID  string
	Region  string
	DataDir string

	Issuer        string
	MetadataExtra map[string]any

	APIAddr, APIAdvertise, APICert, APIKey, APIClientCA                  string
	ClusterAddr, ClusterAdvertise, ClusterCA, ClusterCert, ClusterKey    string
	GossipAddr, GossipAdvertise, GossipKeyFile                           string
	MetricsAddr                                                          string
	BootstrapAdminSecretFile, BootstrapClientsFile                       string
	BootstrapExpect                                                      int
	Join                                                                 []string
	NonVoter, Rejoin                                                     bool
	RequireHTTPS, RequirePost                                            bool
	CORSOrigins                                                          []string
	TrustedProxies, CheckNetworks                                        []netip.Prefix
	LeaseDuration, LateRegistrationWindow, CutoffRetention, MaxClockSkew time.Duration
	SecretGrace                                                          time.Duration
	HeartbeatTimeout, ElectionTimeout, RequestTimeout, ShutdownTimeout   time.Duration
	CacheSize, StoreCacheSize                                            int64
	AuthFailuresPerMinute, MissesPerSecond                               int
	LogLevel, LogFormat                                                  string
}

// A setting is one row of the table.
type setting struct {
	key  string // of the file; the flag and the variable follow from it
	def  string // as it would be written; empty: none, or computed as help says
	help string // one line, no full stop
	into func(*settings) value
}

// flag returns the name of the setting's flag: "node-id".
func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }

// env returns the name of the setting's variable: "REVOKED_NODE_ID".
func (s setting) env() string { return "REVOKED_" + strings.ToUpper(s.key) }

// settingsTable returns every setting, in the order of the sample file.
func settingsTable() []setting {
	var t []setting
	t = append(t, identitySettings()...)
	t = append(t, apiSettings()...)
	t = append(t, clusterSettings()...)
	t = append(t, replicatedSettings()...)
	return append(t, localSettings()...)
}

func identitySettings() []setting {
	return []setting{
		{"node_id", "", "name of this node, unique in the cluster (default: the host name)", func(c *settings) value { return text(&c.NodeID) }},
		{"region", "default", "where this node is: shown, labelled in metrics, used to spread voters", func(c *settings) value { return text(&c.Region) }},
		{"data_dir", "./data", "directory of the log and the store", func(c *settings) value { return path(&c.DataDir) }},
		{"issuer", "", "issuer of RFC 8414, the same on every node (default: https:// and the advertised API address)", func(c *settings) value { return text(&c.Issuer) }},
		{"metadata_extra", "", "a map merged into the RFC 8414 document (flag and variable: as JSON)", func(c *settings) value { return mapping(&c.MetadataExtra) }},
	}
}

func apiSettings() []setting {
	return []setting{
		{"api_addr", ":8443", "address the API listens on", func(c *settings) value { return text(&c.APIAddr) }},
		{"api_advertise", "", "host:port or https URL at which others reach the API (default: api_addr, or the host name and its port)", func(c *settings) value { return text(&c.APIAdvertise) }},
		{"api_cert", "", "certificate of the API, PEM", func(c *settings) value { return path(&c.APICert) }},
		{"api_key", "", "private key of api_cert, PEM", func(c *settings) value { return path(&c.APIKey) }},
		{"api_client_ca", "", "callers that present a certificate must have it from this CA, PEM", func(c *settings) value { return path(&c.APIClientCA) }},
		{"metrics_addr", "", "address of a second, plain HTTP listener with /livez, /readyz and /metrics (default: they are on the API port)", func(c *settings) value { return text(&c.MetricsAddr) }},
		{"require_https", "true", "refuse plain HTTP on the API port", func(c *settings) value { return boolean(&c.RequireHTTPS) }},
		{"require_post", "true", "refuse GET at the OAuth endpoints", func(c *settings) value { return boolean(&c.RequirePost) }},
		{"cors_origins", "", "origins that browsers may call the OAuth endpoints from", func(c *settings) value { return list(&c.CORSOrigins) }},
		{"trusted_proxies", "", "networks whose X-Forwarded-For is believed", func(c *settings) value { return networks(&c.TrustedProxies) }},
		{"check_networks", "", "networks that may call /v1/check without credentials", func(c *settings) value { return networks(&c.CheckNetworks) }},
	}
}

func clusterSettings() []setting {
	return []setting{
		{"cluster_addr", ":7443", "address the nodes' own port listens on", func(c *settings) value { return text(&c.ClusterAddr) }},
		{"cluster_advertise", "", "host:port at which other nodes reach cluster_addr (default: cluster_addr, or the host name and its port)", func(c *settings) value { return text(&c.ClusterAdvertise) }},
		{"cluster_ca", "", "CA of the nodes, PEM", func(c *settings) value { return path(&c.ClusterCA) }},
		{"cluster_cert", "", "certificate that names this node, PEM", func(c *settings) value { return path(&c.ClusterCert) }},
		{"cluster_key", "", "private key of cluster_cert, PEM", func(c *settings) value { return path(&c.ClusterKey) }},
		{"gossip_addr", ":7946", "address gossip listens on, TCP and UDP", func(c *settings) value { return text(&c.GossipAddr) }},
		{"gossip_advertise", "", "host:port at which other nodes reach gossip_addr (default: gossip_addr, or the host of cluster_advertise and its port)", func(c *settings) value { return text(&c.GossipAdvertise) }},
		{"gossip_key_file", "", "key of the gossip, the same on every node; made by revoked keygen", func(c *settings) value { return path(&c.GossipKeyFile) }},
		{"bootstrap_expect", "0", "how many nodes start the cluster together; ignored once a member", func(c *settings) value { return integer(&c.BootstrapExpect) }},
		{"join", "", "cluster addresses of nodes to find the cluster through", func(c *settings) value { return list(&c.Join) }},
		{"non_voter", "false", "answer and forward, but never vote", func(c *settings) value { return boolean(&c.NonVoter) }},
		{"rejoin", "false", "start again from the data of a node that left, as a new member", func(c *settings) value { return boolean(&c.Rejoin) }},
		{"bootstrap_admin_secret_file", "", "file with the secret of the first administrator, client id \"admin\"", func(c *settings) value { return path(&c.BootstrapAdminSecretFile) }},
		{"bootstrap_clients_file", "", "YAML or JSON list of the first clients", func(c *settings) value { return path(&c.BootstrapClientsFile) }},
	}
}

// replicatedSettings only count when the cluster is made; after that PATCH /v1/settings changes them.
func replicatedSettings() []setting {
	return []setting{
		{"lease_duration", "2s", "how long a node may answer from its copy without asking the leader (replicated)", func(c *settings) value { return duration(&c.LeaseDuration) }},
		{"late_registration_window", "1h", "how long a revoked unknown token is remembered (replicated)", func(c *settings) value { return duration(&c.LateRegistrationWindow) }},
		{"cutoff_retention", "9600h", "how long a cut-off is kept (replicated)", func(c *settings) value { return duration(&c.CutoffRetention) }},
		{"max_clock_skew", "5s", "how far a node's clock may be off before it loses its lease (replicated)", func(c *settings) value { return duration(&c.MaxClockSkew) }},
		{"secret_grace", "24h", "how long a rotated client secret lives on (replicated)", func(c *settings) value { return duration(&c.SecretGrace) }},
	}
}

func localSettings() []setting {
	return []setting{
		{"heartbeat_timeout", "500ms", "without a word from the leader for so long a node stands for election", func(c *settings) value { return duration(&c.HeartbeatTimeout) }},
		{"election_timeout", "500ms", "how long a candidate waits for votes", func(c *settings) value { return duration(&c.ElectionTimeout) }},
		{"request_timeout", "5s", "how long a request may wait for the cluster", func(c *settings) value { return duration(&c.RequestTimeout) }},
		{"shutdown_timeout", "15s", "how long an orderly stop may take", func(c *settings) value { return duration(&c.ShutdownTimeout) }},
		{"cache_size", "0", "bytes of the cache of records, as 64MiB (0: by the memory of the machine or container)", func(c *settings) value { return size(&c.CacheSize) }},
		{"store_cache_size", "0", "bytes of the store's block cache (0: by memory)", func(c *settings) value { return size(&c.StoreCacheSize) }},
		{"auth_failures_per_minute", "60", "failed authentications of one client id before 429", func(c *settings) value { return integer(&c.AuthFailuresPerMinute) }},
		{"misses_per_second", "2000", "introspections of unknown tokens by one client before 429", func(c *settings) value { return integer(&c.MissesPerSecond) }},
		{"log_level", "info", "debug, info, warn or error", func(c *settings) value { return choice(&c.LogLevel, "debug", "info", "warn", "error") }},
		{"log_format", "text", "text or json", func(c *settings) value { return choice(&c.LogFormat, "text", "json") }},
	}
}
