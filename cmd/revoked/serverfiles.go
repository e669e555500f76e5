package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"syscall"

	"revoked"
	"revoked/api"
	"revoked/cluster"
	"revoked/transport"
)

// serverFiles are the files that the settings name, read and found good.
type serverFiles struct {
	certs     *transport.Certs
	apiCert   *api.Certificate
	clientCAs *x509.CertPool // nil: callers need no certificate
	gossipKey []byte
	clients   []revoked.Client
	warnings  []string
}

// loadFiles reads every file that the settings name. It returns all problems at once.
func (c *config) loadFiles() (*serverFiles, []problem) {
	f := &serverFiles{}
	problems := slices.Concat(c.checkDataDir(), c.loadClusterCert(f), c.loadAPICert(f), c.loadGossipKey(f))
	clients, warnings, bad := c.bootstrapClients()
	f.clients = clients
	f.warnings = append(f.warnings, warnings...)
	problems = append(problems, bad...)
	if len(bad) == 0 {
		problems = append(problems, c.checkBootstrap(clients)...)
	}
	return f, problems
}

// missing returns a problem for every setting of the names that is empty.
func (c *config) missing(advice string, names ...[2]string) []problem {
	var problems []problem
	for _, n := range names {
		if n[1] == "" {
			problems = append(problems, problem{n[0], "is not set; " + advice})
		}
	}
	return problems
}

func (c *config) loadClusterCert(f *serverFiles) []problem {
	advice := "nodes talk over mutual TLS; for a trial: revoked cert ca && revoked cert node " + c.NodeID
	if bad := c.missing(advice, [2]string{"cluster_ca", c.ClusterCA}, [2]string{"cluster_cert", c.ClusterCert}, [2]string{"cluster_key", c.ClusterKey}); len(bad) > 0 {
		return bad
	}
	certs, err := transport.LoadCerts(c.ClusterCA, c.ClusterCert, c.ClusterKey, nil)
	if err != nil {
		return []problem{{"cluster_ca, cluster_cert, cluster_key", err.Error()}}
	}
	if id := certs.NodeID(); id != c.NodeID {
		return []problem{{c.where("cluster_cert"), fmt.Sprintf("names node %q, but node_id is %q; take the certificate of this node, or set node_id", id, c.NodeID)}}
	}
	f.certs = certs
	f.warnings = append(f.warnings, keyWarnings(c.ClusterKey)...)
	return nil
}

func (c *config) loadAPICert(f *serverFiles) []problem {
	advice := "the API is HTTPS; for a trial: revoked cert ca && revoked cert server api --hosts NAME"
	problems := c.missing(advice, [2]string{"api_cert", c.APICert}, [2]string{"api_key", c.APIKey})
	if len(problems) == 0 {
		cert, err := api.LoadCertificate(c.APICert, c.APIKey)
		if err != nil {
			problems = append(problems, problem{"api_cert, api_key", err.Error()})
		}
		f.apiCert = cert
		f.warnings = append(f.warnings, keyWarnings(c.APIKey)...)
	}
	if f.apiCert != nil {
		f.warnings = append(f.warnings, c.nameWarnings(f.apiCert)...)
	}
	if c.APIClientCA == "" {
		return problems
	}
	pem, err := readBounded(c.APIClientCA, 1<<20)
	if err != nil {
		return append(problems, problem{c.where("api_client_ca"), err.Error()})
	}
	f.clientCAs = x509.NewCertPool()
	if !f.clientCAs.AppendCertsFromPEM(pem) {
		return append(problems, problem{c.where("api_client_ca"), c.APIClientCA + " holds no certificate in PEM"})
	}
	return problems
}

// keyWarnings warns when everybody may read a private key.
func keyWarnings(name string) []string {
	if st, err := os.Stat(name); err == nil && isWorldReadable(st) {
		return []string{readableWarning(name)}
	}
	return nil
}

// checkDataDir finds what package node would refuse of the data directory before it looks at its data.
func (c *config) checkDataDir() []problem {
	st, err := os.Stat(c.DataDir)
	if err == nil && !st.IsDir() || errors.Is(err, syscall.ENOTDIR) {
		return []problem{{c.where("data_dir"), fmt.Sprintf("%s is not a directory, or lies under a file", c.DataDir)}}
	}
	if id := readIdentity(c.DataDir); id.Left && !c.Rejoin {
		return []problem{{c.where("data_dir"), fmt.Sprintf("data directory %s has left its cluster (%s): start with --rejoin to join anew as a new instance, "+
			"or with an empty directory", c.DataDir, id.ClusterID)}}
	}
	return nil
}

// nameWarnings warns when the certificate does not cover the host that others are told.
func (c *config) nameWarnings(cert *api.Certificate) []string {
	got, err := cert.GetCertificate(nil)
	u, badURL := url.Parse(c.APIAdvertise)
	if err != nil || badURL != nil || got.Leaf == nil {
		return nil
	}
	if err := got.Leaf.VerifyHostname(u.Hostname()); err != nil {
		return []string{fmt.Sprintf("%s does not cover %q, the host of api_advertise: callers who check names will refuse it", c.APICert, u.Hostname())}
	}
	return nil
}

func (c *config) loadGossipKey(f *serverFiles) []problem {
	advice := "gossip is encrypted; make one key for all nodes: revoked keygen -f gossip.key"
	if bad := c.missing(advice, [2]string{"gossip_key_file", c.GossipKeyFile}); len(bad) > 0 {
		return bad
	}
	data, warnings, err := readPrivate(c.GossipKeyFile)
	if err == nil {
		f.gossipKey, err = cluster.ParseKey(string(data))
	}
	if err != nil {
		return []problem{{c.where("gossip_key_file"), fmt.Sprintf("%s: %v", c.GossipKeyFile, err)}}
	}
	f.warnings = append(f.warnings, warnings...)
	return nil
}

// checkBootstrap finds out whether a node that is in no cluster could ever get into one, and be
// administrated then.
func (c *config) checkBootstrap(clients []revoked.Client) []problem {
	if isMember(c.DataDir) {
		return nil
	}
	hasAdmin := slices.ContainsFunc(clients, func(c revoked.Client) bool { return c.Has(revoked.RoleAdmin) })
	switch {
	case hasAdmin:
		return nil
	case c.BootstrapExpect > 0:
		return []problem{{"bootstrap_admin_secret_file", "is not set, and bootstrap_clients_file names no administrator: nobody could administrate the new cluster; put a secret of 32 bytes or more into a file and name it here"}}
	case len(c.Join) == 0:
		return []problem{{"", "this node is in no cluster, and nothing says how it gets into one: set bootstrap_expect (a new cluster), join (cluster addresses of one that is there), or bootstrap_admin_secret_file (then tell it with revoked join)"}}
	default:
		return nil
	}
}
