package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"revoked/transport"
)

func serverCommand() *cobra.Command {
	var flags configFlags
	var check bool
	parent := -1
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run one node",
		Long: "Run one node. Every setting is a key of the file, a flag and a variable: node_id, --node-id,\n" +
			"REVOKED_NODE_ID. A flag goes before a variable, a variable before the file, the file before the\n" +
			"default. Relative paths start from the file's folder where they stand in the file, else from the\n" +
			"working directory. Certificates and log_level are taken over on SIGHUP and when files change.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check {
				return checkConfig(&flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			ctx, stop := stopSignals(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if parent >= 0 {
				// A parent that lets go is no signal: the one that may follow still finds its handler.
				var letGo context.CancelFunc
				ctx, letGo = context.WithCancel(ctx)
				defer letGo()
				go watchParent(parent, letGo)
			}
			return serve(ctx, &flags, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().SortFlags = false
	flags.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check-config", false, "say what is wrong with the settings and the files they name, and end")
	cmd.Flags().IntVar(&parent, "parent-fd", -1, "stop when the other end of this pipe is closed")
	cmd.Flags().Lookup("parent-fd").Hidden = true
	return cmd
}

// checked loads the settings and every file they name. The error tells everything that is wrong; cfg
// is never nil.
func checked(flags *configFlags) (cfg *config, files *serverFiles, err error) {
	cfg, err = flags.load(os.LookupEnv)
	var unreadable *configError
	if err != nil && !errors.As(err, &unreadable) {
		return cfg, nil, err
	}
	var problems []problem
	if unreadable != nil {
		problems = unreadable.problems
	}
	problems = append(problems, cfg.derive(os.Hostname)...)
	// A value that could not be read would be found wrong a second time as the zero it left.
	if unreadable == nil {
		problems = append(problems, cfg.checkValues()...)
	}
	files, bad := cfg.loadFiles()
	problems = append(problems, bad...)
	if len(problems) > 0 {
		return cfg, files, &configError{slices.Compact(problems)}
	}
	return cfg, files, nil
}

// checkConfig is server --check-config.
func checkConfig(flags *configFlags, stdout, stderr io.Writer) error {
	cfg, files, err := checked(flags)
	if err != nil {
		return err
	}
	for _, w := range append(cfg.warnings(), files.warnings...) {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	fmt.Fprintf(stdout, "configuration is right: node %s in region %s, API %s (%s), cluster %s (%s), gossip %s (%s), data %s\n",
		cfg.NodeID, cfg.Region, cfg.APIAddr, cfg.APIAdvertise, cfg.ClusterAddr, cfg.ClusterAdvertise, cfg.GossipAddr, cfg.GossipAdvertise, cfg.DataDir)
	return nil
}

// serve runs a node until ctx ends, or until the node must end. It returns nil after an orderly stop.
func serve(ctx context.Context, flags *configFlags, stderr io.Writer) error {
	cfg, files, err := checked(flags)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(parseLevel(cfg.LogLevel))
	log := newLogger(stderr, cfg.LogFormat, level)
	for _, w := range append(cfg.warnings(), files.warnings...) {
		log.Warn(w)
	}
	// They were checked before there was a log; from here on they tell of their renewal and their end.
	if files.certs, err = transport.LoadCerts(cfg.ClusterCA, cfg.ClusterCert, cfg.ClusterKey, log); err != nil {
		return err
	}
	s := &server{cfg: cfg, files: files, log: log, stderr: stderr}
	if err := s.open(ctx); err != nil {
		return s.ended(withAdvice(err))
	}
	reload := &reloader{flags: flags, file: cfg.file, files: files, level: level, log: log}
	s.background(reload.run)
	log.Info("node is up", "node", cfg.NodeID, "version", readVersion().Version, "region", cfg.Region, "data_dir", cfg.DataDir,
		"api", cfg.APIAdvertise, "cluster", cfg.ClusterAdvertise, "gossip", cfg.GossipAdvertise)
	return s.ended(s.wait(ctx))
}

// ended stops everything and returns why the node ended. What went wrong in the stop comes of that, where there was
// a reason: it is logged, so that the reason is the last that is said.
func (s *server) ended(reason error) error {
	err := s.stop()
	if reason == nil {
		return err
	}
	if err != nil {
		s.log.Warn("the stop was not in order", "error", err)
	}
	return reason
}
