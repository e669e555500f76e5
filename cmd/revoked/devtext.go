package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// commandName returns how a shell calls this program, in whichever folder it stands: exe is the program's file,
// called how it was called, work the folder that it was called in.
func commandName(exe, called, work string) string {
	if builtByGoRun(exe) {
		// Its file is not for long, and nobody's to type.
		if st, err := os.Stat(filepath.Join(work, "cmd", "revoked")); err == nil && st.IsDir() {
			return "cd " + shellQuote(work) + " && go run ./cmd/revoked"
		}
		return shellQuote(exe)
	}
	if filepath.Base(called) == called {
		if _, err := exec.LookPath(called); err == nil {
			return shellQuote(called)
		}
		return shellQuote(exe)
	}
	if !filepath.IsAbs(called) {
		called = filepath.Join(work, called)
	}
	return shellQuote(called)
}

// builtByGoRun reports whether `go run` made the file: in a temporary folder, or in the cache of builds.
func builtByGoRun(exe string) bool {
	dir := filepath.Dir(exe)
	entry := filepath.Base(dir) // of the cache, which may be anywhere: a hash and -d
	return strings.Contains(dir, "/go-build") || len(entry) == 66 && strings.HasSuffix(entry, "-d")
}

// thisCommand is commandName of this process.
func thisCommand() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	work, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return commandName(exe, os.Args[0], work), nil
}

// printWelcome tells a newcomer where everything is and what to do next. command calls this program.
func printWelcome(w io.Writer, c *devCluster, command string) {
	fmt.Fprintf(w, "A cluster of %d nodes is ready. Everything is in %s\n\n", len(c.Nodes), c.dir)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, n := range c.Nodes {
		fmt.Fprintf(tw, "  %s\t%s\tlog %s\n", n.ID, n.API, n.Log)
	}
	tw.Flush()
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
	fmt.Fprintln(w, command+" members")
	fmt.Fprintln(w, "\nStop with Ctrl-C.")
}

// printInitOnly tells how to start the nodes of a folder that was only written. Nodes that are started so log to
// standard error: no files of logs are named.
func printInitOnly(w io.Writer, c *devCluster, command string) {
	fmt.Fprintf(w, "Wrote %s. Start each node as a process of its own:\n\n", c.dir)
	for _, n := range c.Nodes {
		fmt.Fprintf(w, "%s server --config %s\n", command, shellQuote(n.Config))
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, n := range c.Nodes {
		fmt.Fprintf(tw, "  %s\t%s\n", n.ID, n.API)
	}
	tw.Flush()
	fmt.Fprintf(w, "\nClients and their secrets are in %s. For the command line tool:\n\n", filepath.Join(c.dir, "clients.json"))
	for _, line := range exportLines(c) {
		fmt.Fprintln(w, line)
	}
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
