package config

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"revoked/internal/jointoken"
	"revoked/transport/pki"
)

// The three files default to a directory below data_dir only for a node whose certificate comes
// from a join token.
func TestDeriveCertificate_TokenOrTLSDir_SetsDefaults(t *testing.T) {
	with, without := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(with, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(with, "tls", "node.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		s    Settings
		want bool
	}{
		"neither":        {Settings{DataDir: without}, false},
		"token":          {Settings{DataDir: without, JoinTokenFile: "token"}, true},
		"files":          {Settings{DataDir: with}, true},
		"token and CA":   {Settings{DataDir: without, JoinTokenFile: "token", ClusterCA: "ca"}, false},
		"token and key":  {Settings{DataDir: without, JoinTokenFile: "token", ClusterKey: "key"}, false},
		"token and cert": {Settings{DataDir: with, JoinTokenFile: "token", ClusterCert: "cert"}, false},
	} {
		c := &Config{Settings: tt.s}
		c.deriveCertificate()
		if c.OwnCertificate != tt.want {
			t.Errorf("%s: got %t, want %t", name, c.OwnCertificate, tt.want)
		}
		if want := filepath.Join(tt.s.DataDir, "tls", "node.key"); tt.want && c.ClusterKey != want {
			t.Errorf("%s: got %s, want %s", name, c.ClusterKey, want)
		}
	}
}

func TestLoadJoinToken_NoCertificate_ReportsProblem(t *testing.T) {
	token := jointoken.New([32]byte{1}).Text()
	for name, tt := range map[string]struct {
		text string
		join []string
		want string // text in the only problem; empty: no problem
	}{
		"valid":               {token, []string{"a:1"}, ""},
		"BOM and white space": {"\ufeff" + token + " \t\r\n", []string{"a:1"}, ""},
		"cut": {token[:50], []string{"a:1"},
			"join token: damaged or incomplete (want rjt1. and 86 more characters)"},
		"older form": {strings.Repeat("A", 43), []string{"a:1"}, "the token cannot get a certificate"},
		"no join":    {token, nil, "a node with only a join token gets its certificate from a member"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "token")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &Config{Settings: Settings{NodeID: "node4", DataDir: dir, JoinTokenFile: file, Join: tt.join}}
		f := &Files{}
		c.deriveCertificate()
		c.loadJoinToken(f)
		c.loadClusterCert(f)
		if !f.NeedsCertificate || tt.want == "" && f.JoinToken != token {
			t.Errorf("%s: got need %t, want true and only the token", name, f.NeedsCertificate)
		}
		if got := c.problems; (len(got) == 0) != (tt.want == "") || len(got) > 0 && !strings.Contains(got[0].Text, tt.want) {
			t.Errorf("%s: got %v, want %q", name, got, tt.want)
		}
		for _, p := range c.problems {
			if strings.Contains(p.Text, tt.text) {
				t.Errorf("%s: the problem shows the token", name)
			}
		}
	}
}

// The cluster has no record of the key of a certificate that was issued for another join token. A
// node must not become a member with it.
func TestLoadClusterCert_OtherToken_NeedsNewCertificate(t *testing.T) {
	ca, err := pki.NewCA("CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.IssueNode("node4", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	token := jointoken.New(pki.KeyHash(ca.Certificate()))
	digest := jointoken.Digest(token.PublicKey())
	const member, left = `{"node_id":"node4","cluster_id":"c"}`, `{"node_id":"node4","cluster_id":"c","left":true}`
	for name, tt := range map[string]struct {
		record, identity string
		token            string
		noCert, want     bool
		problem          string
	}{
		"same token":      {record: hex.EncodeToString(digest[:]) + "\n", token: token.Text()},
		"another token":   {record: strings.Repeat("0", 64) + "\n", token: token.Text(), want: true},
		"no record":       {token: token.Text(), want: true},
		"older token":     {token: strings.Repeat("A", 43)},
		"member":          {identity: member, token: token.Text()},
		"has left":        {identity: left, token: token.Text(), want: true},
		"no token":        {},
		"member, no file": {identity: member, token: token.Text(), noCert: true, want: true, problem: "node.crt is missing"},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "tls"), 0o700); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"tls/ca.crt": string(ca.CertPEM()), "tls/node.crt": string(cert),
			"tls/node.key": string(key), "tls/used-token": tt.record, "identity.json": tt.identity, "token": tt.token} {
			if content == "" || tt.noCert && file == "tls/node.crt" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := &Config{Settings: Settings{NodeID: "node4", DataDir: dir, Join: []string{"a:1"}}}
		if tt.token != "" {
			c.JoinTokenFile = filepath.Join(dir, "token")
		}
		f := &Files{}
		c.deriveCertificate()
		c.loadJoinToken(f)
		c.loadClusterCert(f)
		if f.NeedsCertificate != tt.want || (f.Certs == nil) != tt.want {
			t.Errorf("%s: got need %t, certificate %t, want need %t", name, f.NeedsCertificate, f.Certs != nil, tt.want)
		}
		got := ""
		for _, p := range c.problems {
			got += p.Text
		}
		if tt.problem == "" && got != "" || !strings.Contains(got, tt.problem) {
			t.Errorf("%s: got problems %q, want %q", name, got, tt.problem)
		}
	}
}

func TestLoadSigner_OtherKey_IsRefused(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca, err := pki.NewCA("CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA("other", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca": ca.CertPEM(), "cert": cert, "key": key, "ca-key": ca.KeyPEM(),
		"other-key": other.KeyPEM(), "text": []byte("x")} {
		if err := os.WriteFile(path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"ca-key":    "",
		"other-key": "CA key " + path("other-key") + ": " + path("ca") + " has no valid self-signed CA with this key",
		"text":      "CA key " + path("text") + ": not a PEM file",
		"none":      "read CA key: open " + path("none") + ": no such file or directory",
	} {
		c := &Config{Settings: Settings{NodeID: "node1", ClusterCA: path("ca"), ClusterCert: path("cert"),
			ClusterKey: path("key"), ClusterCAKey: path(name)}}
		f := &Files{}
		c.loadClusterCert(f)
		got := ""
		if len(c.problems) > 0 {
			got = c.problems[0].Text
		}
		if got != want || (f.CAKey != nil) != (want == "") {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// A node's certificate must not make its holder a caller of the API.
func TestLoadAPICert_ClientCAOfTheNodes_Warns(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	nodes, err := pki.NewCA("nodes", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := pki.NewCA("clients", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	nodesFile, clientsFile := write("nodes.pem", nodes.CertPEM()), write("clients.pem", clients.CertPEM())
	both := write("both.pem", append(clients.CertPEM(), nodes.CertPEM()...))
	token := jointoken.New(pki.KeyHash(nodes.Certificate())).Text()
	const want = "api_client_ca trusts a CA of cluster_ca: a node's certificate authenticates at the API as the client " +
		"of that name; use another CA for clients"
	for name, tt := range map[string]struct {
		cluster, client, token string
		warns                  bool
	}{
		"another CA":             {nodesFile, clientsFile, "", false},
		"another CA, token":      {"", clientsFile, token, false},
		"the same CA":            {nodesFile, nodesFile, "", true},
		"one of two":             {nodesFile, both, "", true},
		"the CA in a join token": {filepath.Join(dir, "none"), both, token, true},
	} {
		c := &Config{Settings: Settings{ClusterCA: tt.cluster, APIClientCA: tt.client}}
		f := &Files{JoinToken: tt.token}
		c.loadAPICert(f)
		if got := slices.Contains(f.Warnings, want); got != tt.warns || len(f.Warnings) > 1 {
			t.Errorf("%s: got warnings %q, want it: %t", name, f.Warnings, tt.warns)
		}
	}
}
