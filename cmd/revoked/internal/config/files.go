package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/serve"
	"revoked/cluster"
	"revoked/cmd/revoked/internal/files"
	"revoked/internal/jointoken"
	"revoked/transport/pki"
)

// Files are the contents of the files that the settings name.
type Files struct {
	Certs     *pki.Certs
	APICert   *serve.Certificate
	ClientCAs *serve.ClientCAs // nil: any CA may have issued the certificate of a caller
	GossipKey []byte
	JoinToken string  // empty: no token was read
	CAKey     *pki.CA // nil: this node signs no certificates
	// NeedsCertificate reports that Certs is nil, and that the node gets a certificate with
	// JoinToken.
	NeedsCertificate bool
	Clients          []revoked.Client
	Warnings         []string
}

// loadFiles reads every file that the settings name and adds a problem for each invalid one.
func (c *Config) loadFiles() *Files {
	f := &Files{}
	c.checkDataDir()
	c.checkTempDir(f)
	c.loadJoinToken(f)
	c.loadClusterCert(f)
	c.loadAPICert(f)
	c.loadGossipKey(f)
	if c.JWKSCAFile != "" {
		_, err := files.TrustCA(c.JWKSCAFile)
		c.add("jwks_ca_file", err)
	}
	if c.TracesCAFile != "" {
		_, err := files.TrustCA(c.TracesCAFile)
		c.add("traces_ca_file", err)
	}
	c.loadBucketFiles(f)
	before := len(c.problems)
	c.loadClients(f)
	if len(c.problems) == before {
		c.checkBootstrap(f.Clients)
	}
	return f
}

// require adds a problem for every key whose path is empty. It reports whether all are set.
func (c *Config) require(advice string, keys ...string) bool {
	before := len(c.problems)
	for _, s := range c.table() {
		if p, ok := s.field.(*path); ok && *p == "" && slices.Contains(keys, s.Key) {
			c.note(s.Key, "is not set; %s", advice)
		}
	}
	return len(c.problems) == before
}

func (c *Config) loadAPICert(f *Files) {
	advice := "the API uses HTTPS; for a trial: revoked cert ca && revoked cert server api --hosts NAME"
	if c.require(advice, "api_cert", "api_key") {
		cert, err := serve.LoadCertificate(c.APICert, c.APIKey)
		if err != nil {
			c.note("api_cert, api_key", "%v", err)
		} else {
			f.APICert = cert
			c.checkCertNames(f)
		}
		f.warnReadable(c.APIKey)
	}
	if c.APIClientCA != "" {
		var err error
		f.ClientCAs, err = serve.LoadClientCAs(c.APIClientCA)
		c.add("api_client_ca", err)
		c.checkClientCA(f)
	}
}

// checkCertNames warns if the API certificate does not cover the advertised host.
func (c *Config) checkCertNames(f *Files) {
	cert, err := f.APICert.GetCertificate(nil)
	u, badURL := url.Parse(c.APIAdvertise)
	if err != nil || badURL != nil || cert.Leaf == nil {
		return
	}
	if cert.Leaf.VerifyHostname(u.Hostname()) != nil {
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s does not cover %q, the host of api_advertise: "+
			"callers that check names will refuse it", c.APICert, u.Hostname()))
	}
}

func (c *Config) loadGossipKey(f *Files) {
	advice := "gossip is encrypted; make one key for all nodes: revoked keygen -f gossip.key"
	if !c.require(advice, "gossip_key_file") {
		return
	}
	data, err := f.readPrivate(c.GossipKeyFile)
	if err == nil {
		data, err = files.Text(data)
	}
	if err == nil {
		f.GossipKey, err = cluster.ParseKey(string(data))
	}
	if err != nil {
		c.addf("gossip_key_file", "%s: %v", c.GossipKeyFile, err)
		return
	}
	// A client secret may look like a gossip key, and every node has the gossip key.
	if secret, err := files.Read(c.BootstrapAdminSecretFile, maxFile); err == nil && holdsKey(secret, f.GossipKey) {
		c.addf("gossip_key_file", "%s contains the secret of bootstrap_admin_secret_file; "+
			"generate a separate key with: revoked keygen -f FILE", c.GossipKeyFile)
	}
}

// loadJoinToken reads the join token. A member does not need one, so the file may be gone.
func (c *Config) loadJoinToken(f *Files) {
	if c.JoinTokenFile == "" || IsMember(c.DataDir) {
		return
	}
	token, err := f.readToken(c.JoinTokenFile)
	c.add("join_token_file", err)
	f.JoinToken = token
	if err == nil && jointoken.HasKey(token) {
		_, err = jointoken.Parse(token)
		c.add("join_token_file", err)
	}
}

// holdsKey reports whether data, the content of a file, contains the gossip key.
func holdsKey(data, key []byte) bool {
	text, err := files.Text(data)
	if err != nil {
		return false
	}
	other, err := cluster.ParseKey(string(text))
	return err == nil && bytes.Equal(other, key)
}

// loadClients reads both bootstrap files and hashes the secrets. On a node that is already a member
// the files are ignored, so problems with them are only warnings. A secret that was deleted after
// the bootstrap must not keep the node from starting.
func (c *Config) loadClients(f *Files) {
	before := len(c.problems)
	c.readClients(f)
	if !IsMember(c.DataDir) {
		return
	}
	for _, p := range c.problems[before:] {
		f.Warnings = append(f.Warnings, p.String()+"; ignored, because this node is in a cluster: remove the setting")
	}
	c.problems = c.problems[:before]
}

func (c *Config) readClients(f *Files) {
	if name := c.BootstrapAdminSecretFile; name != "" {
		secret, err := f.readSecret(name)
		if err != nil {
			c.add("bootstrap_admin_secret_file", err)
		} else {
			f.Clients = append(f.Clients, revoked.Client{
				ID: AdminID, Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleAdmin},
				AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost},
				Secrets:     []revoked.SecretHash{clientauth.HashSecret(secret)},
			})
		}
	}
	name := c.BootstrapClientsFile
	if name == "" {
		return
	}
	data, err := f.readPrivate(name)
	if err != nil {
		c.add("bootstrap_clients_file", err)
		return
	}
	if data, err = files.Text(data); err != nil {
		c.addf("bootstrap_clients_file", "%s: %v", name, err)
		return
	}
	clients, err := parseClients(data)
	if err != nil {
		c.addf("bootstrap_clients_file", "%s: %v", name, err)
	}
	for _, cl := range clients {
		if slices.ContainsFunc(f.Clients, func(c revoked.Client) bool { return c.ID == cl.ID }) {
			c.addf("bootstrap_clients_file", "%s: client %q is defined twice", name, cl.ID)
			continue
		}
		f.Clients = append(f.Clients, cl)
	}
}

// readSecret reads a file with the secret of the first administrator.
func (f *Files) readSecret(name string) (string, error) {
	secret, err := f.readLine(name)
	if err != nil {
		return "", err
	}
	if len(secret) < clientauth.StrongSecret {
		return "", fmt.Errorf("%s: the secret has %d bytes (want %d or more); generate one with: revoked keygen --secret",
			name, len(secret), clientauth.StrongSecret)
	}
	if err := clientauth.CheckSecret(secret, false); err != nil {
		return "", fmt.Errorf("%s: %s", name, revoked.Detail(err))
	}
	return secret, nil
}

// readLine reads a file with one secret or token.
func (f *Files) readLine(name string) (string, error) {
	data, err := f.readPrivate(name)
	if err != nil {
		return "", err
	}
	line, err := files.OneLine(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return line, err
}

// readToken is readLine for a token. A token has no white space, so readToken drops any at its end.
func (f *Files) readToken(name string) (string, error) {
	data, err := f.readPrivate(name)
	if err != nil {
		return "", err
	}
	line, err := files.OneLine(bytes.TrimRight(data, " \t\r\n"))
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return line, err
}

// readPrivate reads a file that only its owner should be able to read.
func (f *Files) readPrivate(name string) ([]byte, error) {
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no such file: %s", name)
	}
	f.warnReadable(name)
	return files.Read(name, maxFile)
}

func (f *Files) warnReadable(name string) {
	if st, err := os.Stat(name); err == nil && st.Mode().Perm()&0o004 != 0 {
		f.Warnings = append(f.Warnings, name+" contains secrets, but every user of this machine can read it: chmod 600")
	}
}

// checkDataDir adds a problem for a data directory that package node would refuse.
func (c *Config) checkDataDir() {
	st, err := os.Stat(c.DataDir)
	if err == nil && !st.IsDir() || errors.Is(err, syscall.ENOTDIR) {
		c.addf("data_dir", "%s is not a directory, or is below a file", c.DataDir)
		return
	}
	id := readIdentity(c.DataDir)
	c.addIf(id.NodeID != "" && id.NodeID != c.NodeID, "data_dir",
		"data directory %s: wrong node (got %q, want node_id %q)", c.DataDir, id.NodeID, c.NodeID)
	if id.Left && !c.Rejoin {
		c.addf("data_dir", "data directory %s: node has left cluster %s; "+
			"use --rejoin to join again as a new instance, or an empty data directory", c.DataDir, id.ClusterID)
	}
}

// tryDataDir returns an error if the data directory could not be created or written. It creates and
// removes a directory there, or in the nearest parent that exists.
func tryDataDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	name, err := os.MkdirTemp(dir, "revoked-check-*")
	if err != nil {
		return fmt.Errorf("cannot be created or written: %w", err)
	}
	return os.Remove(name)
}

// checkBootstrap adds a problem if a node without a cluster could neither join nor bootstrap one,
// or would bootstrap one without an administrator.
func (c *Config) checkBootstrap(clients []revoked.Client) {
	isAdmin := func(c revoked.Client) bool { return c.Has(revoked.RoleAdmin) }
	if IsMember(c.DataDir) || slices.ContainsFunc(clients, isAdmin) {
		return
	}
	switch {
	case c.BootstrapExpect > 0:
		c.note("bootstrap_admin_secret_file",
			"is not set, and bootstrap_clients_file has no administrator: the new cluster could not be administered; "+
				"set it to a file with a secret of 32 bytes or more")
	case len(c.Join) == 0:
		c.note("",
			"this node is not in a cluster and cannot join one: set bootstrap_expect (a new cluster), "+
				"join (cluster addresses of an existing one), or bootstrap_admin_secret_file (then run revoked join)")
	}
}
