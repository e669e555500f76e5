package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// devReadyTime is how long the nodes may take to be ready.
const devReadyTime = 90 * time.Second

// devPollTime is the pause between two questions to a node.
const devPollTime = 50 * time.Millisecond

// waitReady returns when every node answers introspections, knows a leader and knows the clients. It
// returns the cluster's id, or the cause that ended ctx with what was still missing.
func waitReady(ctx context.Context, c *devCluster) (clusterID string, err error) {
	tlsConfig, err := trustConfig(c.CA)
	if err != nil {
		return "", err
	}
	for _, n := range c.Nodes {
		if err := poll(ctx, func(ctx context.Context) error { return askNode(ctx, tlsConfig, n, c) }); err != nil {
			return "", fmt.Errorf("wait for %s: %w", n.ID, err)
		}
	}
	err = poll(ctx, func(ctx context.Context) error {
		var status struct {
			ClusterID string `json:"cluster_id"`
		}
		body, err := ask(ctx, tlsConfig, http.MethodGet, c.Nodes[0].API+"/v1/status", nil, c.Clients[adminID])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(body, &status); err != nil || status.ClusterID == "" {
			return errors.New("the cluster has no id yet")
		}
		clusterID = status.ClusterID
		return nil
	})
	return clusterID, err
}

// askNode returns nil when the node is ready and answers a resource server.
func askNode(ctx context.Context, tlsConfig *tls.Config, n devNode, c *devCluster) error {
	if err := askReady(ctx, n.API+"/readyz?verbose&revoke", tlsConfig); err != nil {
		return err
	}
	form := url.Values{"token": {"is-anybody-there"}}
	_, err := ask(ctx, tlsConfig, http.MethodPost, n.API+"/oauth2/introspect", form, c.Clients["resource_server"])
	return err
}

// ask sends one request and returns the body of a 200.
func ask(ctx context.Context, tlsConfig *tls.Config, method, to string, form url.Values, as devCredential) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if form == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.SetBasicAuth(as.ClientID, as.ClientSecret)
	tr := &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusUnauthorized, http.StatusTooManyRequests:
		return nil, fmt.Errorf("%s answers %d to %s: unless it becomes known, clients.json is not the one that this cluster was made with: put that back, or take another --dir",
			to, resp.StatusCode, as.ClientID)
	}
	return nil, fmt.Errorf("%s answers %d: %s", to, resp.StatusCode, strings.TrimSpace(string(body)))
}

// poll calls f until it returns nil or ctx ends, each time with a few seconds.
func poll(ctx context.Context, f func(context.Context) error) error {
	tick := time.NewTicker(devPollTime)
	defer tick.Stop()
	var last error
	for {
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := f(once)
		cancel()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // a call that was cut off says nothing of what was wrong before
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// checkPorts returns an error that names the first port that is taken.
func (c *devCluster) checkPorts() error {
	for _, n := range c.Nodes {
		for _, l := range n.listeners() {
			err := tryListen(l.network, l.addr)
			if err == nil {
				continue
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%s cannot use %s for its %s port: %w", n.ID, l.addr, l.what, err)
			}
			msg := fmt.Sprintf("%s is in use by another process; %s needs it for its %s port", l.addr, n.ID, l.what)
			if port := c.freePort(); port != 0 {
				msg += fmt.Sprintf(": try --api-port %d", port)
			} else {
				msg += ": choose other ports with --api-port"
			}
			return errors.New(msg)
		}
	}
	return nil
}

type devListener struct{ what, network, addr string }

func (n devNode) listeners() []devListener {
	return []devListener{
		{"API", "tcp", strings.TrimPrefix(n.API, "https://")},
		{"cluster", "tcp", n.Cluster},
		{"gossip", "tcp", n.Gossip},
		{"gossip", "udp", n.Gossip},
	}
}

// freePort returns an API port from which all would fit, 0 if none was found nearby.
func (c *devCluster) freePort() int {
	for port := 18443; port < 19443; port += 100 {
		other, err := newDevCluster(c.dir, c.hosts, port, nil)
		if err != nil {
			return 0
		}
		free := true
		for _, n := range other.Nodes {
			for _, l := range n.listeners() {
				free = free && tryListen(l.network, l.addr) == nil
			}
		}
		if free {
			return port
		}
	}
	return 0
}

// tryListen listens for a moment.
func tryListen(network, addr string) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}
