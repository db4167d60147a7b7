package blockdev

import (
	"context"

	"github.com/convhost/convhost/abi"
)

// Backends lists the ways into the kernel, best first, and whether they can be used here.
func Backends() []Backend {
	return []Backend{{"fuse", fuseAvailable()}, {"nbd", nbdAvailable()}}
}

func open(ctx context.Context, backend string, c Config) (Device, error) {
	if backend == "nbd" {
		return openNBD(ctx, c)
	}
	return openFuse(ctx, c)
}

// Clean removes what a killed process left of a device, and what a living one serves: then its Done is closed. It does
// nothing where nothing is left. abi.ErrExists if the device is in use.
func Clean(_ context.Context, s State) error {
	switch s.Backend {
	case "fuse":
		return cleanFuse(s)
	case "nbd":
		return cleanNBD(s)
	}
	return abi.Errorf(abi.ErrUnsupported, "block device backend %q is not known here", s.Backend)
}
