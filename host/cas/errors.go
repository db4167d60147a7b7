package cas

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containerd/errdefs"

	"github.com/convhost/convhost/abi"
)

// wrap gives an error of containerd or of the operating system its class, and says what was being done. Errors that
// have a class keep it.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	var c abi.Class
	if errors.As(err, &c) {
		return abi.Errorf(c, "%s: %w", doing, err)
	}
	c = abi.ErrIO
	switch {
	case errors.Is(err, context.Canceled):
		c = abi.ErrCanceled
	case errors.Is(err, context.DeadlineExceeded):
		c = abi.ErrTimeout
	case errdefs.IsNotFound(err), errors.Is(err, fs.ErrNotExist):
		c = abi.ErrNotFound
	case errdefs.IsAlreadyExists(err), errdefs.IsUnavailable(err):
		c = abi.ErrExists
	case errdefs.IsInvalidArgument(err):
		c = abi.ErrInvalid
	case errors.Is(err, fs.ErrPermission):
		c = abi.ErrDenied
	}
	return abi.Errorf(c, "%s: %w", doing, err)
}
