package dev

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

	"github.com/dustin/go-humanize/english"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
)

// commandName returns a shell command that runs this program from any directory. exe is the file of
// the program, called is its name on the command line, and work is the working directory.
func commandName(exe, called, work string) string {
	if builtByGoRun(exe) {
		// The binary that go run builds is temporary.
		if st, err := os.Stat(filepath.Join(work, "cmd", "revoked")); err == nil && st.IsDir() {
			return "cd " + cli.ShellQuote(work) + " && go run ./cmd/revoked"
		}
		return cli.ShellQuote(exe)
	}
	if filepath.Base(called) == called {
		if _, err := exec.LookPath(called); err == nil {
			return cli.ShellQuote(called)
		}
		return cli.ShellQuote(exe)
	}
	if !filepath.IsAbs(called) {
		called = filepath.Join(work, called)
	}
	return cli.ShellQuote(called)
}

// builtByGoRun reports whether go run built the file, in a temporary directory or in the build
// cache.
func builtByGoRun(exe string) bool {
	dir := filepath.Dir(exe)
	entry := filepath.Base(dir) // in the build cache: a hash with the suffix -d
	return strings.Contains(dir, "/go-build") || len(entry) == 66 && strings.HasSuffix(entry, "-d")
}

func thisCommand() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("locate this executable: %w", err)
	}
	work, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return commandName(exe, os.Args[0], work), nil
}

// printWelcome prints addresses, credentials and first commands for a new user. If jwts is set, it
// also prints JWTs of the demo issuer.
func printWelcome(w io.Writer, c *devcluster.Cluster, dir, command string, jwts bool) {
	fmt.Fprintf(w, "A cluster of %s is ready. Everything is in %s\n\n", english.Plural(len(c.Nodes), "node", "nodes"), dir)
	var nodes, clients [][]string
	for _, n := range c.Nodes {
		nodes = append(nodes, []string{n.ID, n.API, "log " + n.Log})
	}
	for _, id := range devfolder.ClientIDs() {
		clients = append(clients, []string{c.Clients[id].ClientID, c.Clients[id].ClientSecret})
	}
	printColumns(w, nodes)
	fmt.Fprintln(w, "\nCredentials (client id, secret), for this cluster only:")
	printColumns(w, clients)
	admin := c.Clients[config.AdminID]
	fmt.Fprintf(w, "\nConsole: open %s/ui and sign in as %s with its secret. "+
		"The browser warns, because it does not trust the CA of this cluster: %s\n", c.Nodes[0].API, admin.ClientID, c.CA)
	curl := curlLines(c, "demo-"+strings.ToLower(rand.Text()[:8]), time.Now().Add(time.Hour))
	fmt.Fprintln(w, "\nTry it in another terminal. "+
		"Register a token pair, see it active, revoke it, see it inactive on another node:\n\n"+strings.Join(curl, "\n"))
	if jwts {
		fmt.Fprintln(w, "\nJWTs of a trusted issuer need no registration. "+
			"Sign one, see it active, revoke it, see it inactive on another node:\n\n"+
			strings.Join(jwtLines(c, dir, command), "\n"))
	}
	fmt.Fprintf(w, "\nThe same program is the command line tool:\n\n%s\n%s members\n\nStop with Ctrl-C.\n",
		exportLines(c), command)
}

// printInitOnly prints how to start the nodes. It names no log files: such nodes log to standard
// error.
func printInitOnly(w io.Writer, c *devcluster.Cluster, f devfolder.Folder, command string) {
	fmt.Fprintf(w, "Wrote %s. Start each node in its own process:\n\n", f.Dir)
	var nodes [][]string
	for _, n := range c.Nodes {
		fmt.Fprintf(w, "%s server --config %s\n", command, cli.ShellQuote(n.Config))
		nodes = append(nodes, []string{n.ID, n.API})
	}
	fmt.Fprintln(w)
	printColumns(w, nodes)
	fmt.Fprintf(w, "\nClients and their secrets are in %s. For the command line tool:\n\n%s\n",
		filepath.Join(f.Dir, "clients.json"), exportLines(c))
	fmt.Fprintf(w, "\nOnce the nodes run, trust the demo issuer and sign a JWT:\n\n%s issuer create %s\n%s\n",
		command, cli.ShellQuote(f.IssuerFile()), signLine(f.Dir, command))
}

func printColumns(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, "  "+strings.Join(row, "\t"))
	}
	_ = tw.Flush()
}

// curlLine returns the command that calls a node, by its number, as a client.
func curlLine(c *devcluster.Cluster, as string, node int, path, rest string) string {
	n, cl := c.Nodes[min(node, len(c.Nodes))-1], c.Clients[as]
	return fmt.Sprintf("curl -sS --cacert %s -u %s:%s %s %s%s",
		cli.ShellQuote(c.CA), cl.ClientID, cl.ClientSecret, rest, n.API, path)
}

// curlLines returns four commands to paste. token is the access token of a new pair.
func curlLines(c *devcluster.Cluster, token string, expires time.Time) []string {
	pair := fmt.Sprintf(`{"client_id":"app","subject":"alice","scope":"read write",`+
		`"access_token":{"token":"%s","expires_at":%d},"refresh_token":{"token":"%s-refresh"}}`,
		token, expires.Unix(), token)
	register := curlLine(c, "issuer", 1, "/v1/grants", "-H 'Content-Type: application/json' -d '"+pair+"'")
	return append([]string{register}, useLines(c, "token="+token)...)
}

// jwtLines returns four commands to paste into one shell.
func jwtLines(c *devcluster.Cluster, dir, command string) []string {
	return append([]string{"JWT=$(" + signLine(dir, command) + ")"}, useLines(c, `"token=$JWT"`)...)
}

// signLine returns the command that signs a JWT as the demo issuer.
func signLine(dir, command string) string {
	return command + " dev token --dir " + cli.ShellQuote(dir)
}

// useLines returns the commands that introspect, revoke and introspect a token through three nodes.
// data is the form of each request, as a word of the shell.
func useLines(c *devcluster.Cluster, data string) []string {
	data = "-w '\\n' -d " + data
	return []string{
		curlLine(c, "resource_server", 3, "/oauth2/introspect", data),
		curlLine(c, "app", 2, "/oauth2/revoke", data),
		curlLine(c, "resource_server", 1, "/oauth2/introspect", data),
	}
}

// exportLines returns the commands, one per line, that set up the command line tool for the
// administrator.
func exportLines(c *devcluster.Cluster) string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.API)
	}
	admin := c.Clients[config.AdminID]
	return fmt.Sprintf("export REVOKED_ADDR=%s\nexport REVOKED_CACERT=%s\n"+
		"export REVOKED_CLIENT_ID=%s REVOKED_CLIENT_SECRET=%s",
		strings.Join(addrs, ","), cli.ShellQuote(c.CA), admin.ClientID, admin.ClientSecret)
}
