package main

import (
	"net"
	"strings"
)

// isHost reports whether a certificate can name host: an IP address, or a DNS name (RFC 1123 section 2.1), whose
// first label may be * alone. An underscore is taken too: names in containers have it, and Go verifies it.
func isHost(host string) bool {
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
	// A name that ends in a number is an address with a slip in it.
	return len(host) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func isLabel(l string) bool {
	const dns = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return l != "" && len(l) <= 63 && l[0] != '-' && l[len(l)-1] != '-' && strings.Trim(l, dns) == ""
}

// certHosts returns the hosts without space around them, or names the first that is none.
func certHosts(hosts []string) ([]string, error) {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if out[i] = strings.TrimSpace(h); !isHost(out[i]) {
			return nil, usageError("%q is neither a DNS name nor an IP address", out[i])
		}
	}
	return out, nil
}
