// Package transport is where images come from and go to. It moves blobs and documents by descriptor and knows nothing
// of what is in them.
//
// A reference names a place in skopeo's syntax:
//
//	oci:PATH[:TAG]               OCI image layout directory; also oci:PATH@sha256:… and oci:PATH:@N (N-th entry, from 0)
//	oci-archive:PATH[:TAG]       the same as a tar file; may be compressed with gzip or zstd when it is read
//	docker-archive:PATH[:REF]    what docker save writes; REF is a repository tag, or @N
//	docker://HOST/REPO[:TAG]     registry; also docker://HOST/REPO@sha256:…
//
// [ParseReference] takes it apart, [OpenSource] and [OpenTarget] open it:
//
//	src, err := transport.OpenSource(ctx, ref, transport.Options{})
//	defer src.Close()
//	root, err := src.Resolve(ctx)
//	rc, err := src.Fetch(ctx, root)          // verified while it is read
//
//	dst, err := transport.OpenTarget(ctx, ref, transport.Options{})
//	defer dst.Close()                        // takes everything back unless Publish succeeded
//	err = dst.Push(ctx, layer, open)         // blobs, then the documents that refer to them
//	err = dst.Publish(ctx, root)             // the name appears, in one step, last
//
// What is read is never trusted: sizes are limits, digests are checked at the end of every stream, names in archives
// are only looked up. What is written is complete or invisible: local targets write aside, sync and rename; what a
// killed process leaves is removed by the next one that opens the same place.
//
// Errors have the classes of package abi: ErrInvalid for references, ErrNotFound for an absent image or blob,
// ErrUnsupported for what a transport cannot hold, ErrCorrupt, ErrTruncated and ErrDigest for bad input, ErrLimit,
// ErrExists for conflicts, ErrDenied for permissions and credentials, ErrIO for disk and network after all retries.
package transport
