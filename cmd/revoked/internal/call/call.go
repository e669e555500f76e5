package call

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/cli"
)

// A Func calls the API with the arguments of a command.
type Func[T any] func(c *client.Client, ctx context.Context, args []string) (client.Answer[T], error)

// Command completes cmd, which makes one call: see Run.
func Command[T any](
	cmd *cobra.Command, do Func[T], table func(*cobra.Command, T) error, after ...func(*cobra.Command, T) error,
) *cobra.Command {
	conn := AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return Run(cmd, conn, args, do, table, after...)
	}
	return cmd
}

// Run makes one call and prints the answer: the body with -o json, otherwise with table. It
// then calls each function of after, up to the first error.
func Run[T any](
	cmd *cobra.Command, conn *Flags, args []string, do Func[T],
	table func(*cobra.Command, T) error, after ...func(*cobra.Command, T) error,
) error {
	c, asJSON, err := conn.Open()
	if err != nil {
		return err
	}
	a, err := do(c, cmd.Context(), args)
	switch {
	case err != nil:
		err = conn.Advise(err)
	case asJSON:
		err = cli.PrintBody(cmd.OutOrStdout(), a.Body)
	default:
		err = table(cmd, a.Value)
	}
	for _, f := range after {
		if err == nil {
			err = f(cmd, a.Value)
		}
	}
	return err
}

// WithoutArgs adapts a method without arguments to a Func.
func WithoutArgs[T any](do func(*client.Client, context.Context) (client.Answer[T], error)) Func[T] {
	return func(c *client.Client, ctx context.Context, _ []string) (client.Answer[T], error) { return do(c, ctx) }
}

// WithArg adapts a method with one argument to a Func, which passes the first argument.
func WithArg[T any](do func(*client.Client, context.Context, string) (client.Answer[T], error)) Func[T] {
	return func(c *client.Client, ctx context.Context, args []string) (client.Answer[T], error) {
		return do(c, ctx, args[0])
	}
}

// Change completes cmd, which makes one change. It prints done on standard error, with the
// first argument in place of ARG, and the log index of the change.
func Change(cmd *cobra.Command, do Func[client.Applied], done string) *cobra.Command {
	return Command(cmd, do, func(cmd *cobra.Command, a client.Applied) error {
		done = strings.Replace(done, "ARG", cmd.Flags().Arg(0), 1)
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s (log index %d)\n", cli.Clean(done), a.Index)
		return err
	})
}
