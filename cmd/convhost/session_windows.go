package main

import "syscall"

// ownSession takes a process out of the console's reach.
func ownSession() *syscall.SysProcAttr {
	const detachedProcess = 8
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP | detachedProcess}
}
