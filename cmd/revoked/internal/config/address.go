package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// Derive fills in the settings that follow from others and adds a problem for each wrong address.
// hostname is os.Hostname, except in tests.
func (c *Config) Derive(hostname func() (string, error)) {
	host, err := hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	c.NodeID = cmp.Or(c.NodeID, host)
	c.deriveCertificate()
	wrong := false
	for _, l := range c.listeners() {
		if !c.hasProblem(l.key) { // otherwise the address was not parsed
			c.add(l.key, checkListen(l.addr))
		}
		wrong = wrong || c.hasProblem(l.key)
	}
	if wrong {
		return // the addresses below are derived from these
	}
	c.ClusterAdvertise = cmp.Or(c.ClusterAdvertise, DialAddress(c.ClusterAddr, host))
	c.add("cluster_advertise", checkAdvertised(c.ClusterAdvertise))
	clusterHost, _, _ := net.SplitHostPort(c.ClusterAdvertise)
	c.GossipAdvertise = cmp.Or(c.GossipAdvertise, DialAddress(c.GossipAddr, clusterHost))
	c.add("gossip_advertise", checkAdvertised(c.GossipAdvertise))
	c.APIAdvertise, err = apiURL(cmp.Or(c.APIAdvertise, DialAddress(c.APIAddr, host)), c.RequireHTTPS)
	c.add("api_advertise", err)
	c.Issuer = cmp.Or(c.Issuer, c.APIAdvertise)
}

type listener struct{ key, addr string }

func (c *Config) listeners() []listener {
	all := []listener{{"api_addr", c.APIAddr}, {"cluster_addr", c.ClusterAddr}, {"gossip_addr", c.GossipAddr}}
	if c.MetricsAddr != "" {
		all = append(all, listener{"metrics_addr", c.MetricsAddr})
	}
	return all
}

// DialAddress returns the address bind with host in place of a missing or unspecified host.
func DialAddress(bind, host string) string {
	h, port, err := net.SplitHostPort(bind)
	if err != nil {
		return bind
	}
	if isUnspecified(h) {
		h = host
	}
	return net.JoinHostPort(h, port)
}

func apiURL(s string, https bool) (string, error) {
	if !strings.Contains(s, "://") {
		if err := checkAdvertised(s); err != nil {
			return "", err
		}
		return "https://" + s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("got %q, want host:port or an https URL", s)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || https) {
		return "", fmt.Errorf("got %q, want an https URL", s)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

func checkListen(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("got %q, want host:port or :port", s)
	}
	if !isHostText(host) {
		return fmt.Errorf("got %q, want an IP address or a DNS name before the port", host)
	}
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case err != nil:
		return fmt.Errorf("got %q, want a port from 1 to 65535", port)
	case n == 0:
		return errors.New("cannot advertise port 0")
	}
	return nil
}

// isHostText reports whether a listener or a dialer may resolve host: an IP address with an
// optional zone, or the characters of a DNS name. Names of containers have underscores.
func isHostText(host string) bool {
	if host == "" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.ContainsFunc(host, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-._", r)
	})
}

func checkAdvertised(s string) error {
	if err := checkListen(s); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(s); isUnspecified(host) {
		return fmt.Errorf("advertise address %q has no reachable host", s)
	}
	return nil
}

// checkPorts adds a problem for every pair of listeners on one TCP port.
func (c *Config) checkPorts() {
	all := c.listeners()
	for i, l := range all {
		for _, other := range all[:i] {
			c.addIf(samePort(l.addr, other.addr), l.key, "%s uses the port of %s, %s", l.addr, other.key, other.addr)
		}
	}
}

// samePort reports whether one machine cannot listen on both addresses.
func samePort(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && (isUnspecified(hostA) || isUnspecified(hostB) || hostA == hostB)
}

// isUnspecified reports whether a listener on host accepts on every address of the machine.
func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// CheckStart returns an [*Error] with the addresses that this machine cannot listen on. It also
// names the data directory if it could not be created or written, and the directory of backups if
// it cannot be written. A port that is in use is not an error: the node itself may be running.
func (c *Config) CheckStart() error {
	for _, l := range c.listeners() {
		err := TryListen("tcp", l.addr)
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			var op *net.OpError
			if errors.As(err, &op) {
				err = op.Err
			}
			c.addf(l.key, "cannot listen on %s: %v", l.addr, err)
		}
	}
	c.add("data_dir", tryDataDir(c.DataDir))
	c.tryBackups()
	return c.err()
}

// TryListen opens a listener on addr and closes it. The network is "tcp" or "udp".
func TryListen(network, addr string) error {
	var l io.Closer
	var err error
	if network == "udp" {
		l, err = net.ListenPacket(network, addr)
	} else {
		l, err = net.Listen(network, addr)
	}
	if err != nil {
		return err
	}
	return l.Close()
}
