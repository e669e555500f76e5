// Package audit implements `revoked audit`, which shows and follows the audit log.
//
// It prints each entry as it arrives, in constant memory. It removes control characters from the
// text of entries, because callers choose some of it.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"revoked"
	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
)

// Command returns `revoked audit`.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what",
		Long: "Show the audit log: one line for each accepted change, and for each refused call by an administrator\n" +
			"or operator. With --follow, wait for further entries until you stop the command. If a node fails,\n" +
			"continue at another node of REVOKED_ADDR. Needs the role auditor or admin. With -o json,\n" +
			"print each entry as a line of JSON.",
		Example: "  revoked audit --since 24h\n" +
			"  revoked audit --kind client.update --object app\n" +
			"  revoked audit --follow -o json",
		Args: cobra.NoArgs,
	}
	var q client.AuditQuery
	flags := cmd.Flags()
	follow := flags.Bool("follow", false, "wait for further entries")
	flags.StringVar(&q.Since, "since", "",
		"only entries from this time on: RFC 3339, Unix seconds, or how long ago, such as 24h")
	flags.StringVar(&q.Until, "until", "", "only entries up to this time, in the same forms")
	flags.StringVar(&q.Kind, "kind", "", "only entries of this kind, such as client.update")
	flags.StringVar(&q.Actor, "actor", "", "only entries whose actor is this client")
	flags.StringVar(&q.Object, "object", "", "only entries whose object has this id, or is the token with this digest")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		q.Since, q.Until = momentOf(q.Since, time.Now()), momentOf(q.Until, time.Now())
		return checkKind(q.Kind)
	}
	conn := call.AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, asJSON, err := conn.Open()
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		show := func(e client.AuditEntry, _ []byte) error { return printEntry(out, &e) }
		if asJSON {
			show = func(_ client.AuditEntry, raw []byte) error {
				_, err := fmt.Fprintf(out, "%s\n", raw)
				return err
			}
		}
		if !*follow {
			return conn.Advise(c.Audit(cmd.Context(), q, show))
		}
		err = c.FollowAudit(cmd.Context(), q, show)
		if errors.Is(err, context.Canceled) { // the user has stopped the command
			return nil
		}
		return conn.Advise(err)
	}
	return cmd
}

// checkKind returns a usage error unless kind is empty or the name of a kind of audit entry.
func checkKind(kind string) error {
	if kind == "" || revoked.IsAuditKind(revoked.AuditKind(kind)) {
		return nil
	}
	var names []string
	for _, k := range revoked.AuditKinds() {
		names = append(names, string(k))
	}
	return cli.UsageError("unknown kind %s; the kinds are %s", cli.ShellQuote(kind), strings.Join(names, ", "))
}

// momentOf converts a duration before now into RFC 3339. It returns any other text unchanged.
func momentOf(text string, now time.Time) string {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return text
	}
	return now.Add(-d).UTC().Format(time.RFC3339)
}

// printEntry prints an entry as one line: time, actor, kind, object, then the rest.
func printEntry(w io.Writer, e *client.AuditEntry) error {
	var object []string
	for _, name := range slices.Sorted(maps.Keys(e.Object)) {
		value := fmt.Sprint(e.Object[name])
		if seconds, err := time.ParseDuration(value + "s"); name == "issued_before" && err == nil {
			value = cli.Date(int64(seconds.Seconds()))
		}
		object = append(object, name+"="+value)
	}
	line := fmt.Sprintf("%s  %-12s  %-16s  %-7s  %s", cli.Date(e.Time), e.Actor, e.Kind, e.Outcome,
		strings.Join(object, " "))
	for _, part := range [...]struct{ before, text, after string }{
		{" (", e.Detail, ")"}, {" reason: ", e.Reason, ""}, {" via ", e.Node, ""}, {" request ", e.RequestID, ""},
	} {
		if part.text != "" {
			line += part.before + part.text + part.after
		}
	}
	_, err := fmt.Fprintln(w, cli.Clean(strings.TrimRight(line, " ")))
	return err
}
