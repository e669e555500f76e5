package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// tempDir returns the directory of temporary files.
func (c *Config) tempDir() string {
	if c.TempDir != "" {
		return c.TempDir
	}
	return os.TempDir()
}

// checkTempDir creates and removes a file in the temporary directory. Without that directory a node
// still serves, except bulk registrations whose callers read slowly. So the problem is a warning
// unless temp_dir is set.
func (c *Config) checkTempDir(f *Files) {
	tmp, err := os.CreateTemp(c.tempDir(), "revoked-check-*")
	if err == nil {
		tmp.Close()
		err = os.Remove(tmp.Name())
	}
	switch {
	case err == nil:
	case c.TempDir != "":
		c.addf("temp_dir", "cannot store temporary files: %v", err)
	default:
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s cannot store temporary files: set temp_dir to a directory on "+
			"another file system than data_dir; until then, bulk registrations whose callers read slowly are aborted (%v)",
			c.tempDir(), err))
	}
}

// TempDirWarning returns a warning if temporary files could fill the file system of the data
// directory, or "". This is the case if the temporary directory and the data directory share a file
// system that has less than twice spool_limit free. A node without space for its log stops.
func (c *Config) TempDirWarning() string {
	data, ok := device(c.DataDir)
	temp, ok2 := device(c.tempDir())
	if !ok || !ok2 || data != temp || FreeBytes(c.tempDir()) >= 2*c.SpoolLimit {
		return ""
	}
	return fmt.Sprintf("temporary files (%s) and data_dir (%s) are on the same file system, which is nearly full: "+
		"keep twice spool_limit (%d MiB) of it free, or set temp_dir to another one",
		c.tempDir(), c.DataDir, c.SpoolLimit>>20)
}

// device returns the file system of a path, or that of its nearest parent that exists. ok is false
// if the system does not report it.
func device(path string) (id uint64, ok bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return 0, false
	}
	for {
		st, err := os.Stat(path)
		switch parent := filepath.Dir(path); {
		case err == nil:
			return deviceOf(st)
		case parent == path:
			return 0, false
		default:
			path = parent
		}
	}
}
