package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// printWelcome tells a newcomer where everything is and what to do next.
func printWelcome(w io.Writer, c *devCluster) {
	fmt.Fprintf(w, "A cluster of %d nodes is ready. Everything is in %s\n\n", len(c.Nodes), c.dir)
	printNodes(w, c)
	fmt.Fprintln(w, "\nCredentials (client id, secret), for this cluster only:")
	printCredentials(w, c)
	fmt.Fprintln(w, "\nTry it in another terminal. Register a token pair, see it active, revoke it, see it dead on another node:")
	fmt.Fprintln(w)
	for _, line := range curlLines(c, "demo-"+strings.ToLower(rand.Text()[:8]), time.Now().Add(time.Hour)) {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w, "\nThe same program is the command line tool:")
	fmt.Fprintln(w)
	for _, line := range exportLines(c) {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w, "revoked members")
	fmt.Fprintln(w, "\nStop with Ctrl-C.")
}

// printInitOnly tells how to start the nodes of a folder that was only written.
func printInitOnly(w io.Writer, c *devCluster) {
	fmt.Fprintf(w, "Wrote %s. Start each node as a process of its own:\n\n", c.dir)
	for _, n := range c.Nodes {
		fmt.Fprintf(w, "revoked server --config %s\n", shellQuote(n.Config))
	}
	fmt.Fprintln(w)
	printNodes(w, c)
	fmt.Fprintf(w, "\nClients and their secrets are in %s. For the command line tool:\n\n", filepath.Join(c.dir, "clients.json"))
	for _, line := range exportLines(c) {
		fmt.Fprintln(w, line)
	}
}

func printNodes(w io.Writer, c *devCluster) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, n := range c.Nodes {
		fmt.Fprintf(tw, "  %s\t%s\tlog %s\n", n.ID, n.API, n.Log)
	}
	tw.Flush()
}

func printCredentials(w io.Writer, c *devCluster) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, role := range devRoles() {
		cl := c.Clients[role.ClientID]
		fmt.Fprintf(tw, "  %s\t%s\n", cl.ClientID, cl.ClientSecret)
	}
	tw.Flush()
}

// curlLines are four commands that work as they are pasted: token is the access token of a new pair.
func curlLines(c *devCluster, token string, expires time.Time) []string {
	curl := func(as string, node int, path, rest string) string {
		n, cl := c.Nodes[min(node, len(c.Nodes))-1], c.Clients[as]
		return fmt.Sprintf("curl -sS --cacert %s -u %s:%s %s %s%s",
			shellQuote(c.CA), cl.ClientID, cl.ClientSecret, rest, n.API, path)
	}
	pair := fmt.Sprintf(`{"client_id":"app","subject":"alice","scope":"read write","access_token":{"token":"%s","expires_at":%d},"refresh_token":{"token":"%s-refresh"}}`,
		token, expires.Unix(), token)
	return []string{
		curl("issuer", 1, "/v1/grants", "-H 'Content-Type: application/json' -d '"+pair+"'"),
		curl("resource_server", 3, "/oauth2/introspect", "-w '\\n' -d token="+token),
		curl("app", 2, "/oauth2/revoke", "-w '\\n' -d token="+token),
		curl("resource_server", 1, "/oauth2/introspect", "-w '\\n' -d token="+token),
	}
}

// exportLines set up the command line tool as the administrator.
func exportLines(c *devCluster) []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.API)
	}
	admin := c.Clients[adminID]
	return []string{
		"export REVOKED_ADDR=" + strings.Join(addrs, ","),
		"export REVOKED_CACERT=" + shellQuote(c.CA),
		fmt.Sprintf("export REVOKED_CLIENT_ID=%s REVOKED_CLIENT_SECRET=%s", admin.ClientID, admin.ClientSecret),
	}
}
