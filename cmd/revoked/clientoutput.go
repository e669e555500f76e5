package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// printBody writes the body of an answer as it came, ended by one newline.
func printBody(w io.Writer, body []byte) error {
	_, err := fmt.Fprintf(w, "%s\n", bytes.TrimRight(body, "\r\n"))
	return err
}

// printTable writes rows below a heading. Cells come from the network: they are made printable.
func printTable(w io.Writer, heading []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = first(printable(cell), "-")
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// printPairs writes one name and value a line.
func printPairs(w io.Writer, pairs [][2]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range pairs {
		fmt.Fprintf(tw, "%s\t%s\n", p[0], first(printable(p[1]), "-"))
	}
	return tw.Flush()
}

// parseAnswer reads the body of an answer into v.
func parseAnswer(what string, body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s: the answer is not what this version understands: %w", what, err)
	}
	return nil
}

// answer prints body as JSON where that was asked for, and else calls table with the parsed answer.
func answer[T any](cmd *cobra.Command, a *apiClient, what string, body []byte, table func(io.Writer, T) error) error {
	if a.asJSON {
		return printBody(cmd.OutOrStdout(), body)
	}
	var v T
	if err := parseAnswer(what, body, &v); err != nil {
		return err
	}
	return table(cmd.OutOrStdout(), v)
}

// yesNo words a bool.
func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// millis words milliseconds; -1 is never.
func millis(ms int64) string {
	if ms < 0 {
		return "never"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}
