package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"revoked"
	"revoked/api"
	"revoked/cmd/revoked/internal/traces"
	"revoked/transport/pki"
)

// Load reads and checks the settings and every file that they name. The error is an [*Error] with
// all problems, unless the configuration file cannot be read. The config is never nil.
func Load(flags *Flags) (*Config, *Files, error) {
	c, err := flags.Read(os.LookupEnv)
	var unparsed *Error
	if err != nil && !errors.As(err, &unparsed) {
		return c, nil, err
	}
	c.Derive(os.Hostname)
	if unparsed == nil { // otherwise values that were not parsed are zero and would be reported again
		c.CheckValues()
	}
	f := c.loadFiles()
	for _, v := range UnknownVariables(os.Environ()) {
		f.Warnings = append(f.Warnings, v.String())
	}
	c.problems = slices.Compact(c.problems)
	return c, f, c.err()
}

// minSpool is the smallest spool of one request, in bytes.
const minSpool = 1 << 20

// CheckValues adds a problem for each invalid value. It reads no file.
func (c *Config) CheckValues() {
	c.add("node_id", pki.CheckNodeID(c.NodeID))
	c.add("issuer", checkIssuer(c.Issuer, c.RequireHTTPS))
	c.checkBounds()
	c.addIf(c.DataDir == "", "data_dir", "is empty")
	c.addIf(c.ElectionTimeout < c.HeartbeatTimeout, "election_timeout",
		"%v is less than heartbeat_timeout, %v", c.ElectionTimeout, c.HeartbeatTimeout)
	c.addIf(c.BootstrapExpect > 1 && len(c.Join) == 0, "bootstrap_expect",
		"%d nodes cannot find each other without join: list their cluster addresses, the same on every node",
		c.BootstrapExpect)
	c.addIf(c.BootstrapExpect > 0 && c.NonVoter, "non_voter",
		"a node that bootstraps the cluster (bootstrap_expect %d) always votes", c.BootstrapExpect)
	c.addIf(c.SpoolLimitPerRequest < minSpool, "spool_limit_per_request", "got %d bytes, want 1MiB or more",
		c.SpoolLimitPerRequest)
	c.addIf(c.SpoolLimit < c.SpoolLimitPerRequest, "spool_limit",
		"%d bytes are less than spool_limit_per_request, %d", c.SpoolLimit, c.SpoolLimitPerRequest)
	for _, name := range api.MetadataMembers() {
		_, set := c.MetadataExtra[name]
		c.addIf(set, "metadata_extra", "%s cannot be set: the server computes it", name)
	}
	for _, a := range c.Join {
		c.add("join", checkAdvertised(a))
	}
	for _, o := range c.CORSOrigins {
		if u, err := url.Parse(o); err != nil || o != "*" && (u.Scheme == "" || u.Host == "" || u.Path != "") {
			c.addf("cors_origins", "got %q, want an origin such as https://app.example", o)
		}
	}
	if _, err := c.JWKSProxyURL(); err != nil {
		c.add("jwks_proxy", err)
	}
	c.checkTraces()
	c.checkPorts()
	c.checkBackups()
}

// JWKSProxyURL returns the proxy of jwks_proxy, or nil. The error does not contain the value, which
// may include a password.
func (s *Settings) JWKSProxyURL() (*url.URL, error) {
	if s.JWKSProxy == "" {
		return nil, nil
	}
	u, err := url.Parse(s.JWKSProxy)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("want a URL such as http://proxy.example:3128")
	}
	return u, nil
}

// checkTraces adds a problem for each invalid setting of the traces. It reads no file.
func (c *Config) checkTraces() {
	c.addIf(c.TracesEndpoint == "" && c.TracesCAFile != "", "traces_ca_file", "has no effect without traces_endpoint")
	if c.TracesEndpoint != "" {
		_, err := traces.ParseEndpoint(c.TracesEndpoint)
		c.add("traces_endpoint", err)
	}
}

// checkBounds checks all durations and numbers, and the replicated settings as a whole.
func (c *Config) checkBounds() {
	before := len(c.problems)
	for _, s := range c.table() {
		switch p := s.field.(type) {
		case *time.Duration:
			c.addIf(*p < s.Min || *p > s.Max, s.Key, "got %v, want %v to %v", *p, s.Min, s.Max)
		case *int:
			c.addIf(*p < int(s.Min), s.Key, "got %d, want %d or more", *p, s.Min)
		}
	}
	if err := revoked.ValidateSettings(&c.Replicated); err != nil && len(c.problems) == before {
		c.addf("cutoff_retention", "%s", revoked.Detail(err))
	}
}

// checkIssuer checks an issuer identifier (RFC 8414 section 2): https, no query, no fragment.
func checkIssuer(s string, https bool) error {
	if s == "" {
		return nil // derived from an address that is itself invalid
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || https) {
		return fmt.Errorf("got %q, want an https URL", s)
	}
	if strings.ContainsAny(s, "?#") {
		return fmt.Errorf("got %q, want a URL without query and fragment", s)
	}
	return nil
}

// Warnings returns a warning for each setting that is valid but likely to be a mistake.
func (c *Config) Warnings() []string {
	var out []string
	warn := func(when bool, format string, args ...any) {
		if when {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	warn(c.origin["issuer"] == "default" && (len(c.Join) > 0 || c.BootstrapExpect > 1),
		"issuer is not set: each node publishes its own address in its RFC 8414 metadata; set one issuer on all nodes")
	lease := c.Replicated.LeaseDuration
	warn(c.RequestTimeout < lease+lease/20,
		"request_timeout %v is shorter than a lease (%v): "+
			"revocations get 503 while the lease of a failed node expires", c.RequestTimeout, lease)
	warn(!c.RequireHTTPS, "require_https is false: tokens and secrets may cross the network in the clear")
	if text := c.bootstrapWarning(); !IsMember(c.DataDir) {
		warn(text != "", "%s", text)
	}
	warn(c.SharesDisk(), "backup_dir is on the file system of data_dir: if that disk is lost, both are lost")
	warn(strings.HasPrefix(c.BackupS3Endpoint, "http:"),
		"backup_s3_endpoint is plain HTTP: backups, which show who had access to what, cross the network in the clear")
	warn(c.Pprof && c.MetricsAddr == "", "pprof has no effect without metrics_addr")
	for _, name := range [...]string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_HEADERS"} {
		_, set := os.LookupEnv(name)
		warn(set, "%s has no effect: use traces_endpoint and traces_sample", name)
	}
	for n := range c.CheckNetworks {
		warn(n.Bits() == 0, "check_networks allows every address to call /v1/check without credentials")
	}
	return out
}

// bootstrapWarning compares bootstrap_expect with the nodes in join. A mismatch is only a warning:
// the node still joins an existing cluster through one of them. Only cluster_advertise identifies
// this node, so join may have another address of this node.
func (c *Config) bootstrapWarning() string {
	if c.BootstrapExpect == 0 || len(c.Join) == 0 {
		return ""
	}
	named := slices.Compact(slices.Sorted(slices.Values(c.Join)))
	most := len(named)
	if !slices.Contains(named, c.ClusterAdvertise) {
		most++
	}
	if len(named) <= c.BootstrapExpect && c.BootstrapExpect <= most {
		return ""
	}
	return fmt.Sprintf("bootstrap_expect is %d, but join has %d nodes, at most %d with this one: "+
		"no cluster is bootstrapped until join has exactly those nodes, with the same addresses on each of them",
		c.BootstrapExpect, len(named), most)
}
