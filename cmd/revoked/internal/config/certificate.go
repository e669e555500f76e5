package config

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"revoked/internal/jointoken"
	"revoked/transport/pki"
)

// deriveCertificate sets the files of a node whose certificate comes from a join token. They are
// below data_dir, which the node may write.
func (c *Config) deriveCertificate() {
	if c.ClusterCA != "" || c.ClusterCert != "" || c.ClusterKey != "" || c.DataDir == "" {
		return
	}
	cert := filepath.Join(c.DataDir, "tls", "node.crt")
	if _, err := os.Stat(cert); err != nil && c.JoinTokenFile == "" {
		return
	}
	c.OwnCertificate = true
	c.ClusterCA, c.ClusterCert = filepath.Join(c.DataDir, "tls", "ca.crt"), cert
	c.ClusterKey = filepath.Join(c.DataDir, "tls", "node.key")
}

// TokenRecord returns the path of the file with the digest of the join token for which the
// certificate was issued.
func (c *Config) TokenRecord() string {
	return filepath.Join(filepath.Dir(c.ClusterCert), "used-token")
}

// needsCertificate reports whether this node must request a certificate with its join token. It
// must if it has no certificate, or if it is not a member and its certificate was issued for
// another token. The cluster has no record of the key of such a certificate, and would not renew
// it.
func (c *Config) needsCertificate(token string) bool {
	if _, err := os.Stat(c.ClusterCert); !c.OwnCertificate || errors.Is(err, os.ErrNotExist) {
		return c.OwnCertificate
	}
	t, err := jointoken.Parse(token)
	if err != nil || IsMember(c.DataDir) {
		return false
	}
	digest := jointoken.Digest(t.PublicKey())
	record, _ := os.ReadFile(c.TokenRecord()) // without it, the node requests a certificate again, as the token allows
	return strings.TrimSpace(string(record)) != hex.EncodeToString(digest[:])
}

func (c *Config) loadClusterCert(f *Files) {
	if f.NeedsCertificate = c.needsCertificate(f.JoinToken); f.NeedsCertificate {
		c.addIf(len(c.Join) == 0, "join", "is not set; a node with only a join token gets its certificate from a member")
		c.addIf(IsMember(c.DataDir), "join_token_file", "%s is missing, and a member cannot get another "+
			"certificate with a join token; set cluster_ca, cluster_cert and cluster_key", c.ClusterCert)
		c.addIf(f.JoinToken != "" && !jointoken.HasKey(f.JoinToken), "join_token_file",
			"%s: the token cannot get a certificate (want one that begins with rjt1.); create another, "+
				"or set cluster_ca, cluster_cert and cluster_key", c.JoinTokenFile)
		return
	}
	advice := "nodes use mutual TLS; for a trial: revoked cert ca && revoked cert node " + c.NodeID
	if !c.require(advice, "cluster_ca", "cluster_cert", "cluster_key") {
		return
	}
	certs, err := pki.LoadCerts(c.ClusterCA, c.ClusterCert, c.ClusterKey, nil)
	if err != nil {
		c.note("cluster_ca, cluster_cert, cluster_key", "%v", err)
		return
	}
	if id := certs.NodeID(); id != c.NodeID {
		c.addf("cluster_cert", "is for node %q, but node_id is %q; use the certificate of this node, or set node_id",
			id, c.NodeID)
		return
	}
	f.Certs = certs
	f.warnReadable(c.ClusterKey)
	c.add("cluster_ca_key", c.LoadSigner(f))
}

// LoadSigner reads the key of cluster_ca_key, if it is set and the certificate is loaded.
func (c *Config) LoadSigner(f *Files) (err error) {
	if c.ClusterCAKey == "" || f.Certs == nil {
		return nil
	}
	f.warnReadable(c.ClusterCAKey)
	f.CAKey, err = pki.LoadSigner(f.Certs, c.ClusterCAKey)
	return err
}

// checkClientCA warns if the CA of the callers is also a CA of the nodes. The certificate of a node
// has the name of the node, which the holder of a join token may choose.
func (c *Config) checkClientCA(f *Files) {
	nodes := keysIn(c.ClusterCA)
	if t, err := jointoken.Parse(f.JoinToken); err == nil {
		nodes[t.CA()] = true
	}
	for key := range keysIn(c.APIClientCA) {
		if nodes[key] {
			f.Warnings = append(f.Warnings, "api_client_ca trusts a CA of cluster_ca: a node's certificate authenticates "+
				"at the API as the client of that name; use another CA for clients")
			return
		}
	}
}

// keysIn returns the hashes of the keys of the certificates in a PEM file. It skips unreadable
// data, which other checks report.
func keysIn(name string) map[[32]byte]bool {
	keys := map[[32]byte]bool{}
	rest, _ := os.ReadFile(name)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return keys
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			keys[pki.KeyHash(cert)] = true
		}
	}
}
