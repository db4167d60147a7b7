//go:build !linux

package blockdev

import (
	"context"

	"github.com/convhost/convhost/abi"
)

// Backends lists the ways into the kernel, best first. There is none on this system.
func Backends() []Backend { return nil }

func open(context.Context, string, Config) (Device, error) { return nil, errSystem }

// Clean removes what a killed process left of a device: nothing on this system.
func Clean(context.Context, State) error { return errSystem }

var errSystem = abi.Errorf(abi.ErrUnsupported, "block devices can only be made on Linux")
