//go:build !linux

package overlaybd

import (
	"os"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/blockdev"
)

func (s *attachState) mount(string, blockdev.Disk, mountOptions) error {
	return abi.Errorf(abi.ErrUnsupported, "overlaybd images can only be mounted on Linux")
}

func (s *attachState) unmount(bool) error { return nil }

// lockFile does nothing here: only the socket backend exists, and who names the same directory twice is on his own.
func lockFile(*os.File) error { return nil }
