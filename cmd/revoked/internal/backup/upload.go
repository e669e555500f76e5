package backup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// upload copies the newest backup of the directory to the bucket. It then removes the oldest
// objects beyond the number to keep.
func (b *Backups) upload(ctx context.Context, cluster string) (File, error) {
	newest := b.tasks[0].newest()
	file, err := os.Open(filepath.Join(b.cfg.Dir, newest.Name))
	if err != nil {
		return newest, err
	}
	defer file.Close()
	header, err := readBack(ctx, file) // the disk may have damaged the file since it was saved
	if err != nil {
		return newest, err
	}
	if _, err := file.Seek(0, 0); err != nil {
		return newest, err
	}
	local := func(name string) bool {
		_, err := os.Lstat(filepath.Join(b.cfg.Dir, name))
		return err == nil
	}
	if err := b.bucket.abortUnfinished(ctx, local); err != nil {
		b.cfg.Log.Warn("cannot remove unfinished backup uploads", "target", targetS3, "error", err)
	}
	if err := b.bucket.put(ctx, newest.Name, file, header.Bytes); err != nil {
		return newest, err
	}
	all, err := b.bucket.list(ctx, cluster)
	if err != nil {
		return newest, err
	}
	found := false
	for _, f := range all {
		found = found || f.Name == newest.Name && f.Bytes == header.Bytes
	}
	if !found {
		return newest, fmt.Errorf("the bucket does not list %s with %d bytes after the upload", newest.Name, header.Bytes)
	}
	for _, old := range surplus(all, newest, b.cfg.Keep) {
		if err := b.bucket.remove(ctx, old.Name); err != nil {
			b.cfg.Log.Warn("cannot remove old backup", "target", targetS3, "error", err)
			break
		}
	}
	return newest, nil
}

// newestUploaded returns the newest backup of a cluster in the bucket.
func (b *Backups) newestUploaded(ctx context.Context, cluster string) (File, error) {
	all, err := b.bucket.list(ctx, cluster)
	if err != nil || len(all) == 0 {
		return File{}, err
	}
	return all[len(all)-1], nil
}
