//go:build !linux

package native

import "io"

func privateCopy(r io.Reader) (*executable, error) { return copyToDir(r) }
