//go:build !unix

package private

import "io/fs"

// OthersCanWrite knows nothing of access control lists: the user's profile, where caches are, is private by default.
func OthersCanWrite(fs.FileInfo) string { return "" }
