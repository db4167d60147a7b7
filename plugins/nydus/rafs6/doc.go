// Package rafs6 reads, writes, checks and merges RAFS v6, the file system format of nydus. It handles bytes only: no
// containers, no files, no goroutines, no logging; compression and digests come in as functions. It builds for wasip1.
//
// # What the files are
//
// A layer becomes one blob file: compressed chunks, then the chunk-info array (blob.meta), the digests of the chunks, the
// bootstrap (an EROFS image of the metadata), a table of contents, and a tar header behind each of them. The bootstraps of all
// layers are merged into one, which a mount reads.
//
//	chunks | H | array, header | H | digests | H | bootstrap | H | ToC | H        H: tar header of 512 bytes
//
// # Making a layer
//
//	b, err := rafs6.NewBuilder(rafs6.Options{Codec: abi.CodecZstd, Digest: abi.DigestBLAKE3})
//	… for each entry:             err = b.Add(&entry)
//	… for each completion, in order: err = b.AddChunk(c.Tag, &c)
//	tree, err := b.Finish()
//	tail, err := tree.WriteTail(sink, rafs6.TailOptions{InlineMeta: true, Toc: true, Encode: …, Sum: …})
//	state := tree.State(digest)   // implied and replaced directories, for the merge; digest: of the member image.boot of tail
//
// The plan that makes the chunks must have the same chunk size, digest and codec, KeepRaw, CRC32C, DedupPlan, Align 0 and
// write to sink first. A layer whose Blobs is empty has no data; its blob file is the tail alone. The blob's id is the
// SHA-256 of the whole file, tail included.
//
// # Merging
//
//	m := rafs6.NewMerger(rafs6.MergeOptions{Correct: true})
//	… for each layer, lowest first:
//	    f, err := rafs6.OpenBlob(r, size)      // find image.boot, read and decompress f.Boot
//	    err = m.AddBootstrap(boot, state, blobID)
//	image, err := m.Finish()
//	size, err := image.WriteBootstrap(w)
//	ok := rafs6.Single(boot, state, …)                    // instead of all that, for an image of one layer
//	file := rafs6.AppendRuntimeMeta(nil, array, header)   // image/<blobID>.blob.meta of the bootstrap layer
//
// # Reading
//
//	image, err := rafs6.Open(boot)
//	err = image.Walk(func(e *abi.Entry, f rafs6.File) error { … f.Len(), f.At(k) … })
//	errs := rafs6.Check(boot)                             // every violation
//	errs = image.CheckChunkInfos(blob, array, digests)    // blob.meta and blob.digest of one blob
//
// A Chunk says where its bytes are in which blob (Image.Blobs()[c.Blob].ID); they are compressed with that blob's Codec if
// c.Compressed, and have digest c.Digest of that blob's Digest kind.
//
// # What it refuses
//
// Images of kinds that this version does not know are [abi.ErrUnsupported] with a text that starts "not supported yet":
// zran and other references to original layers, batch, encryption, tarfs, layers with a chunk dictionary. Broken ones
// are ErrCorrupt or ErrTruncated and name offset and rule.
//
// # Compatibility
//
// Output equals that of upstream's nydus-image (2.4.4) byte for byte for the same compressed chunks, with these exceptions, in
// which upstream is wrong or random: implied parents are made where they belong; attributes are sorted by name; symlinks of
// the layer are followed when they lead to a parent; a hard link to a symlink or device makes an equal inode; attributes of a
// hard-link group are those that extraction leaves, the link's own xattrs included. MergeOptions.Correct adds two more.
//
// A file costs about 250 bytes of memory while a layer is built, and as much again for its bootstrap.
package rafs6
