package host

import (
	"fmt"
	"syscall"
)

// filesystems maps the magic numbers of statfs(2) to names. ext2 and ext3 share the number of ext4.
var filesystems = map[uint32]string{
	0x01021994: "tmpfs", 0x858458f6: "ramfs", 0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs",
	0x2fc12fc1: "zfs", 0x794c7630: "overlayfs", 0xf2f52010: "f2fs", 0x6969: "nfs",
}

// Filesystem returns the file system of dir and whether it is in memory.
func Filesystem(dir string) (name string, inMemory bool, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "", false, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if fs, ok := filesystems[uint32(st.Type)]; ok {
		return fs, fs == "tmpfs" || fs == "ramfs", nil
	}
	return fmt.Sprintf("0x%x", uint32(st.Type)), false, nil
}
