package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"revoked"
)

// checkNetworks sets p to networks with their audiences: a map from a network to one or more
// audiences, or a list of NETWORK and NETWORK=AUDIENCE. A list may repeat a network to give it
// several audiences.
func (v value) checkNetworks(p *map[netip.Prefix][]string) error {
	*p = nil
	if v.node.Kind == yaml.MappingNode {
		return v.audienceMap(p)
	}
	items, err := v.items()
	if err != nil && v.node.Kind != yaml.ScalarNode {
		return fmt.Errorf("want a list of networks, or a map from network to audiences: %w", err)
	}
	if err != nil {
		return err
	}
	for i, item := range items {
		network, audience, found := strings.Cut(item, "=")
		n, err := parseNetwork(strings.TrimSpace(network))
		if err != nil && i > 0 && !found && strings.Contains(items[i-1], "=") {
			return fmt.Errorf("%w; repeat the network for each audience: 10.0.0.0/8=a,10.0.0.0/8=b", err)
		}
		if err != nil {
			return err
		}
		var audiences []string
		if audience = strings.TrimSpace(audience); audience != "" {
			audiences = []string{audience}
		} else if found {
			return fmt.Errorf("%v: the audience after = is empty", n)
		}
		if err := addNetwork(p, n, audiences); err != nil {
			return err
		}
	}
	return nil
}

// audienceMap sets p to a map from a network to an audience, a list of audiences, or nothing.
func (v value) audienceMap(p *map[netip.Prefix][]string) error {
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		n, err := parseNetwork(resolve(v.node.Content[i]).Value)
		if err != nil {
			return err
		}
		if _, repeated := (*p)[n]; repeated {
			return fmt.Errorf("%v appears twice: use a list of audiences", n)
		}
		of := value{node: resolve(v.node.Content[i+1])}
		var audiences []string
		switch {
		case isNull(of.node):
		case of.node.Kind == yaml.ScalarNode && strings.TrimSpace(of.node.Value) == "":
			err = errors.New("the audience is empty")
		case of.node.Kind == yaml.MappingNode:
			err = errors.New("want an audience or a list of audiences")
		default:
			audiences, err = of.items()
		}
		if err != nil {
			return fmt.Errorf("%v: %w", n, err)
		}
		if err := addNetwork(p, n, audiences); err != nil {
			return err
		}
	}
	return nil
}

// resolve returns the node of an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// addNetwork adds audiences to those of the network. It rejects an audience that is too long for
// any token.
func addNetwork(p *map[netip.Prefix][]string, n netip.Prefix, audiences []string) error {
	if *p == nil {
		*p = map[netip.Prefix][]string{}
	}
	all := (*p)[n]
	for _, a := range audiences {
		if len(a) > revoked.MaxClientElement {
			return fmt.Errorf("%v: audience too long (got %d bytes, want at most %d)", n, len(a), revoked.MaxClientElement)
		}
		if err := checkScalar(a); err != nil {
			return fmt.Errorf("%v: audience: %w", n, err)
		}
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	if len(all) > revoked.MaxClientList {
		return fmt.Errorf("%v: too many audiences (got %d, want at most %d)", n, len(all), revoked.MaxClientList)
	}
	(*p)[n] = all
	return nil
}
