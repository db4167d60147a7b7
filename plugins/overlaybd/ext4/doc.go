// Package ext4 applies container layers to an ext4 file system as changed blocks, makes such a file system, reads it back and
// checks it. It handles bytes only: no files, no goroutines, no clock, no randomness.
package ext4
