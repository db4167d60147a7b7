//go:build !linux

package blockdev

import (
	"context"

	"github.com/convhost/convhost/abi"
)

func kernelBackends() []Backend { return nil }

func openKernel(context.Context, string, Config) (Device, error) { return nil, errSystem }

func cleanKernel(State, bool) error { return errSystem }

func abortKernel(State) {}

var errSystem = abi.Errorf(abi.ErrUnsupported, "block devices can only be made on Linux")
