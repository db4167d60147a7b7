package rafs6

// Single turns boot, the bootstrap of an image's only layer, into the image's, in place, and reports whether it did. The
// bytes are those that a [Merger] with the same options would give: with nothing below and no whiteouts the tree stays
// what it is, and so does every address; only the blob gets its name. That spares reading, merging and writing
// all inodes, which is most of a merge's time.
//
// It works for a bootstrap that a Builder made: state is that layer's (see State) and sum the SHA-256 of boot, by which the
// state knows it. For all others, and when the options want another table of files to read first, boot stays as it is.
func Single(boot, state []byte, sum [32]byte, blobID string, o MergeOptions) bool {
	if !o.Correct || !ownBoot(state, sum) || len(blobID) > 64 || !textOK([]byte(blobID)) {
		return false
	}
	l := &loader{data: boot, strict: true}
	x, err := l.superblock()
	if err != nil {
		return false
	}
	l.t = &Tree{chunkSize: le.Uint32(x[20:])}
	table, size := le.Uint64(x[8:]), le.Uint32(x[16:])
	if size > blobSize || l.readBlobs(table, size) != nil || !l.prefetches(x, o.Prefetch) {
		return false
	}
	flags := le.Uint32(x) | flagHasXattr | flagInlinedDigest
	if size > 0 {
		if le.Uint64(x[32:]) == 0 {
			return false // all its files were replaced: an image does not list such a blob
		}
		b := &l.t.blobs[0]
		if b.Features&FeatInlinedDigest == 0 {
			flags &^= flagInlinedDigest
		}
		le.PutUint32(boot[table+84:], b.Features&^FeatInlinedMeta)
		for _, id := range [][]byte{boot[slotOff : slotOff+64], boot[table : table+64]} {
			clear(id[copy(id, blobID):])
		}
	}
	le.PutUint32(x, flags)
	return true
}

// prefetches reports whether the prefetch table of RAFS superblock x is what the paths ask for; only those that say all or
// nothing are understood.
func (l *loader) prefetches(x []byte, paths []string) bool {
	off, size := le.Uint64(x[40:]), uint64(le.Uint32(x[48:]))
	if len(paths) == 0 || len(l.t.blobs) == 0 {
		return size == 0
	}
	p, err := l.table(off, size, 4, 8, "prefetch table")
	return paths[0] == "/" && err == nil && size == 4 && le.Uint32(p) == l.rootNid
}

// ownBoot reports whether sum is that of the bootstrap that state belongs to, and the layer has no whiteouts.
func ownBoot(state []byte, sum [32]byte) bool {
	return len(state) >= stateHead && string(state[:len(stateMagic)]) == stateMagic && [32]byte(state[len(stateMagic):stateHead]) == sum && sum != [32]byte{}
}
