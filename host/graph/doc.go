// Package graph walks the descriptor graph of an image (indexes, manifests, configs) and rewrites it.
//
// It is pure: it has no store, opens no file and talks to no registry. Documents come in through a [Fetcher] and new
// ones go out through a [Writer]. Layers are never read here, only described.
//
// The way through the package:
//
//	g, err := graph.Load(ctx, fetcher, root, graph.LoadOptions{})            // the whole tree, checked, within limits
//	sel, err := graph.Select(g, graph.SelectOptions{})                       // which manifests are converted
//	out, err := graph.Rewrite(ctx, g, sel, convert, writer, graph.RewriteOptions{})
//	// out.Root is the new root; publish it last
//
// The target then needs out.Documents, the blobs that convert made, and what out.Kept refers to ([Blobs]); in a
// containerd store every document also needs its [ChildLabels]. Read the result back with Load before publishing it.
//
// convert is called once per distinct selected manifest. It converts the layers by whatever means and says what
// changes in config and manifest ([Conversion]); the package edits the documents and the indexes above them.
//
// What is guaranteed about the input: every document was read completely, within a limit, and has the digest and size
// that its descriptor promises. Documents with duplicate keys, invalid UTF-8, trailing bytes, keys that differ from a
// known field only in case, or the fields of both an index and a manifest are refused, so that no two readers of one
// document can disagree. One digest has one size and one meaning in the whole graph. Because documents are verified,
// a cycle cannot be built; an attempt shows as a digest mismatch ([abi.ErrDigest]).
//
// What is guaranteed about the output: documents are edited as text. What is not changed keeps its bytes: unknown
// fields, key order, number formatting, white space; a document without a change keeps its digest. New descriptors
// never carry data or urls, nor annotations that describe the old bytes ([NewDescriptor]). Docker documents whose
// content no longer fits become OCI documents, with their parents. The same input gives the same output.
//
// Errors name the path from the root, "index sha256:0fc0225c0ef6… → manifest 2 (linux/arm64) sha256:1572a5ea9c13…",
// and wrap one class of package abi: ErrCorrupt (ErrDigest) for bad documents, ErrLimit for limits, ErrNotFound for
// missing blobs and platforms, ErrUnsupported for schema 1 and unknown digest algorithms, ErrInvalid for edits that
// contradict the document.
package graph
