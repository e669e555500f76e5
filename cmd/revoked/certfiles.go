package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A newFile is a file about to be made.
type newFile struct {
	name string
	data []byte
	mode fs.FileMode
}

// privateMode is the mode of keys and secrets, publicMode that of certificates.
const (
	privateMode fs.FileMode = 0o600
	publicMode  fs.FileMode = 0o644
)

// writeFiles makes the files. Unless force is set it makes none of them when one is there already.
func writeFiles(force bool, files ...newFile) error {
	if !force {
		for _, f := range files {
			if _, err := os.Lstat(f.name); err == nil {
				return fmt.Errorf("%s is there already; use --force to replace it", f.name)
			} else if !isNotExist(err) {
				return err
			}
		}
	}
	for _, f := range files {
		if err := replaceFile(f); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile puts the file in place with one rename: a reader sees the old one or the new one, whole,
// and never with a wider mode than it should have.
func replaceFile(f newFile) error {
	if err := os.MkdirAll(filepath.Dir(f.name), 0o700); err != nil {
		return err
	}
	var unique [6]byte
	if _, err := rand.Read(unique[:]); err != nil {
		return err
	}
	tmp := f.name + "." + hex.EncodeToString(unique[:])
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return err
	}
	_, err = out.Write(f.data)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		err = os.Rename(tmp, f.name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
