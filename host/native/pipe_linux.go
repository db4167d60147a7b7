package native

import "golang.org/x/sys/unix"

// growPipe asks for a larger buffer; the kernel may say no.
func growPipe(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) }
