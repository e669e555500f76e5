// Package files reads small files with a limit and replaces files in one step.
//
// A reader of a replaced file sees the whole old or the whole new content. The file never has a
// wider mode than the caller requested. The package is not safe against another writer of the same
// directory.
package files

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"revoked/internal/durable"
)

// ErrTooLong is returned when a file is longer than its reader accepts.
var ErrTooLong = errors.New("file too long")

// Read returns the content of the file, or ErrTooLong if it has more than limit bytes.
func Read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w (want at most %d bytes)", name, ErrTooLong, limit)
	}
	return b, nil
}

// A File is a file to be written.
type File struct {
	Name string
	Data []byte
	Mode fs.FileMode
}

// Private returns a file that only its owner may read.
func Private(name string, data []byte) File { return File{name, data, 0o600} }

// Public returns a file that every user may read.
func Public(name string, data []byte) File { return File{name, data, 0o644} }

// Write replaces each file with one rename and creates missing directories. Without force it writes
// no file if one of them exists. After an error, the files before the failed one have been written.
func Write(force bool, all ...File) error {
	if !force {
		for _, f := range all {
			if _, err := os.Lstat(f.Name); err == nil {
				return fmt.Errorf("%s exists already; use --force to replace it", f.Name)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, f := range all {
		if err := os.MkdirAll(filepath.Dir(f.Name), 0o700); err != nil {
			return err
		}
		if err := durable.Replace(f.Name, f.Data, f.Mode); err != nil {
			return err
		}
	}
	return nil
}

// Create creates a file of mode 0600 with the content that write writes. The file appears whole and
// on disk, or not at all. Without force, Create never replaces a file, except in a race on a file
// system without hard links.
func Create(name string, force bool, write func(io.Writer) error) error {
	if _, err := os.Lstat(name); err == nil && !force {
		return fmt.Errorf("%s exists already; use --force to replace it", name)
	}
	dir := filepath.Dir(name)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _, _ = tmp.Close(), os.Remove(tmp.Name()) }()
	if err := write(tmp); err != nil {
		return err
	}
	if err = errors.Join(tmp.Sync(), tmp.Close()); err == nil {
		err = publish(tmp.Name(), name, force)
	}
	if err == nil {
		err = durable.SyncDirIfSupported(dir)
	}
	return err
}

// publish renames tmp to name. Without force it never replaces a file, except in a race on a file
// system without hard links.
func publish(tmp, name string, force bool) error {
	if force {
		return os.Rename(tmp, name)
	}
	err := os.Link(tmp, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// The file system has no hard links: check again, then rename.
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return os.Rename(tmp, name)
}

// bom is the byte order mark that editors and PowerShell put before UTF-8 text.
var bom = []byte("\ufeff")

// maxPEM limits a file of certificates.
const maxPEM = 1 << 20

// CertPool returns the certificates of a PEM file.
func CertPool(name string) (*x509.CertPool, error) {
	data, err := Read(name, maxPEM)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bytes.TrimPrefix(data, bom)) {
		return nil, fmt.Errorf("%s contains no PEM certificate", name)
	}
	return pool, nil
}

// TrustCA returns the configuration of a TLS client that trusts the CAs in a PEM file, or those of
// the system if name is empty.
func TrustCA(name string) (cfg *tls.Config, err error) {
	cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	if name != "" {
		cfg.RootCAs, err = CertPool(name)
	}
	return cfg, err
}
