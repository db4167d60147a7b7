// Package blockdev presents bytes that Go code can read, and perhaps write, as a block device of the kernel.
//
//	dev, err := blockdev.Open(ctx, blockdev.Config{Disk: disk, Dir: "/run/app/x", Label: "app-x"})
//	… mount dev.Path()
//	err = dev.Close()          // after it was unmounted
//
// The bytes are a [Disk]: a size in bytes and ReadAt. One that is a [WritableDisk] becomes a device that can be written.
// Sectors have 512 bytes.
//
// There are several ways into the kernel, the backends; see [Backends]. Config.Backend names one, or leaves the choice
// to the package, which takes the first that the kernel has:
//
//	fuse   a file system of one file, over which a loop device lies. Any Linux with /dev/fuse and /dev/loop-control
//	nbd    the kernel's client for network block devices, over a socket pair. Linux with the module nbd
//	socket no device, but a Unix socket where programs such as qemu find the disk by the same protocol. Any system, and no
//	       root; it is only used if it is named
//
// ublk and TCMU fit behind the same interface and are not there yet. Without any backend the error is
// abi.ErrUnsupported and says what the kernel lacks.
//
// # What is left behind
//
// A process that presents a device can be killed. What the kernel then keeps is described by a [State], which the owner
// stores before it is needed: Config.Save is called with it before each step. [Clean], from any process, takes all of it
// away, as often as it is called; it touches a loop device only if it carries the label.
//
// A device ends when it is closed, when Clean was called elsewhere, or when somebody forces it away: Done tells.
//
// # Errors of the disk
//
// A failed ReadAt or WriteAt is an input/output error (EIO) for the one who reads the device, and a line in the log with the
// reason. The device lives on: the next read may succeed.
package blockdev
