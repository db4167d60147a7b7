// Package dedup remembers what was converted, so that it need not be converted again.
//
// A [Store] holds records and places. A [Record] says what a conversion made of one layer or of one whole image; it is
// found under a [Key], the digest of everything that the result depends on ([LayerKey], [ManifestKey]): the plugin's
// format, version and code, its options, the source, for formats whose layers build upon each other the digests of what
// the layers below became, dictionaries, and what the host itself adds. Nothing is found under a key that differs in any of
// them: a hit can never stand on another parent than the one that it was made for.
//
// A [Place] says where a blob was last seen: a repository of a registry, an image layout or an archive on this machine. Places
// are hints. Who uses one looks whether the blob is there, verifies what is read, and drops places that are wrong.
//
//	rec, err := store.Get(ctx, key.Key())        // abi.ErrNotFound: convert it
//	places, err := store.Places(ctx, rec.Layer.Parts[0].Digest)
//	err = store.Put(ctx, rec)                    // after the result was published
//	err = store.AddPlace(ctx, place, blobs...)
//
// [OpenDir] keeps records in a directory that any number of processes share, [NewMemory] in this process; package sqlstore
// in a database that many machines share. Package deduptest holds every implementation to the contract.
//
// Stores hold no blobs, only descriptions of them, and no secrets: host names, repositories, paths, digests. But who can
// write to a store decides what becomes of later conversions: give only those access who may publish images anyway. The
// host can compare every result with its source (ConvertRequest.Verify), also what was found here.
//
// Errors have the classes of package abi: ErrNotFound, ErrInvalid for records and places that cannot be meant and for a closed
// store, ErrLimit for records that are too large, ErrCorrupt for what does not decode, ErrDenied, ErrCanceled and ErrTimeout from
// the context, ErrIO for disk and network.
package dedup
