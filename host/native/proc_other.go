//go:build !unix

package native

import "syscall"

func processAttributes() *syscall.SysProcAttr { return nil }

func killGroup(int) {}
