package rotateca

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/files"
	"revoked/transport/pki"
)

// The files in the directory of the CA.
const (
	caFile      = "ca.pem"
	keyFile     = "ca-key.pem"
	nextFile    = "next-ca.pem"
	nextKeyFile = "next-ca-key.pem"
	bothFile    = "both-ca.pem"
	oldFile     = "previous-ca.pem"
	oldKeyFile  = "previous-ca-key.pem"
)

// maxFile bounds a file of certificates, in bytes.
const maxFile = 1 << 20

// A rotation is one run of the command.
type rotation struct {
	cmd      *cobra.Command
	dir      string
	name     string // common name of the next CA
	caDays   int
	certDays int
	write    bool
}

// Command returns `revoked cert rotate-ca`.
func Command() *cobra.Command {
	r := &rotation{}
	cmd := &cobra.Command{
		Use:   "rotate-ca",
		Short: "Move a cluster to another CA, step by step",
		Long: "Show which CAs the members trust and which certificates they use, and print the next step. Without\n" +
			"--write, no file changes. The directory has ca.pem, the CA of the cluster port; its key is not needed.\n" +
			"Run the command again after each step, until it reports that the rotation is complete.\n" +
			"If a step would cut off members, the command lists them and stops.",
		Args: cobra.NoArgs,
	}
	conn := call.AddFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.dir, "dir", ".", "directory of ca.pem, for the new files too")
	f.StringVar(&r.name, "name", "", "common name of the next CA (default: revoked CA and the time)")
	f.IntVar(&r.caDays, "ca-days", 3650, "validity of the next CA in days")
	f.IntVar(&r.certDays, "days", 365, "validity of the nodes' certificates in days")
	f.BoolVar(&r.write, "write", false, "write the files of this step")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if min(r.caDays, r.certDays) < 1 || max(r.caDays, r.certDays) > 36500 {
			return cli.UsageError("--ca-days and --days must be 1 to 36500")
		}
		api, asJSON, err := conn.Open()
		if err != nil {
			return err
		}
		r.cmd = cmd
		cas, err := r.authorities()
		if err != nil {
			return err
		}
		members, err := api.Members(cmd.Context())
		if err != nil {
			return conn.Advise(err)
		}
		return r.run(members.Value.Members, cas, asJSON)
	}
	return cmd
}

func (r *rotation) path(name string) string { return filepath.Join(r.dir, name) }

// authorities reads the CAs from the directory.
func (r *rotation) authorities() (cas authorities, err error) {
	if cas.old, err = readCAs(r.path(caFile)); err != nil {
		return cas, fmt.Errorf("the CA of the cluster port: %w", err)
	}
	next, err := readCAs(r.path(nextFile))
	if errors.Is(err, fs.ErrNotExist) {
		return cas, nil
	}
	if err != nil {
		return cas, err
	}
	cas.next = next[0]
	if cas.old[0].Equal(cas.next) { // the last step is done, or was interrupted
		if cas.old, err = readCAs(r.path(oldFile)); err != nil {
			return cas, err
		}
	}
	return cas, checkSubjects(cas.old, cas.next)
}

// checkSubjects returns an error if two CAs have the same subject: a node that trusts one of them
// would seem to trust the other.
func checkSubjects(old []*x509.Certificate, next *x509.Certificate) error {
	for _, ca := range old {
		if bytes.Equal(ca.RawSubject, next.RawSubject) {
			return fmt.Errorf("the next CA has the subject of the current one, %s: choose another --name", next.Subject)
		}
	}
	return nil
}

// readCAs reads a PEM file of CA certificates.
func readCAs(name string) (cas []*x509.Certificate, err error) {
	data, err := files.Read(name, maxFile)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if !c.IsCA {
			return nil, fmt.Errorf("%s: %q is not a CA certificate", name, c.Subject.CommonName)
		}
		cas = append(cas, c)
	}
	if len(cas) == 0 {
		return nil, fmt.Errorf("%s has no certificate", name)
	}
	return cas, nil
}

// run examines all members, prints their state, and does the next step.
func (r *rotation) run(members []client.Member, cas authorities, asJSON bool) error {
	nodes := make([]node, len(members))
	var looks sync.WaitGroup
	for i, m := range members {
		looks.Go(func() { nodes[i] = look(r.cmd.Context(), m.NodeID, m.Cluster, cas) })
	}
	looks.Wait()
	if err := context.Cause(r.cmd.Context()); err != nil {
		return err
	}
	p := newPlan(nodes, cas.next != nil)
	if len(nodes) == 0 {
		p.problems = append(p.problems, "the cluster has no members")
	}
	if err := r.print(nodes, p, asJSON); err != nil {
		return err
	}
	if len(p.problems) > 0 {
		return fmt.Errorf("the rotation cannot continue:\n  %s", strings.Join(p.problems, "\n  "))
	}
	made, advice, err := r.do(p, nodes, cas)
	if err != nil {
		return err
	}
	out := r.cmd.ErrOrStderr()
	for _, f := range made {
		verb := "would write"
		if r.write {
			verb = "wrote"
		}
		fmt.Fprintf(out, "%s %s\n", verb, f)
	}
	if len(made) > 0 && !r.write {
		advice = "Run this command with --write."
	}
	_, err = fmt.Fprintln(out, advice)
	return err
}

// do writes the files of a step, if r.write is set. It returns their names, and the instructions
// for the operator.
func (r *rotation) do(p plan, nodes []node, cas authorities) (made []string, advice string, err error) {
	list := strings.Join(p.nodes, ", ")
	const again = "A node reads new files within 2 s. Then run this command again."
	switch p.step {
	case stepBegin:
		made, err = r.begin(cas)
		return made, "Run this command again: it prints where to copy " + bothFile + ".", err
	case stepTrust:
		return nil, fmt.Sprintf("Copy %s over cluster_ca of %s. %s", bothFile, list, again), nil
	case stepRenew:
		made, err = r.renew(nodes)
		return made, fmt.Sprintf("Copy next-NODE-key.pem over cluster_key of each of %s, then next-NODE.pem over "+
			"cluster_cert. %s", list, again), err
	case stepRemove:
		return nil, fmt.Sprintf("Copy %s over cluster_ca of %s. %s", nextFile, list, again), nil
	}
	made, err = r.finish()
	done := fmt.Sprintf("The rotation is complete. Delete %s and the next-* files in this directory.", oldKeyFile)
	return made, done, err
}

// begin makes the next CA. It writes the certificate last, because the certificate shows that the
// step is done.
func (r *rotation) begin(cas authorities) ([]string, error) {
	names := []string{r.path(nextKeyFile), r.path(bothFile), r.path(nextFile)}
	if !r.write {
		return names, nil
	}
	name := cmp.Or(r.name, "revoked CA "+time.Now().UTC().Format(time.RFC3339))
	ca, err := pki.NewCA(name, time.Duration(r.caDays)*24*time.Hour)
	if err != nil {
		return nil, err
	}
	if err := checkSubjects(cas.old, ca.Certificate()); err != nil {
		return nil, err
	}
	var both bytes.Buffer
	for _, c := range cas.old {
		both.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	both.Write(ca.CertPEM())
	// Without next-ca.pem, an earlier run was interrupted before any node got its files.
	return names, files.Write(true, files.Private(names[0], ca.KeyPEM()), files.Public(names[1], both.Bytes()),
		files.Public(names[2], ca.CertPEM()))
}

// renew makes certificates of the next CA for the nodes that have none, with the names in their
// current certificates. It keeps files of an earlier run, because a node may use them already.
func (r *rotation) renew(nodes []node) (made []string, err error) {
	var ca *pki.CA
	for _, n := range nodes {
		cert, key := r.path("next-"+n.id+".pem"), r.path("next-"+n.id+"-key.pem")
		if _, err := os.Stat(cert); n.fromNext || err == nil {
			continue
		}
		made = append(made, key, cert)
		if !r.write {
			continue
		}
		if ca == nil {
			if ca, err = pki.LoadCA(r.path(nextFile), r.path(nextKeyFile)); err != nil {
				return nil, err
			}
		}
		certPEM, keyPEM, err := ca.IssueNode(n.id, hostsOf(n.leaf), time.Duration(r.certDays)*24*time.Hour)
		if err != nil {
			return nil, err
		}
		if err := files.Write(true, files.Private(key, keyPEM), files.Public(cert, certPEM)); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func hostsOf(leaf *x509.Certificate) []string {
	hosts := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

// finish keeps the files of the old CA under other names, and puts the next CA in their place. If
// finish runs again, after an interruption or at the end, it moves only the files that are left.
func (r *rotation) finish() (made []string, err error) {
	for _, m := range []struct{ now, next, old string }{{keyFile, nextKeyFile, oldKeyFile}, {caFile, nextFile, oldFile}} {
		next, err := files.Read(r.path(m.next), maxFile)
		if err != nil {
			return nil, err
		}
		now, err := files.Read(r.path(m.now), maxFile)
		absent := errors.Is(err, fs.ErrNotExist) && m.now == keyFile // the key of the old CA is elsewhere
		if err != nil && !absent {
			return nil, err
		}
		if bytes.Equal(now, next) {
			continue
		}
		file := files.Public
		if m.now == keyFile {
			file = files.Private
		}
		moved := []files.File{file(r.path(m.old), now), file(r.path(m.now), next)}
		if absent {
			moved = moved[1:]
		}
		for _, f := range moved {
			made = append(made, f.Name)
			if !r.write {
				continue
			}
			if err := files.Write(true, f); err != nil {
				return nil, err
			}
		}
	}
	return made, nil
}
