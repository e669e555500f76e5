package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"revoked/api"
	"revoked/transport"
)

// derive fills in what follows from other settings. hostname is os.Hostname.
func (c *config) derive(hostname func() (string, error)) []problem {
	host, err := hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	if c.NodeID == "" {
		c.NodeID = host
	}
	var problems []problem
	note := func(key string, err error) {
		if err != nil {
			problems = append(problems, problem{c.where(key), err.Error()})
		}
	}
	for _, key := range []struct {
		name string
		at   *string
	}{{"api_addr", &c.APIAddr}, {"cluster_addr", &c.ClusterAddr}, {"gossip_addr", &c.GossipAddr}} {
		note(key.name, checkAddress(*key.at))
	}
	if c.MetricsAddr != "" {
		note("metrics_addr", checkAddress(c.MetricsAddr))
	}
	if len(problems) > 0 {
		return problems // what follows is derived from them
	}
	c.ClusterAdvertise = orAddress(c.ClusterAdvertise, c.ClusterAddr, host)
	note("cluster_advertise", checkAdvertised(c.ClusterAdvertise))
	clusterHost, _, _ := net.SplitHostPort(c.ClusterAdvertise)
	c.GossipAdvertise = orAddress(c.GossipAdvertise, c.GossipAddr, clusterHost)
	note("gossip_advertise", checkAdvertised(c.GossipAdvertise))
	address, err := apiURL(orAddress(c.APIAdvertise, c.APIAddr, host), c.RequireHTTPS)
	note("api_advertise", err)
	c.APIAdvertise = address
	if c.Issuer == "" {
		c.Issuer = address
	}
	return problems
}

// orAddress returns advertise, or when it is empty the address listen, with host where listen names
// none.
func orAddress(advertise, listen, host string) string {
	if advertise != "" {
		return advertise
	}
	h, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if isAnyHost(h) {
		h = host
	}
	return net.JoinHostPort(h, port)
}

// apiURL returns the URL of an advertised API address.
func apiURL(s string, https bool) (string, error) {
	if !strings.Contains(s, "://") {
		if err := checkAdvertised(s); err != nil {
			return "", err
		}
		return "https://" + s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("want host:port or an https URL, not %q", s)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || https) {
		return "", fmt.Errorf("want an https URL, not %q", s)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// checkAddress tells whether s can be listened on.
func checkAddress(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("want host:port or :port, not %q", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("want a port from 0 to 65535, not %q", port)
	} else if n == 0 {
		return fmt.Errorf("port 0 is no address that others could be told")
	}
	return nil
}

// checkAdvertised tells whether s is an address that others can dial.
func checkAdvertised(s string) error {
	if err := checkAddress(s); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(s)
	if isAnyHost(host) {
		return fmt.Errorf("%q names no host that others could reach", s)
	}
	return nil
}

// checkValues checks the settings that were read and derived, without looking at any file.
func (c *config) checkValues() []problem {
	var problems []problem
	note := func(key, format string, args ...any) {
		problems = append(problems, problem{c.where(key), fmt.Sprintf(format, args...)})
	}
	if err := transport.CheckNodeID(c.NodeID); err != nil {
		note("node_id", "%v", err)
	}
	if c.DataDir == "" {
		note("data_dir", "is empty")
	}
	if err := checkIssuer(c.Issuer, c.RequireHTTPS); err != nil {
		note("issuer", "%v", err)
	}
	for _, name := range api.MetadataMembers() {
		if _, ok := c.MetadataExtra[name]; ok {
			note("metadata_extra", "%s is not yours to set: the server makes it itself", name)
		}
	}
	for _, d := range c.durations() {
		if d.value < d.least || d.value > d.most {
			note(d.key, "want %v to %v, not %v", d.least, d.most, d.value)
		}
	}
	if c.CutoffRetention < c.LateRegistrationWindow {
		note("cutoff_retention", "%v is less than late_registration_window, %v", c.CutoffRetention, c.LateRegistrationWindow)
	}
	if c.ElectionTimeout < c.HeartbeatTimeout {
		note("election_timeout", "%v is less than heartbeat_timeout, %v", c.ElectionTimeout, c.HeartbeatTimeout)
	}
	for _, n := range []struct {
		key          string
		value, least int
	}{{"bootstrap_expect", c.BootstrapExpect, 0}, {"auth_failures_per_minute", c.AuthFailuresPerMinute, 1}, {"misses_per_second", c.MissesPerSecond, 1}} {
		if n.value < n.least {
			note(n.key, "want %d or more, not %d", n.least, n.value)
		}
	}
	if c.BootstrapExpect > 1 && len(c.Join) == 0 {
		note("bootstrap_expect", "%d nodes cannot find each other without join: list their cluster addresses, the same on every node", c.BootstrapExpect)
	}
	if c.BootstrapExpect > 0 && c.NonVoter {
		note("non_voter", "a node that starts the cluster (bootstrap_expect %d) votes", c.BootstrapExpect)
	}
	for _, a := range c.Join {
		if err := checkAdvertised(a); err != nil {
			note("join", "%v", err)
		}
	}
	for _, o := range c.CORSOrigins {
		if u, err := url.Parse(o); err != nil || o != "*" && (u.Scheme == "" || u.Host == "" || u.Path != "") {
			note("cors_origins", "want an origin such as https://app.example, not %q", o)
		}
	}
	return append(problems, c.checkPorts()...)
}

// A bounded duration is a setting with the least and the most that make sense.
type boundedDuration struct {
	key                string
	value, least, most time.Duration
}

func (c *config) durations() []boundedDuration {
	return []boundedDuration{
		// The replicated ones: what PATCH /v1/settings takes as well.
		{"lease_duration", c.LeaseDuration, 500 * time.Millisecond, time.Minute},
		{"late_registration_window", c.LateRegistrationWindow, time.Second, 90 * day},
		{"cutoff_retention", c.CutoffRetention, time.Hour, 3650 * day},
		{"max_clock_skew", c.MaxClockSkew, 100 * time.Millisecond, 5 * time.Minute},
		{"secret_grace", c.SecretGrace, 0, 365 * day},
		{"heartbeat_timeout", c.HeartbeatTimeout, 10 * time.Millisecond, time.Minute},
		{"election_timeout", c.ElectionTimeout, 10 * time.Millisecond, time.Minute},
		{"request_timeout", c.RequestTimeout, 100 * time.Millisecond, 10 * time.Minute},
		{"shutdown_timeout", c.ShutdownTimeout, 100 * time.Millisecond, time.Hour},
	}
}

// checkIssuer holds an issuer to RFC 8414 section 2: https, no query, no fragment.
func checkIssuer(s string, https bool) error {
	if s == "" {
		return nil // derived from an address that has its own problem
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || https) {
		return fmt.Errorf("want an https URL, not %q", s)
	}
	if strings.ContainsAny(s, "?#") {
		return fmt.Errorf("an issuer has no query and no fragment: %q", s)
	}
	return nil
}

// checkPorts finds two listeners on one TCP port.
func (c *config) checkPorts() []problem {
	listeners := [][2]string{{"api_addr", c.APIAddr}, {"cluster_addr", c.ClusterAddr}, {"gossip_addr", c.GossipAddr}, {"metrics_addr", c.MetricsAddr}}
	var problems []problem
	for i, l := range listeners {
		for _, other := range listeners[:i] {
			if samePort(l[1], other[1]) {
				problems = append(problems, problem{c.where(l[0]), fmt.Sprintf("%s takes the port of %s, %s", l[1], other[0], other[1])})
			}
		}
	}
	return problems
}

// samePort tells whether one machine could not listen on both addresses.
func samePort(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && (isAnyHost(hostA) || isAnyHost(hostB) || hostA == hostB)
}

// isAnyHost tells whether a listener on that host takes every address of the machine.
func isAnyHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// warnings are things that are not wrong but that most people would want to know.
func (c *config) warnings() []string {
	var out []string
	if c.origin["issuer"] == "default" && (len(c.Join) > 0 || c.BootstrapExpect > 1) {
		out = append(out, "issuer is not set: each node names its own address in its RFC 8414 metadata; set one issuer on all nodes")
	}
	if bound := c.LeaseDuration + c.LeaseDuration/20; c.RequestTimeout < bound {
		out = append(out, fmt.Sprintf("request_timeout %v is shorter than a lease (%v): revocations answer 503 while the lease of a dead node runs out", c.RequestTimeout, c.LeaseDuration))
	}
	if !c.RequireHTTPS {
		out = append(out, "require_https is false: tokens and secrets may cross the network in the clear")
	}
	if text := c.founders(); text != "" && !isMember(c.DataDir) {
		out = append(out, text)
	}
	for _, n := range c.CheckNetworks {
		if n.Bits() == 0 {
			out = append(out, "check_networks lets every address call /v1/check without credentials")
		}
	}
	return out
}

// founders says what is wrong with the number of founders that join names; empty: nothing. It is no more than a
// warning: a node of join that is in a cluster takes this one in, whatever was expected. A node counts as named
// by its cluster_advertise only, so it may be one of join under another name.
func (c *config) founders() string {
	if c.BootstrapExpect == 0 || len(c.Join) == 0 {
		return ""
	}
	named := slices.Clone(c.Join)
	slices.Sort(named)
	named = slices.Compact(named)
	most := len(named)
	if !slices.Contains(named, c.ClusterAdvertise) {
		most++
	}
	if len(named) <= c.BootstrapExpect && c.BootstrapExpect <= most {
		return ""
	}
	return fmt.Sprintf("bootstrap_expect is %d, but join names %d nodes and this one makes it %d at most: no cluster is founded "+
		"until join names exactly the founders, the same on each of them", c.BootstrapExpect, len(named), most)
}

// A dataIdentity is what package node wrote of itself into a data directory. It is read only to give a better
// message: node decides by itself.
type dataIdentity struct {
	ClusterID string `json:"cluster_id"`
	Left      bool   `json:"left"`
}

// readIdentity returns the zero value where there is nothing that can be read.
func readIdentity(dataDir string) (id dataIdentity) {
	data, err := os.ReadFile(filepath.Join(dataDir, "identity.json"))
	if err != nil || json.Unmarshal(data, &id) != nil {
		return dataIdentity{}
	}
	return id
}

// isMember tells whether the data directory belongs to a node that is in a cluster.
func isMember(dataDir string) bool {
	id := readIdentity(dataDir)
	return id.ClusterID != "" && !id.Left
}
