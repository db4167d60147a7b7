// Package inflate turns the stored bytes of a layer into its tar: it finds out how they are compressed, decompresses
// ahead of the reader, and checks what the descriptor and the diff ID promised. The host uses it once for every layer.
//
//	s, err := inflate.Open(ctx, stored, inflate.Options{
//		MediaType: desc.MediaType, StoredDigest: desc.Digest, StoredSize: desc.Size, DiffID: diffID,
//	})
//	defer s.Close()
//	… // read s to io.EOF: only then the promises have been checked
//	s.Result() // sizes and SHA-256 of both sides
//
// # Rules
//
// The bytes decide about the compression, not the media type: docker's rootfs.diff.tar is often compressed. A media
// type that says something else is a [Stream.Warning]. Gzip may have several members, zstd several frames and skippable
// ones; zeros after the last are padding, anything else there is ErrCorrupt at its offset. Offsets in errors are
// positions in the stored bytes.
//
// # Errors
//
// ErrTruncated: the stored bytes end early (inside a member, or before the promised size). ErrCorrupt: the compression's
// rules or checksums are broken. ErrDigest: a digest or size is not what was promised; the message names both. ErrLimit:
// [Limits]. ErrUnsupported: a zstd dictionary. ErrCanceled, ErrTimeout: ctx ended. ErrIO: the source failed.
//
// # Concurrency and memory
//
// One goroutine decompresses into a few recycled buffers (4 of 256 KiB), so that it overlaps with the consumer. It ends
// at the end of the input, on error, when ctx ends, and on Close. Gzip, which internal/zran decompresses, needs 350 KiB on
// top, zstd its window, at most 128 MiB.
package inflate
