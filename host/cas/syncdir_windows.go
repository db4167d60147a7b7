//go:build windows

package cas

// syncDir does nothing: NTFS journals names, and directories cannot be flushed through an ordinary handle.
func syncDir(string) error { return nil }
