package main

import "syscall"

// childAttributes puts the child into its own process group and has the kernel kill it when the
// parent dies without having stopped it, also when the child hangs.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
