package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"revoked/cmd/revoked/internal/backup"
	"revoked/cmd/revoked/internal/backup/schedule"
	"revoked/cmd/revoked/internal/files"
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
			"%s is in data_dir, which is moved away when a node is replaced", c.BackupDir)
	}
	c.checkBucket()
}

// checkBucket adds a problem for each invalid setting of the backup.
func (c *Config) checkBucket() {
	for key, v := range map[string]string{
		"backup_s3_bucket": c.BackupS3Bucket, "backup_s3_prefix": c.BackupS3Prefix,
		"backup_s3_access_key_file": c.BackupS3AccessKeyFile, "backup_s3_secret_key_file": c.BackupS3SecretKeyFile,
		"backup_s3_ca_file": c.BackupS3CAFile,
	} {
		c.addIf(v != "" && c.BackupS3Endpoint == "", key, "has no effect without backup_s3_endpoint")
	}
	if c.BackupS3Endpoint == "" {
		return
	}
	_, err := backup.ParseEndpoint(c.BackupS3Endpoint)
	c.add("backup_s3_endpoint", err)
	c.addIf(c.BackupSchedule == "", "backup_s3_endpoint", "has no effect without backup_schedule and backup_dir")
	c.add("backup_s3_bucket", backup.CheckBucket(c.BackupS3Bucket))
	c.add("backup_s3_prefix", backup.CheckPrefix(c.BackupS3Prefix))
	c.addIf(c.BackupS3SecretKeyFile == "" && c.BackupS3AccessKeyFile != "", "backup_s3_secret_key_file",
		"is not set, but backup_s3_access_key_file is")
	c.addIf(c.BackupS3AccessKeyFile == "" && c.BackupS3SecretKeyFile != "", "backup_s3_access_key_file",
		"is not set, but backup_s3_secret_key_file is")
	c.addIf(c.BackupS3Region == "", "backup_s3_region", "is empty")
}

// isBelow reports whether path is dir or is below it.
func isBelow(path, dir string) bool {
	path, err := filepath.Abs(path)
	dir, errDir := filepath.Abs(dir)
	if err != nil || errDir != nil {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// tryBackups adds a problem if the directory of backups cannot be written, and for each key file
// that cannot be used. It never creates the directory: if its disk is not mounted, backups must not
// fill the disk of the mount point.
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
		c.add("backup_dir", fmt.Errorf("cannot store backups: %w", err))
	}
	// A node also starts without these files, because it reads them for each request.
	for key, name := range map[string]string{"backup_s3_access_key_file": c.BackupS3AccessKeyFile,
		"backup_s3_secret_key_file": c.BackupS3SecretKeyFile} {
		if name != "" {
			_, err := backup.ReadKey(name)
			c.add(key, err)
		}
	}
}

// loadBucketFiles checks the CA of the bucket, and the modes of the key files.
func (c *Config) loadBucketFiles(f *Files) {
	if c.BackupS3CAFile != "" {
		_, err := files.TrustCA(c.BackupS3CAFile)
		c.add("backup_s3_ca_file", err)
	}
	for _, name := range []string{c.BackupS3AccessKeyFile, c.BackupS3SecretKeyFile} {
		if name != "" {
			f.warnReadable(name)
		}
	}
}

// SharesDisk reports whether the backups are on the same file system as the data directory.
func (c *Config) SharesDisk() bool {
	if c.BackupDir == "" {
		return false
	}
	data, ok := device(c.DataDir)
	backups, ok2 := device(c.BackupDir)
	return ok && ok2 && data == backups
}
