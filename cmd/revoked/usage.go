package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"revoked/cmd/revoked/internal/cli"
)

// otherWords are the words that other systems use for a command. The error for such a word suggests
// the command.
var otherWords = map[string][]string{
	"revoked dev":                  {"demo", "quickstart", "try", "local"},
	"revoked server":               {"start", "run", "agent", "serve", "daemon", "node"},
	"revoked healthcheck":          {"ready", "ping", "probe", "health", "check"},
	"revoked cert":                 {"ca", "certificate", "tls", "pki"},
	"revoked keygen":               {"key", "gossip", "genkey", "gossip-key", "hash"},
	"revoked members":              {"nodes", "peers", "list-peers", "member"},
	"revoked status":               {"info", "leader", "state"},
	"revoked remove":               {"evict", "kick", "forget", "remove-peer", "remove-node"},
	"revoked transfer-leader":      {"step-down", "stepdown", "leader-transfer", "move-leader"},
	"revoked token":                {"tokens", "revoke", "introspect", "register"},
	"revoked explain":              {"why", "reason"},
	"revoked debug":                {"diagnose", "support", "bundle", "report"},
	"revoked grants":               {"grant", "sessions", "list-grants"},
	"revoked client":               {"clients", "user", "users", "app", "apps"},
	"revoked revoke-jti":           {"deny", "denylist", "deny-list", "jti"},
	"revoked revoke-all":           {"cutoff", "cut-off", "revoke", "logout"},
	"revoked settings":             {"setting", "config", "configure", "set"},
	"revoked snapshot":             {"backup", "restore", "dump", "export", "save"},
	"revoked recover":              {"force-new-cluster", "disaster"},
	"revoked token introspect":     {"check", "verify", "validate", "show", "lookup"},
	"revoked token register":       {"add", "create", "issue", "import"},
	"revoked token revoke":         {"delete", "remove", "end"},
	"revoked client create":        {"add", "new", "register"},
	"revoked client update":        {"edit", "change", "patch", "set"},
	"revoked client list":          {"ls"},
	"revoked client show":          {"get", "describe", "info"},
	"revoked client rotate-secret": {"rotate", "secret", "renew", "reset-secret"},
	"revoked client disable":       {"suspend", "lock", "block"},
	"revoked client enable":        {"unlock", "unblock", "resume"},
	"revoked client delete":        {"remove", "rm"},
	"revoked snapshot save":        {"create", "take", "backup"},
	"revoked snapshot inspect":     {"verify", "check", "show", "info"},
	"revoked snapshot restore":     {"load", "import"},
}

// prepare turns wrong flags, wrong arguments and unknown commands of the whole tree into usage
// errors.
func prepare(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.SetFlagErrorFunc(flagError)
	if words := otherWords[cmd.CommandPath()]; len(words) > 0 {
		cmd.SuggestFor = append(cmd.SuggestFor, words...)
	}
	if args := cmd.Args; args != nil {
		cmd.Args = func(c *cobra.Command, given []string) error {
			if err := args(c, given); err != nil {
				return cli.UsageError("%w", err)
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil {
		cmd.RunE, cmd.Args = needCommand, cobra.ArbitraryArgs
	}
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

// needCommand runs for a command that only groups others.
func needCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), cmd.UsageString())
		return cli.UsageError("no command given")
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	return cli.UsageError("%s%s", msg, suggestCommand(cmd, args))
}

// suggestCommand names commands that resemble args, or "". It never quotes args.
func suggestCommand(cmd *cobra.Command, args []string) string {
	near := cmd.SuggestionsFor(args[0])
	if len(near) == 0 { // such as `revoked cluster members` and `revoked token client list`
		for _, arg := range args {
			if c, _, err := cmd.Root().Find([]string{arg}); err == nil && c.HasParent() && !c.Hidden {
				near = append(near, c.CommandPath())
			}
		}
	}
	if len(near) == 0 && !cmd.HasParent() {
		near = commandsBelow(cmd, args[0])
	}
	if len(near) == 0 {
		return ""
	}
	slices.Sort(near)
	return "; did you mean " + strings.Join(slices.Compact(near), " or ") + "?"
}

// commandsBelow returns the paths of commands of the second level that are called name, such as
// "revoked client rotate-secret".
func commandsBelow(root *cobra.Command, name string) (paths []string) {
	for _, group := range root.Commands() {
		for _, c := range group.Commands() {
			if !c.Hidden && !group.Hidden && (c.Name() == name || slices.Contains(c.SuggestFor, name)) {
				paths = append(paths, c.CommandPath())
			}
		}
	}
	return paths
}

// flagError returns the usage error of a wrong flag, with the flags that resemble it.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return cli.UsageError("%w", err)
	}
	var names cobra.Command
	names.SuggestionsMinimumDistance = 2
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	near := names.SuggestionsFor(unknown.GetSpecifiedName())
	if len(near) == 0 || len(near) > 4 {
		return cli.UsageError("%w", err)
	}
	return cli.UsageError("%w; did you mean --%s?", err, strings.Join(near, " or --"))
}
