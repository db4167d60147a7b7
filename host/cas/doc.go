// Package cas is the content store: where the host keeps blobs by their digest while it converts, and between
// conversions.
//
// [Store] is the contract. [Open] gives the embedded store, which lives in a directory, belongs to one process at a
// time and needs neither a daemon nor privileges: files laid out as in containerd's content store, under containerd's
// metadata, leases and garbage collection. [OpenEphemeral] gives the same store in a private directory that disappears with its owner, also
// when the owner is killed. Package castest holds every implementation to the contract.
//
// The order of use in a conversion:
//
//	ctx, release, err := store.Lease(ctx)       // what is written or looked at from here on survives a GC
//	defer release()
//	w, err := store.Ingest(ctx, "")             // stream a blob in
//	info, err := w.Commit(ctx, size, dgst, labels)
//	ra, err := store.Open(ctx, desc)            // random access; FileOf(ra) where a descriptor is needed
//	err = store.SetLabels(ctx, dgst, cas.RefLabels(children)) // edges for GC, for every parent
//	err = store.SetImage(ctx, cas.Image{…}, old)  // the root becomes visible, last
//	err = store.GC(ctx)
//
// Everything that is reachable from an image record, a lease or a blob with [LabelGCRoot] over [RefLabels] stays; GC
// removes the rest. GC runs only when it is called.
//
// Reading does not verify. Blobs were verified when they came in, but disks change and people edit files: whoever
// gives bytes away checks them ([ReadDocument] does).
//
// Errors have the classes of package abi: ErrInvalid for a malformed digest or label, ErrNotFound, ErrExists for a
// conflict (store in use, ingest reference in use, image changed by somebody else), ErrDigest for bytes that are not
// what was promised, ErrLimit, ErrDenied, ErrCanceled and ErrTimeout from the context, ErrIO for the disk.
package cas
