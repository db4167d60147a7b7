package blockdev

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

func kernelBackends() []Backend {
	return []Backend{{"fuse", fuseAvailable()}, {"nbd", nbdAvailable()}}
}

func openKernel(ctx context.Context, backend string, c Config) (Device, error) {
	if backend == "nbd" {
		return openNBD(ctx, c)
	}
	return openFuse(ctx, c)
}

func abortKernel(s State) {
	switch s.Backend {
	case "fuse":
		_ = unix.Unmount(s.File, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW) // is refused, since the loop device is there, but aborts first
	case "nbd":
		_ = disconnectNBD(s)
	}
}

func cleanKernel(s State, force bool) error {
	switch s.Backend {
	case "fuse":
		return cleanFuse(s, force)
	case "nbd":
		return cleanNBD(s, force)
	}
	return abi.Errorf(abi.ErrUnsupported, "block device backend %q is not known here", s.Backend)
}
