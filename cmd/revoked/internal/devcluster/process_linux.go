package devcluster

import "syscall"

// childAttributes puts the child into its own process group. The kernel kills the child when the
// parent exits without stopping it, even if the child hangs.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
