//go:build !linux

package cas

import "os"

func startWriting(*os.File, int64, int64) {}
