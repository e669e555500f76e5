package devfolder

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"revoked"
	"revoked/api/clientauth"
	"revoked/cluster"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/files"
	"revoked/transport/pki"
)

// certLife is the validity of certificates for development.
const certLife = 365 * day

const day = 24 * time.Hour

// maxFile bounds a file of the directory, in bytes.
const maxFile = 16 << 20

// Make creates everything that is missing or about to expire, and keeps the rest.
func (f Folder) Make() error {
	ca, err := f.ca()
	if err != nil {
		return err
	}
	for i := range f.Hosts {
		if err := f.certificates(ca, i); err != nil {
			return err
		}
	}
	if err := f.gossipKey(); err != nil {
		return err
	}
	return f.adminSecret()
}

func (f Folder) ca() (*pki.CA, error) {
	cert, key := f.path("ca.pem"), f.path("ca-key.pem")
	ca, err := pki.LoadCA(cert, key)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	// An earlier run failed halfway, or the key was removed on purpose: do not replace the CA.
	for have, lacks := range map[string]string{cert: key, key: cert} {
		if _, err := os.Lstat(have); err == nil {
			return nil, fmt.Errorf("%s exists without %s: restore the missing file, or use another directory",
				have, filepath.Base(lacks))
		}
	}
	if ca, err = pki.NewCA("revoked development CA", 10*certLife); err != nil {
		return nil, err
	}
	return ca, files.Write(false, files.Private(key, ca.KeyPEM()), files.Public(cert, ca.CertPEM()))
}

func (f Folder) certificates(ca *pki.CA, i int) error {
	id, host := nodeName(i), f.Hosts[i]
	if hosts := unique(host, id); !f.isGood(id, ca, host) {
		cert, key, err := ca.IssueNode(id, hosts, certLife)
		if err := f.writePair(id, cert, key, err); err != nil {
			return err
		}
	}
	// Every API certificate covers every host: a load balancer may stand in front of the nodes.
	hosts := unique(append([]string{host, "localhost", "127.0.0.1", "::1", id}, f.Hosts...)...)
	if f.isGood(id+"-api", ca, hosts...) {
		return nil
	}
	cert, key, err := ca.IssueServer(hosts, certLife)
	return f.writePair(id+"-api", cert, key, err)
}

func (f Folder) writePair(name string, cert, key []byte, err error) error {
	if err != nil {
		return err
	}
	return files.Write(true, files.Private(f.path(name+"-key.pem"), key), files.Public(f.path(name+".pem"), cert))
}

// isGood reports whether a certificate is from this CA, covers the hosts, is valid for another
// month and matches the key in the same directory.
func (f Folder) isGood(name string, ca *pki.CA, hosts ...string) bool {
	pair, err := tls.LoadX509KeyPair(f.path(name+".pem"), f.path(name+"-key.pem"))
	if err != nil || slices.ContainsFunc(hosts, func(h string) bool { return pair.Leaf.VerifyHostname(h) != nil }) {
		return false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM())
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: pool, CurrentTime: time.Now().Add(30 * day), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

func (f Folder) gossipKey() error {
	name := f.path("gossip.key")
	data, err := files.Read(name, maxFile)
	if err == nil {
		_, err = cluster.ParseKey(string(data))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := cluster.NewKey()
	if err != nil {
		return err
	}
	return files.Write(false, files.Private(name, []byte(cluster.FormatKey(key))))
}

// adminSecret writes the administrator's secret into a separate file, for
// REVOKED_CLIENT_SECRET_FILE in containers.
func (f Folder) adminSecret() error {
	clients, err := f.clients()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(clients, func(c clientRecord) bool { return c.ClientID == config.AdminID })
	name, secret := f.path("admin.secret"), clients[i].ClientSecret+"\n" // f.clients has checked that it exists
	if data, err := files.Read(name, maxFile); err == nil && string(data) == secret {
		return nil
	}
	return files.Write(true, files.Private(name, []byte(secret)))
}

type clientRecord struct {
	devcluster.Credential
	Roles []revoked.Role `json:"roles,omitempty"`
}

// roles maps the clients of a new cluster to their roles.
var roles = map[string][]revoked.Role{
	config.AdminID: {revoked.RoleAdmin}, "issuer": {revoked.RoleIssuer}, "resource_server": {revoked.RoleResourceServer},
}

// ClientIDs returns the clients of a new cluster, in the order in which they are shown.
func ClientIDs() []string {
	return []string{config.AdminID, "issuer", "resource_server", "app", "other_app"}
}

func (f Folder) clients() ([]clientRecord, error) {
	name := f.path("clients.json")
	data, err := files.Read(name, maxFile)
	if err == nil {
		return parseClients(name, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var clients []clientRecord
	for _, id := range ClientIDs() {
		made := devcluster.Credential{ClientID: id, ClientSecret: clientauth.NewSecret()}
		clients = append(clients, clientRecord{made, roles[id]})
	}
	if data, err = json.MarshalIndent(clients, "", "  "); err != nil {
		return nil, err
	}
	return clients, files.Write(false, files.Private(name, append(data, '\n')))
}

func parseClients(name string, data []byte) ([]clientRecord, error) {
	var clients []clientRecord
	if err := json.Unmarshal(data, &clients); err != nil {
		return nil, errors.New(name + ": not a JSON list of clients")
	}
	for _, id := range ClientIDs() {
		if !slices.ContainsFunc(clients, func(c clientRecord) bool { return c.ClientID == id && c.ClientSecret != "" }) {
			return nil, fmt.Errorf("%s: client %q is missing or has no secret", name, id)
		}
	}
	return clients, nil
}

// unique returns the words without repeats, in the order of their first use.
func unique(words ...string) (out []string) {
	for _, w := range words {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}
