package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"revoked"
	"revoked/api"
	"revoked/cluster"
	"revoked/transport"
)

// devLife is how long certificates made for development are good.
const devLife = 365 * day

// devMaterial makes, in one folder, what a cluster needs beside its settings: a CA, the certificates
// of both ports, the gossip key, the first clients and the secret of the administrator among them. What is
// there and still good is kept.
type devMaterial struct {
	dir   string
	hosts []string // of node 1, 2, ...
}

// nodeName returns the id of the node with that position, counted from 0.
func nodeName(i int) string { return fmt.Sprintf("node%d", i+1) }

func (m devMaterial) path(name string) string { return filepath.Join(m.dir, name) }

func (m devMaterial) make() error {
	authority, err := m.authority()
	if err != nil {
		return err
	}
	for i := range m.hosts {
		if err := m.certificates(authority, i); err != nil {
			return err
		}
	}
	if err := m.gossipKey(); err != nil {
		return err
	}
	return m.adminSecret()
}

// adminSecret puts the secret of the administrator into a file of its own: the command line tool in a
// container reads it (REVOKED_CLIENT_SECRET_FILE).
func (m devMaterial) adminSecret() error {
	clients, err := m.clients()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(clients, func(c devClient) bool { return c.ClientID == adminID })
	name, secret := m.path("admin.secret"), clients[i].ClientSecret+"\n" // clients has seen to it that there is one
	if data, err := readBounded(name, maxConfigFile); err == nil && string(data) == secret {
		return nil
	}
	return writeFiles(true, newFile{name, []byte(secret), privateMode})
}

// authority loads the folder's CA, or makes one.
func (m devMaterial) authority() (*transport.Authority, error) {
	cert, key := m.path("ca.pem"), m.path("ca-key.pem")
	authority, err := transport.LoadAuthority(cert, key)
	if err == nil || !isNotExist(err) {
		return authority, err
	}
	for have, lacks := range map[string]string{cert: key, key: cert} {
		// Somebody took the key away on purpose, or an earlier run was cut short: no reason for a new CA.
		if _, err := os.Lstat(have); err == nil {
			return nil, fmt.Errorf("%s is there without %s: put that back, or take another folder", have, filepath.Base(lacks))
		}
	}
	authority, err = transport.NewAuthority("revoked development CA", 10*devLife)
	if err != nil {
		return nil, err
	}
	err = writeFiles(false, newFile{key, authority.KeyPEM(), privateMode}, newFile{cert, authority.CertPEM(), publicMode})
	return authority, err
}

// certificates makes both certificates of node i.
func (m devMaterial) certificates(authority *transport.Authority, i int) error {
	id, host := nodeName(i), m.hosts[i]
	if name := m.path(id + ".pem"); !m.isGood(name, authority, host) {
		cert, key, err := authority.IssueNode(id, unique(host, id), devLife)
		if err != nil {
			return err
		}
		if err := writeFiles(true, newFile{m.path(id + "-key.pem"), key, privateMode}, newFile{name, cert, publicMode}); err != nil {
			return err
		}
	}
	// Every API certificate covers every host: a load balancer may stand in front of them.
	hosts := unique(append([]string{host, "localhost", "127.0.0.1", "::1", id}, m.hosts...)...)
	if name := m.path(id + "-api.pem"); !m.isGood(name, authority, hosts...) {
		cert, key, err := authority.IssueServer(hosts, devLife)
		if err != nil {
			return err
		}
		return writeFiles(true, newFile{m.path(id + "-api-key.pem"), key, privateMode}, newFile{name, cert, publicMode})
	}
	return nil
}

// isGood tells whether the certificate in the file is of this CA, covers the hosts, lives on for at
// least a month and has its key beside it.
func (m devMaterial) isGood(name string, authority *transport.Authority, hosts ...string) bool {
	data, err := readBounded(name, 1<<20)
	if err != nil {
		return false
	}
	if _, err := readBounded(strings.TrimSuffix(name, ".pem")+"-key.pem", 1<<20); err != nil {
		return false
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	for _, h := range hosts {
		if cert.VerifyHostname(h) != nil {
			return false
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority.CertPEM())
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: pool, CurrentTime: time.Now().Add(30 * day), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

func (m devMaterial) gossipKey() error {
	name := m.path("gossip.key")
	if data, err := readBounded(name, 1<<16); err == nil {
		_, err = cluster.ParseKey(string(data))
		return err
	} else if !isNotExist(err) {
		return err
	}
	key, err := cluster.NewKey()
	if err != nil {
		return err
	}
	text := cluster.FormatKey(key)
	return writeFiles(false, newFile{name, []byte(text), privateMode})
}

// A devClient is a client that dev made; its JSON is that of clients.json.
type devClient struct {
	ClientID     string   `json:"client_id"`
	ClientSecret string   `json:"client_secret"`
	Roles        []string `json:"roles,omitempty"`
}

// devRoles are the clients of a development cluster, in the order they are shown.
func devRoles() []devClient {
	return []devClient{
		{ClientID: adminID, Roles: []string{string(revoked.RoleAdmin)}},
		{ClientID: "issuer", Roles: []string{string(revoked.RoleIssuer)}},
		{ClientID: "resource_server", Roles: []string{string(revoked.RoleResourceServer)}},
		{ClientID: "app"},
		{ClientID: "other_app"},
	}
}

// clients loads clients.json, or makes it with fresh secrets.
func (m devMaterial) clients() ([]devClient, error) {
	name := m.path("clients.json")
	data, err := readBounded(name, maxConfigFile)
	if err == nil {
		return readDevClients(name, data)
	}
	if !isNotExist(err) {
		return nil, err
	}
	clients := devRoles()
	for i := range clients {
		clients[i].ClientSecret = api.NewSecret()
	}
	data, err = json.MarshalIndent(clients, "", "  ")
	if err != nil {
		return nil, err
	}
	return clients, writeFiles(false, newFile{name, append(data, '\n'), privateMode})
}

func readDevClients(name string, data []byte) ([]devClient, error) {
	var clients []devClient
	if err := json.Unmarshal(data, &clients); err != nil {
		return nil, errors.New(name + " is not a list of clients in JSON")
	}
	for _, want := range devRoles() {
		if !slices.ContainsFunc(clients, func(c devClient) bool { return c.ClientID == want.ClientID && c.ClientSecret != "" }) {
			return nil, fmt.Errorf("%s has no secret of client %q", name, want.ClientID)
		}
	}
	return clients, nil
}

// unique returns the words without repeats, in order.
func unique(words ...string) []string {
	var out []string
	for _, w := range words {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}
