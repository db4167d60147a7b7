// Package tarshell reads, writes and checks the tar around an overlaybd layer: an archive of one member, overlaybd.commit, that
// a registry and containerd take for a layer, and inside which the runtime reads at a fixed place. It handles bytes only:
// [io.ReaderAt] in, [io.Writer] out; no files, no goroutines, no logging. It builds for wasip1.
//
// # What the file is
//
//	upstream   0          512              1024       1536
//	           | pax hdr  | record: size   | header   | payload | zeros to 512 | 1024 zeros |
//	plain      0          512
//	           | header   | payload | zeros to 512 | 1024 zeros |
//
// Upstream's commit writes the first form; the size is in the pax record alone, the header says 0. The convertor frames its
// base layer in the second form. The payload is a ZFile or a bare LSMT file (packages zfile and lsmt).
//
// # Reading
//
//	shell, ok, err := tarshell.Find(r, size)    // ok is false when the file is no tar: then it is the payload itself
//	payload := io.NewSectionReader(r, shell.Offset, shell.Size)
//
// # Writing
//
//	w, err := tarshell.NewWriter(out, size)     // the payload's size must be known
//	_, err = io.Copy(w, payload)
//	err = w.Close()
//
// The first form is upstream's byte for byte (as root on a usual Linux: mode 0100644, owner root).
//
// # What it refuses
//
// The runtime knows two places for a payload. An archive that readers of tar would find elsewhere (long pax records, GNU
// long names, something before the member) is [abi.ErrUnsupported]; broken headers and records are [abi.ErrCorrupt], an
// archive shorter than it says [abi.ErrTruncated]. What the runtime would not take for a tar at all (GNU headers, a wrong
// checksum) is not a shell: ok is false.
package tarshell
