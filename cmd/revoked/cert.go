package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devfolder"
	"revoked/cmd/revoked/internal/files"
	"revoked/cmd/revoked/internal/rotateca"
	"revoked/transport/pki"
)

func certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make certificates, and move a cluster to another CA",
		Long: "Make a certificate authority and certificates from it.\n\n" +
			"For development and trials. In production use your own CA instead: a node's certificate\n" +
			"has the URI SAN revoked://node/<node id> and is valid for server and client.",
	}
	cmd.AddCommand(certCACommand(), certDevCommand(), rotateca.Command(),
		issueCommand("node NODE_ID", "Make the certificate of a node's cluster port", "names and addresses of the node",
			(*pki.CA).IssueNode),
		issueCommand("server NAME", "Make the certificate of an API port",
			"names and addresses that callers use (default: NAME)", issueServer),
		issueCommand("client NAME", "Make a certificate for a caller of the API (api_client_ca)", "",
			func(ca *pki.CA, name string, _ []string, validFor time.Duration) (certPEM, keyPEM []byte, err error) {
				return ca.IssueClient(name, validFor)
			}))
	return cmd
}

type certOutput struct {
	dir   string
	days  int
	force bool
}

func (o *certOutput) addFlags(cmd *cobra.Command, days int) {
	cmd.Flags().StringVar(&o.dir, "dir", ".", "directory to write to")
	cmd.Flags().IntVar(&o.days, "days", days, "validity in days")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace existing files")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if o.days < 1 || o.days > 36500 {
			return cli.UsageError("--days must be 1 to 36500, not %d", o.days)
		}
		return nil
	}
}

func (o *certOutput) validFor() time.Duration { return time.Duration(o.days) * 24 * time.Hour }

func (o *certOutput) write(cmd *cobra.Command, name string, certPEM, keyPEM []byte) error {
	cert, key := filepath.Join(o.dir, name+".pem"), filepath.Join(o.dir, name+"-key.pem")
	if err := files.Write(o.force, files.Private(key, keyPEM), files.Public(cert, certPEM)); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s and %s\n", cert, key)
	return nil
}

func certCACommand() *cobra.Command {
	var out certOutput
	var name string
	cmd := &cobra.Command{
		Use: "ca", Short: "Make a certificate authority: ca.pem and ca-key.pem", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ca, err := pki.NewCA(name, out.validFor())
			if err != nil {
				return err
			}
			return out.write(cmd, "ca", ca.CertPEM(), ca.KeyPEM())
		},
	}
	cmd.Flags().StringVar(&name, "name", "revoked development CA", "common name of the CA")
	out.addFlags(cmd, 3650)
	return cmd
}

// issueCommand returns a command that calls issue to create the certificate its argument names. If
// hostsHelp is empty, the command has no flag --hosts.
func issueCommand(
	use, short, hostsHelp string,
	issue func(ca *pki.CA, name string, hosts []string, validFor time.Duration) (certPEM, keyPEM []byte, err error),
) *cobra.Command {
	var out certOutput
	var hosts []string
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1)}
	out.addFlags(cmd, 365)
	caFile := cmd.Flags().String("ca", "", "certificate of the CA (default: ca.pem in --dir)")
	caKey := cmd.Flags().String("ca-key", "", "private key of the CA (default: ca-key.pem in --dir)")
	if hostsHelp != "" {
		cmd.Flags().StringSliceVar(&hosts, "hosts", nil, hostsHelp)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := args[0]
		if name != filepath.Base(name) || name == "." || name == ".." {
			return cli.UsageError("%q cannot be the name of a file", name)
		}
		names, err := cli.Hosts(hosts)
		if err != nil {
			return err
		}
		ca, err := pki.LoadCA(cmp.Or(*caFile, filepath.Join(out.dir, "ca.pem")),
			cmp.Or(*caKey, filepath.Join(out.dir, "ca-key.pem")))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; create a CA first: revoked cert ca --dir %s", err, cli.ShellQuote(out.dir))
		}
		if err != nil {
			return err
		}
		certPEM, keyPEM, err := issue(ca, name, names, out.validFor())
		if err != nil {
			return err
		}
		return out.write(cmd, name, certPEM, keyPEM)
	}
	return cmd
}

func issueServer(ca *pki.CA, name string, hosts []string, validFor time.Duration) (certPEM, keyPEM []byte, err error) {
	if len(hosts) == 0 {
		if !cli.IsHost(name) {
			return nil, nil, cli.UsageError("%q is neither a DNS name nor an IP address: set --hosts", name)
		}
		hosts = []string{name}
	}
	return ca.IssueServer(hosts, validFor)
}

func certDevCommand() *cobra.Command {
	var dir string
	var hosts []string
	var nodes int
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Make everything that nodes on several machines or containers need",
		Long: "Make a CA, node1.pem to nodeN.pem and their keys (cluster port), node1-api.pem to nodeN-api.pem\n" +
			"and their keys (API port), gossip.key, clients.json and admin.secret (the administrator's\n" +
			"secret) in one directory. Existing files are kept, so you can run it before every start.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := devfolder.Hosts(hosts, nodes, cmd.Flags().Changed("nodes"))
			if err != nil {
				return err
			}
			if err := (devfolder.Folder{Dir: dir, Hosts: names}).Make(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(),
				"%s is complete: CA, certificates of %s, gossip key, clients.json, admin.secret\n", dir,
				english.Plural(len(names), "node", "nodes"))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "directory to write to")
	cmd.Flags().StringSliceVar(&hosts, "hosts", nil, "name or address of each node, in order (default: localhost for all)")
	cmd.Flags().IntVar(&nodes, "nodes", 3, "number of nodes (default: as many as --hosts)")
	return cmd
}
