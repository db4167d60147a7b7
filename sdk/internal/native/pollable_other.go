//go:build !unix

package native

import "os"

// pollable is never called: no descriptors come here.
func pollable(f *os.File) (*os.File, error) { return f, nil }
