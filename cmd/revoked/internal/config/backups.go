package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"revoked/cmd/revoked/internal/backup/schedule"
)

// checkBackups adds a problem for each invalid setting of backups. It reads no file.
func (c *Config) checkBackups() {
	c.addIf(c.BackupSchedule != "" && c.BackupDir == "", "backup_dir", "is not set, but backup_schedule is")
	c.addIf(c.BackupSchedule == "" && c.BackupDir != "", "backup_schedule", "is not set, but backup_dir is")
	if c.BackupSchedule != "" {
		_, err := schedule.Parse(c.BackupSchedule)
		c.add("backup_schedule", err)
	}
	if c.BackupDir != "" {
		c.addIf(isBelow(c.BackupDir, c.DataDir), "backup_dir",
			"%s lies in data_dir, which is moved away to replace a node", c.BackupDir)
	}
}

// isBelow reports whether path is dir or lies below it.
func isBelow(path, dir string) bool {
	path, err := filepath.Abs(path)
	dir, errDir := filepath.Abs(dir)
	if err != nil || errDir != nil {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// tryBackups adds a problem if the directory of backups cannot be written. It is never created: if
// its disk is not mounted, backups must not fill the disk below.
func (c *Config) tryBackups() {
	if c.BackupDir == "" {
		return
	}
	tmp, err := os.CreateTemp(c.BackupDir, "revoked-check-*")
	if err == nil {
		tmp.Close()
		err = os.Remove(tmp.Name())
	}
	if err != nil {
		c.add("backup_dir", fmt.Errorf("cannot hold backups: %w", err))
	}
}

// SharesDisk reports whether backups are on the file system of the data directory.
func (c *Config) SharesDisk() bool {
	if c.BackupDir == "" {
		return false
	}
	data, ok := device(c.DataDir)
	backups, ok2 := device(c.BackupDir)
	return ok && ok2 && data == backups
}
