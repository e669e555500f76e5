package cli

import (
	"net"
	"strings"
)

// IsHost reports whether a certificate can contain host: an IP address, or a DNS name (RFC 1123
// section 2.1) whose first label may be *. It accepts underscores, because container names contain
// them and Go verifies such names.
func IsHost(host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	host = strings.TrimPrefix(host, "*.")
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if !isLabel(l) {
			return false
		}
	}
	// A name whose last label is a number is a mistyped address.
	return len(host) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func isLabel(l string) bool {
	const dns = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return l != "" && len(l) <= 63 && l[0] != '-' && l[len(l)-1] != '-' && strings.Trim(l, dns) == ""
}

// Hosts returns hosts without surrounding space. The error names the first invalid one.
func Hosts(hosts []string) ([]string, error) {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if out[i] = strings.TrimSpace(h); !IsHost(out[i]) {
			return nil, UsageError("%q is neither a DNS name nor an IP address", out[i])
		}
	}
	return out, nil
}
