package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/server"
)

func serverCommand() *cobra.Command {
	var flags config.Flags
	var check bool
	parent := -1
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run one node",
		Long: "Run one node. Every setting is a key of the file, a flag and a variable: node_id, --node-id,\n" +
			"REVOKED_NODE_ID. A flag overrides a variable, a variable the file, the file the default. A relative\n" +
			"path in the file is relative to the directory of the file, any other to the working directory. The\n" +
			"node reads certificates and log_level again on SIGHUP and when their files change.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check {
				return server.CheckConfig(&flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			stop, end := notifyStop(os.Interrupt, syscall.SIGTERM)
			defer end()
			if parent >= 0 {
				go watchParent(parent, stop.begin)
			}
			return server.Run(cmd.Context(), stop.Stop, &flags, readVersion(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().SortFlags = false
	flags.AddTo(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check-config", false,
		"check the settings and the files they name, report every problem, and exit")
	cmd.Flags().IntVar(&parent, "parent-fd", -1, "stop when the other end of this pipe is closed")
	cmd.Flags().Lookup("parent-fd").Hidden = true
	return cmd
}

// A serverStop turns signals into the shutdown of a node.
type serverStop struct {
	server.Stop
	begin context.CancelFunc
}

// notifyStop begins the shutdown with the first of the signals and ends its delay with the second.
// The next signal kills the process as if no handler had been installed. After Release, the second
// signal kills the process. end uninstalls the handler.
func notifyStop(signals ...os.Signal) (stop serverStop, end func()) {
	begin, cancelBegin := context.WithCancel(context.Background())
	now, cancelNow := context.WithCancel(context.Background())
	released, release := context.WithCancel(context.Background())
	ended, end := context.WithCancel(context.Background())
	received := make(chan os.Signal, 2)
	signal.Notify(received, signals...)
	go func() {
		defer signal.Stop(received)
		select {
		case <-received:
			cancelBegin()
		case <-ended.Done():
			return
		}
		select {
		case <-received:
			cancelNow()
		case <-released.Done():
		case <-ended.Done():
		}
	}()
	return serverStop{server.Stop{Begin: begin.Done(), Now: now.Done(), Release: release}, cancelBegin}, end
}

// watchParent calls stop when the parent closes its end of the pipe or exits. A read in progress
// cannot be canceled, so this goroutine may run as long as the process.
func watchParent(fd int, stop func()) {
	defer stop()
	f := os.NewFile(uintptr(fd), "parent")
	if f == nil {
		return
	}
	defer f.Close()
	_, _ = f.Read(make([]byte, 1)) // the parent never writes, so Read returns when the pipe closes
}
