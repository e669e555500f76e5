package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"revoked/transport"
)

const day = 24 * time.Hour

func certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make certificates for development",
		Long: "Make a certificate authority and certificates from it.\n\n" +
			"For development and trials. In production let your own CA issue them: a node's certificate\n" +
			"carries the URI SAN revoked://node/<node id> and is good for server and client.",
	}
	cmd.AddCommand(certCACommand(), certNodeCommand(), certServerCommand(), certClientCommand(), certDevCommand())
	return cmd
}

// A certOutput is where a certificate goes, and for how long it is good.
type certOutput struct {
	dir   string
	days  int
	force bool
}

func (o *certOutput) addFlags(cmd *cobra.Command, days int) {
	cmd.Flags().StringVar(&o.dir, "dir", ".", "folder to write to")
	cmd.Flags().IntVar(&o.days, "days", days, "days that it is good for")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace files that are there")
}

func (o *certOutput) validFor() (time.Duration, error) {
	if o.days < 1 || o.days > 36500 {
		return 0, usageError("--days takes 1 to 36500, not %d", o.days)
	}
	return time.Duration(o.days) * day, nil
}

// write writes NAME.pem and NAME-key.pem and says so.
func (o *certOutput) write(cmd *cobra.Command, name string, certPEM, keyPEM []byte) error {
	cert, key := filepath.Join(o.dir, name+".pem"), filepath.Join(o.dir, name+"-key.pem")
	if err := writeFiles(o.force, newFile{key, keyPEM, privateMode}, newFile{cert, certPEM, publicMode}); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s and %s\n", cert, key)
	return nil
}

// An issuerFlags names the CA that signs.
type issuerFlags struct{ ca, key string }

func (i *issuerFlags) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&i.ca, "ca", "", "certificate of the CA (default: ca.pem in --dir)")
	cmd.Flags().StringVar(&i.key, "ca-key", "", "its private key (default: ca-key.pem in --dir)")
}

func (i *issuerFlags) load(dir string) (*transport.Authority, error) {
	ca, key := i.ca, i.key
	if ca == "" {
		ca = filepath.Join(dir, "ca.pem")
	}
	if key == "" {
		key = filepath.Join(dir, "ca-key.pem")
	}
	authority, err := transport.LoadAuthority(ca, key)
	if isNotExist(err) {
		return nil, fmt.Errorf("%w; make a CA first: revoked cert ca --dir %s", err, shellQuote(dir))
	}
	return authority, err
}

func certCACommand() *cobra.Command {
	var out certOutput
	var name string
	cmd := &cobra.Command{
		Use: "ca", Short: "Make a certificate authority: ca.pem and ca-key.pem", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			validFor, err := out.validFor()
			if err != nil {
				return err
			}
			authority, err := transport.NewAuthority(name, validFor)
			if err != nil {
				return err
			}
			return out.write(cmd, "ca", authority.CertPEM(), authority.KeyPEM())
		},
	}
	cmd.Flags().StringVar(&name, "name", "revoked development CA", "common name of the CA")
	out.addFlags(cmd, 3650)
	return cmd
}

// An issue makes one certificate from a CA.
type issue func(authority *transport.Authority, name string, hosts []string, validFor time.Duration) (certPEM, keyPEM []byte, err error)

// issueCommand completes a command that makes one certificate named by its argument.
func issueCommand(cmd *cobra.Command, hosts *[]string, do issue) *cobra.Command {
	var out certOutput
	var from issuerFlags
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		validFor, err := out.validFor()
		if err != nil {
			return err
		}
		if args[0] != filepath.Base(args[0]) || args[0] == "." || args[0] == ".." {
			return usageError("%q cannot be the name of a file", args[0])
		}
		names, err := certHosts(*hosts)
		if err != nil {
			return err
		}
		authority, err := from.load(out.dir)
		if err != nil {
			return err
		}
		certPEM, keyPEM, err := do(authority, args[0], names, validFor)
		if err != nil {
			return err
		}
		return out.write(cmd, args[0], certPEM, keyPEM)
	}
	out.addFlags(cmd, 365)
	from.addFlags(cmd)
	return cmd
}

func certNodeCommand() *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use: "node NODE_ID", Short: "Make the certificate of a node's cluster port", Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringSliceVar(&hosts, "hosts", nil, "names and addresses of the node")
	return issueCommand(cmd, &hosts, func(a *transport.Authority, name string, hosts []string, validFor time.Duration) ([]byte, []byte, error) {
		return a.IssueNode(name, hosts, validFor)
	})
}

func certServerCommand() *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use: "server NAME", Short: "Make the certificate of an API port", Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringSliceVar(&hosts, "hosts", nil, "names and addresses that callers use (default: NAME)")
	return issueCommand(cmd, &hosts, func(a *transport.Authority, name string, hosts []string, validFor time.Duration) ([]byte, []byte, error) {
		if len(hosts) == 0 {
			if !isHost(name) {
				return nil, nil, usageError("%q is neither a DNS name nor an IP address: name them with --hosts", name)
			}
			hosts = []string{name}
		}
		return a.IssueServer(hosts, validFor)
	})
}

func certClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "client NAME", Short: "Make a certificate for a caller of the API (api_client_ca)", Args: cobra.ExactArgs(1),
	}
	return issueCommand(cmd, new([]string), func(a *transport.Authority, name string, _ []string, validFor time.Duration) ([]byte, []byte, error) {
		return a.IssueClient(name, validFor)
	})
}

func certDevCommand() *cobra.Command {
	var dir string
	var hosts []string
	var nodes int
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Make everything that nodes on several machines or containers need",
		Long: "Make a CA, node1.pem to nodeN.pem and their keys (cluster port), node1-api.pem to nodeN-api.pem\n" +
			"and their keys (API port), gossip.key, clients.json and admin.secret (the administrator's, once\n" +
			"more) in one folder. What is there already is kept, so it may run before every start.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := devHosts(hosts, nodes, cmd.Flags().Changed("nodes"))
			if err != nil {
				return err
			}
			m := devMaterial{dir: dir, hosts: names}
			if err := m.make(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is complete: CA, certificates of %d nodes, gossip key, clients.json, admin.secret\n", dir, len(names))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder to write to")
	cmd.Flags().StringSliceVar(&hosts, "hosts", nil, "name or address of each node, in order (default: localhost for all)")
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many nodes (default: as many as --hosts)")
	return cmd
}
