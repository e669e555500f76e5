package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"revoked/internal/textsafe"
)

// An Output counts the bytes and keeps the first write error, which cobra's help and some commands
// ignore.
type Output struct {
	To    io.Writer
	Bytes int64
	Err   error
}

// Write writes to o.To.
func (o *Output) Write(p []byte) (int, error) {
	n, err := o.To.Write(p)
	o.Bytes += int64(n)
	if o.Err == nil {
		o.Err = err
	}
	return n, err
}

// AddOutputFlag adds the flag -o to cmd.
func AddOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "",
		`output format: "table" or "json" (REVOKED_OUTPUT; default table)`)
}

// WantJSON reports whether output selects JSON. If output is empty, REVOKED_OUTPUT decides.
func WantJSON(output string) (bool, error) {
	switch cmp.Or(output, os.Getenv("REVOKED_OUTPUT"), "table") {
	case "json":
		return true, nil
	case "table":
		return false, nil
	}
	return false, UsageError(`-o (REVOKED_OUTPUT): output must be "table" or "json"`)
}

// PrintBody writes the body of an answer unchanged, ended by one newline.
func PrintBody(w io.Writer, body []byte) error {
	_, err := fmt.Fprintf(w, "%s\n", bytes.TrimRight(body, "\r\n"))
	return err
}

// PrintTable writes rows below a heading. It cleans the cells, which come from the network.
func PrintTable(w io.Writer, heading []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = cmp.Or(Clean(cell), "-")
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// PrintPairs writes one name and its value per line. In pairs, names and values alternate.
func PrintPairs(w io.Writer, pairs ...any) error {
	var rows [][]string
	for pair := range slices.Chunk(pairs, 2) {
		text := fmt.Sprint(pair[1])
		switch v := pair[1].(type) {
		case bool:
			text = YesNo(v)
		case []string:
			text = strings.Join(v, " ")
		}
		rows = append(rows, []string{fmt.Sprint(pair[0]), text})
	}
	return PrintTable(w, rows[0], rows[1:])
}

// YesNo returns "yes" or "no".
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// maxText bounds the text that Clean returns, in bytes.
const maxText = 1000

// Date formats Unix seconds as RFC 3339 in UTC.
func Date(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// Clean returns [textsafe.Clean] of s: control characters could move the cursor of a terminal.
func Clean(s string) string { return textsafe.Clean(s, maxText) }

// ShellQuote returns s as one word of a POSIX shell.
func ShellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
