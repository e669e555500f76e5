package main

import "github.com/spf13/cobra"

// clientCommands are the commands that talk to a running node, and those that work on a backup.
func clientCommands() []*cobra.Command {
	return []*cobra.Command{
		joinCommand(),
		leaveCommand(),
		membersCommand(),
		statusCommand(),
		removeCommand(),
		transferLeaderCommand(),
		tokenCommand(),
		clientCommand(),
		revokeAllCommand(),
		snapshotCommand(),
		benchCommand(),
	}
}
