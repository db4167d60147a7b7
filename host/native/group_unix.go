//go:build unix

package native

import "syscall"

// killGroup kills the plugin and what it started. The plugin leads its own process group.
func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
