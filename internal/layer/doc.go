// Package layer reads the tar of an OCI image layer as flat entries, with the rules that containerd applies when it
// unpacks one. Host and sdk share it, so that a layer means the same to everybody.
//
//	r := layer.NewReader(tarStream, layer.Limits{})
//	var e abi.Entry
//	for {
//		err := r.Next(&e)
//		if err == io.EOF {
//			break
//		}
//		… // e is one member; if it is a regular file, r reads its body
//	}
//	end, err := r.Drain() // what stands behind the end marker; needed for the diff ID
//
// Neighbours: package inflate decompresses and verifies stored layers, package tarwrite writes headers, package flatten
// applies layers onto each other. This package imports only the standard library and abi, and builds for wasip1.
//
// # What is read
//
// V7, USTAR, star, GNU and pax headers; GNU long names; base-256 numbers; sparse files of the old GNU format and of pax
// 0.0, 0.1 and 1.0, whose holes read as zeros; sub-second and negative times; extended attributes in SCHILY.xattr and
// LIBARCHIVE.xattr records with any bytes in their values. Type '7' (contiguous) is a regular file. Global pax headers
// are skipped, as containerd skips them. An archive ends at two zero blocks; it may also end without them at the end of a
// member, as in containerd ([End] tells). What follows the zero blocks belongs to the diff ID but not to the content.
//
// # What is refused, and how
//
// Every error wraps one class of package abi and is an [abi.FormatError] with Format "tar" and the offset of the
// member's first header block, or passes on the error of the source.
//
//   - ErrTruncated: the stream ends inside a header, a body, or between an extended header and its member.
//   - ErrCorrupt: wrong checksum or number, names that leave the root with "..", NUL in a name, a whiteout of nothing or
//     of "." and "..", duplicate extended attributes, a sparse map that does not fit its file.
//   - ErrUnsupported: unknown member types, names with a whiteout above their last element.
//   - ErrLimit: names, headers, attributes, counts and sizes beyond [Limits].
//
// Names are cleaned lexically and absolute ones made relative. Metadata of AUFS (.wh..wh.* other than .wh..wh..opq, and
// all below it) is skipped. A whiteout is a regular file without content, whatever type its member has.
package layer
