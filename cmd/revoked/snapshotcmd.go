package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"revoked/fsm"
)

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Back up, inspect and restore the state of the cluster",
	}
	cmd.AddCommand(snapshotSaveCommand(), snapshotInspectCommand(), snapshotRestoreCommand())
	return cmd
}

func snapshotSaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save FILE|-",
		Short: "Save a backup, verified, to a file or standard output",
		Long: "Save a backup of the state of the cluster. All of it is verified: FILE appears under its name\n" +
			"only when it is whole and on disk; with - a bad end of the stream is told by exit code 1.\n" +
			"It holds digests of tokens and hashes of secrets, never one in the clear.",
		Args: cobra.ExactArgs(1),
	}
	conn := addConnectionFlags(cmd)
	force := cmd.Flags().Bool("force", false, "replace FILE where it exists")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := conn.open()
		if err != nil {
			return err
		}
		// The half-written file goes away on Ctrl-C too.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if args[0] == "-" {
			header, err := fetchSnapshot(ctx, a, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "verified backup of cluster %s at log index %d\n", printable(header.ClusterID), header.Index)
			return nil
		}
		header, err := saveSnapshot(ctx, a, args[0], *force)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "saved and verified %s\n", args[0])
		return printHeader(cmd.OutOrStdout(), a.asJSON, header)
	}
	return cmd
}

// fetchSnapshot copies a backup to w and verifies it on the way. What was written is good only where
// the error is nil.
func fetchSnapshot(ctx context.Context, a *apiClient, w io.Writer) (fsm.SnapshotHeader, error) {
	c := call{what: "fetch a snapshot", method: http.MethodGet, path: "/v1/snapshot", accept: "application/octet-stream"}
	resp, addr, err := a.open(ctx, c)
	if err != nil {
		return fsm.SnapshotHeader{}, err
	}
	defer resp.Body.Close()
	out := &output{to: w}
	header, err := verifyWhile(resp.Body, out)
	if out.err != nil { // to whoever reads on the way it looks like the end of the snapshot
		return header, fmt.Errorf("save the snapshot: %w", out.err)
	}
	if err != nil {
		return header, fmt.Errorf("%s at %s: %w; it was not saved", c.what, addr, cause(ctx, err))
	}
	return header, nil
}

// verifyWhile copies r to w to its end while all of it is verified.
func verifyWhile(r io.Reader, w io.Writer) (fsm.SnapshotHeader, error) {
	tee := io.TeeReader(r, w)
	header, err := fsm.InspectSnapshot(tee)
	if err != nil {
		return header, err
	}
	// What comes after a whole snapshot does not belong to it.
	n, err := io.Copy(io.Discard, tee)
	if err != nil {
		return header, err
	}
	if n > 0 {
		return header, fmt.Errorf("%d bytes follow the snapshot", n)
	}
	return header, nil
}

// saveSnapshot makes file durable and whole, or does not make it.
func saveSnapshot(ctx context.Context, a *apiClient, file string, force bool) (fsm.SnapshotHeader, error) {
	var header fsm.SnapshotHeader
	if _, err := os.Lstat(file); err == nil && !force {
		return header, fmt.Errorf("%s exists; --force replaces it", file)
	}
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return header, fmt.Errorf("save the snapshot: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if header, err = fetchSnapshot(ctx, a, tmp); err != nil {
		return header, err
	}
	if err := tmp.Sync(); err != nil {
		return header, fmt.Errorf("save the snapshot: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return header, fmt.Errorf("save the snapshot: %w", err)
	}
	if err := publish(tmp.Name(), file, force); err != nil {
		return header, fmt.Errorf("save the snapshot: %w", err)
	}
	return header, syncDir(dir)
}

// publish gives tmp its name. Without force it never takes the place of a file, not even of one that
// appeared a moment ago.
func publish(tmp, file string, force bool) error {
	if force {
		return os.Rename(tmp, file)
	}
	err := os.Link(tmp, file)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// A file system without hard links: look once more, then rename.
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s: %w", file, fs.ErrExist)
	}
	return os.Rename(tmp, file)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

func snapshotInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect FILE|-",
		Short: "Verify a backup and show what it holds",
		Args:  cobra.ExactArgs(1),
	}
	var output string
	addOutputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := wantJSON(output)
		if err != nil {
			return err
		}
		f, err := openInput(cmd, args[0])
		if err != nil {
			return fmt.Errorf("inspect the snapshot: %w", err)
		}
		defer f.Close()
		header, err := verifyWhile(f, io.Discard)
		if err != nil {
			return fmt.Errorf("%s is no good backup: %w", args[0], err)
		}
		return printHeader(cmd.OutOrStdout(), asJSON, header)
	}
	return cmd
}

// A headerAnswer is what `snapshot` prints as JSON.
type headerAnswer struct {
	FormatVersion int    `json:"format_version"`
	ClusterID     string `json:"cluster_id"`
	Index         uint64 `json:"index"`
	Term          uint64 `json:"term"`
	Tokens        uint64 `json:"tokens"`
	Grants        uint64 `json:"grants"`
	Clients       uint64 `json:"clients"`
	Cutoffs       uint64 `json:"cutoffs"`
	Tombstones    uint64 `json:"tombstones"`
	Bytes         int64  `json:"bytes"`
	LogHash       string `json:"log_hash"`
	StateHash     string `json:"state_hash"`
	CreatedAt     string `json:"created_at"`
}

func printHeader(w io.Writer, asJSON bool, h fsm.SnapshotHeader) error {
	a := headerAnswer{
		FormatVersion: h.Version, ClusterID: h.ClusterID, Index: h.Index, Term: h.Term,
		Tokens: h.Tokens, Grants: h.Grants, Clients: h.Clients, Cutoffs: h.Cutoffs, Tombstones: h.Tombstones, Bytes: h.Bytes,
		LogHash: hex.EncodeToString(h.LogHash[:]), StateHash: hex.EncodeToString(h.StateHash[:]),
		CreatedAt: h.CreatedStamp.Std().Format(time.RFC3339),
	}
	if asJSON {
		return json.NewEncoder(w).Encode(a)
	}
	u := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return printPairs(w, [][2]string{
		{"Cluster", a.ClusterID},
		{"Log index", u(a.Index)},
		{"Term", u(a.Term)},
		{"Made at", a.CreatedAt},
		{"Tokens", u(a.Tokens)},
		{"Grants", u(a.Grants)},
		{"Clients", u(a.Clients)},
		{"Cut-offs", u(a.Cutoffs)},
		{"Tombstones", u(a.Tombstones)},
		{"Bytes", strconv.FormatInt(a.Bytes, 10)},
		{"Log hash", a.LogHash},
		{"State hash", a.StateHash},
		{"Format", strconv.Itoa(a.FormatVersion)},
	})
}
