// Package flatten applies the layers of an image onto each other, in memory, and gives the result as one canonical list:
// what verify compares. Contents are digested while they stream by and never held.
//
//	t := flatten.New(flatten.Options{})
//	for … { // layers from the bottom up
//		end, err := t.ApplyTar(ctx, layer.NewReader(tar, layer.Limits{}))
//	}
//	for rec := range t.Records() { … }                                  // sorted, see Record
//	diffs := flatten.Compare(a.Records(), b.Records(), flatten.CompareOptions{})
//
// # Rules
//
// They are those of containerd when it unpacks an image:
//
//   - A directory onto a directory replaces its attributes and keeps its content; anything else replaces what is there.
//   - Whiteouts and opaque markers hide what lower layers have, wherever they stand in their layer. What the same layer
//     brings stays, as the image specification says; containerd is less exact there when a whiteout comes late.
//   - Missing parents are implied: mode 0755, owner 0:0. A directory that exists already is not changed by being a parent.
//   - Parents that are symbolic links are followed within the root; with [Options.Overlay] only links of the same layer
//     are, and what a lower layer has in the place of a parent is replaced by a directory, as on overlayfs.
//   - A hard link names anything but a directory that exists at that point. Its header's attributes hold for all names of
//     the file, its extended attributes are added.
//   - The mode of a symbolic link is 0777, whatever its header says, for no system keeps another.
//
// Unlike containerd, attributes of the root directory are kept, and those that a directory gets replace earlier
// extended attributes (as on overlayfs).
//
// # Errors and memory
//
// A layer that cannot be applied is abi.ErrCorrupt (a parent that is a file, a hard link to nowhere, a loop of links); a
// limit is abi.ErrLimit. The tree is useless after an error. A file takes about 300 bytes and its name.
package flatten
