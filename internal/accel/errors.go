package accel

import (
	"context"
	"errors"
	"fmt"

	"github.com/convhost/convhost/abi"
)

// classed wraps err with a message. If err has no class yet it gets c.
func classed(c abi.Class, err error, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	var have abi.Class
	if errors.As(err, &have) {
		return fmt.Errorf("%s: %w", msg, err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		c = abi.ErrCanceled
	case errors.Is(err, context.DeadlineExceeded):
		c = abi.ErrTimeout
	}
	return abi.Errorf(c, "%s: %w", msg, err)
}

func rangeError(err error, j *job, r *storedRange) error {
	return fmt.Errorf("range of job %d, %d bytes at offset 0x%x: %w", j.tag, r.CLen, r.Off, err)
}
