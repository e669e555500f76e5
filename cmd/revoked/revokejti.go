package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/input"
)

// maxJTI is the longest jti that the API accepts, in bytes.
const maxJTI = 512

func revokeJTICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke-jti FILE|-",
		Short: "Revoke JWTs of a trusted issuer by their jti, without the tokens",
		Long: "Revoke the JWTs of a trusted issuer whose jti are in a file, one per line. It is safe to\n" +
			"send a file again. Put only jti into the file, never tokens.",
		Example: "  revoked revoke-jti --issuer https://as.example --reason \"leaked log\" jtis.txt",
		Args:    cobra.ExactArgs(1),
	}
	conn := call.AddFlags(cmd)
	f := cmd.Flags()
	issuer := f.String("issuer", "", "iss claim of the tokens")
	reason := f.String("reason", "", "reason, shown in the feed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *issuer == "" {
			return cli.UsageError("--issuer is required: the issuer of the tokens")
		}
		c, asJSON, err := conn.Open()
		if err != nil {
			return err
		}
		in, err := input.Open(cmd, args[0])
		if err != nil {
			return fmt.Errorf("read the jti: %w", input.WithoutPath(err))
		}
		defer in.Close()
		list := &denyList{template: client.JTIRevocation{Issuer: *issuer, Reason: *reason}}
		return list.send(cmd, conn, c, in, asJSON)
	}
	return cmd
}

// A denyList is a file of jti that is sent as lines of JSON.
type denyList struct {
	template client.JTIRevocation
	failed   error // error that ended the read of the file
}

// send sends the jti in a file. If asJSON is true, it prints each result as it arrives. Otherwise
// it prints each failure, and a summary at the end.
func (d *denyList) send(cmd *cobra.Command, conn *call.Flags, c *client.Client, in io.Reader, asJSON bool) error {
	lines, out := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.failed = d.write(out, in)
		_ = out.CloseWithError(d.failed) // nil is the end of the file
	}()
	sum, complete := client.RevokeSummary{}, false
	err := c.RevokeJTIs(cmd.Context(), lines, true, func(l client.RevokeLine, line []byte) error {
		if l.Lines != nil {
			sum, complete = l.RevokeSummary, true
		}
		if asJSON {
			return cli.PrintBody(cmd.OutOrStdout(), line)
		}
		if l.Error == "" {
			return nil
		}
		text := l.Error
		if l.Detail != "" {
			text += ": " + l.Detail
		}
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "jti %d: %s\n", l.Line, cli.Clean(text))
		return err
	})
	_ = lines.Close()
	<-done
	switch {
	case d.failed != nil && !errors.Is(d.failed, io.ErrClosedPipe):
		return fmt.Errorf("%w; the lines before it were sent, and it is safe to send them again", d.failed)
	case err != nil:
		return fmt.Errorf("%w; it is safe to send the whole file again", conn.Advise(err))
	case !complete:
		return errors.New("the response ended before its summary: some jti may not be revoked; " +
			"it is safe to send the whole file again")
	}
	if !asJSON {
		row := []string{fmt.Sprint(sum.Revoked), fmt.Sprint(sum.Failed)}
		if err := cli.PrintTable(cmd.OutOrStdout(), []string{"REVOKED", "FAILED"}, [][]string{row}); err != nil {
			return err
		}
	}
	if sum.Failed > 0 {
		return fmt.Errorf("failed revocations: %d; it is safe to send the whole file again", sum.Failed)
	}
	return nil
}

// write writes a body for each jti. It skips empty lines, and a byte order mark at the start. It
// returns an error at the first line that is probably not a jti: skipping the line would leave its
// token active.
func (d *denyList) write(out io.Writer, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4<<10), maxJTI+16)
	body := json.NewEncoder(out)
	body.SetEscapeHTML(false)
	for n := 1; lines.Scan(); n++ {
		jti := strings.TrimSuffix(lines.Text(), "\r")
		if n == 1 {
			jti = strings.TrimPrefix(jti, "\ufeff")
		}
		switch {
		case jti == "":
			continue
		case !utf8.ValidString(jti):
			return fmt.Errorf("line %d is not UTF-8", n)
		case len(jti) > maxJTI:
			return fmt.Errorf("line %d is too long for a jti: at most %d bytes", n, maxJTI)
		case strings.HasPrefix(jti, "eyJ") && strings.Count(jti, ".") == 2:
			return fmt.Errorf("line %d looks like a token, not like a jti", n)
		case strings.HasPrefix(strings.TrimSpace(jti), `{"`):
			return fmt.Errorf("line %d is JSON, not a jti: send such lines to POST /v1/revocations", n)
		case strings.TrimSpace(jti) != jti:
			return fmt.Errorf("line %d begins or ends with white space", n)
		}
		entry := d.template
		entry.JTI = jti
		if err := body.Encode(entry); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line is too long for a jti: at most %d bytes", maxJTI)
	}
	return lines.Err()
}
