package rafs6

import "github.com/convhost/convhost/abi"

// AddChunk attaches the result of the next chunk. seq is the Seq of the entry whose body it is (the tag of its job in
// automatic mode). Chunks come in the order in which the bodies were submitted, that is in the order of Add; they may
// lag behind Add. A result that contradicts the entries is ErrPlugin.
func (b *Builder) AddChunk(seq uint64, c *abi.Completion) error {
	t := b.t
	i, err := b.waiting(seq)
	if err != nil {
		return err
	}
	if want := chunkLen(i.size, int64(b.have), t.chunkSize); c.Raw != want {
		return chunkError(seq, "length", udec(c.Raw), udec(want))
	}
	switch {
	case c.Index < uint32(t.chunks.n):
		if v := t.chunks.at(int32(c.Index)); v.digest != c.Digest || v.raw != c.Raw {
			return chunkError(seq, "digest or length of chunk "+udec(c.Index), "different", "that of the first use")
		}
	case c.Index == uint32(t.chunks.n):
		if err := b.newChunk(seq, c); err != nil {
			return err
		}
	default:
		return chunkError(seq, "index", udec(c.Index), "at most "+dec(t.chunks.n))
	}
	ref := t.refs.add(c.Index)
	if b.have == 0 {
		i.data = uint32(ref)
	}
	b.have++
	return nil
}

func (b *Builder) newChunk(seq uint64, c *abi.Completion) error {
	if c.Index >= MaxChunks-1 {
		return fail(abi.ErrLimit, formatTree, -1, "distinct chunks", udec(c.Index), "fewer than 16777215 in one layer (larger chunks help)")
	}
	if c.Stored == 0 || c.Stored > c.Raw || uint64(c.Offset) != b.end {
		return chunkError(seq, "stored bytes at "+dec(c.Offset), udec(c.Stored), "1 … "+udec(c.Raw)+" at "+udec(b.end))
	}
	if b.end+uint64(c.Stored) > maxCompressed || b.expand+uint64(c.Raw) > maxExpanded {
		return fail(abi.ErrLimit, formatTree, -1, "blob", udec(b.end), "at most 1 TiB stored and 16 TiB expanded")
	}
	if (c.Flags&abi.CompletionRaw != 0) != (c.Stored == c.Raw) && b.o.Codec != abi.CodecNone {
		return chunkError(seq, "raw flag", dec(int32(c.Flags&abi.CompletionRaw)), "set exactly when compression did not make the chunk smaller")
	}
	v, _ := b.t.chunks.next()
	v.digest, v.offset, v.expanded, v.stored, v.raw, v.crc, v.index = c.Digest, b.end, b.expand, c.Stored, c.Raw, c.CRC32C, c.Index
	v.flags = chunkHasCRC
	if c.Stored != c.Raw {
		v.flags |= chunkCompressed
	}
	b.end += uint64(c.Stored)
	b.expand += roundup(uint64(c.Raw), blockSize)
	return nil
}

// waiting returns the inode whose next chunk is due; nil if there is none.
func (b *Builder) waiting(seq uint64) (*inode, error) {
	for ; b.next < b.t.inodes.n; b.next++ {
		i := b.t.inodes.at(b.next)
		if i.isReg() && b.have < i.count {
			if i.seq != seq {
				return nil, chunkError(seq, "entry", udec(seq), udec(i.seq))
			}
			return i, nil
		}
		b.have = 0
	}
	return nil, chunkError(seq, "chunk", "one too many", "no more than the entries have")
}

func chunkError(seq uint64, field, got, want string) error {
	return abi.Errorf(abi.ErrPlugin, "rafs v6: chunk of entry %d: %s is %s, want %s", seq, field, got, want)
}

// Finish ends the layer. The builder must not be used any more. Chunks that never came are ErrPlugin.
func (b *Builder) Finish() (*Tree, error) {
	t := b.t
	for ; b.next < t.inodes.n; b.next++ {
		if i := t.inodes.at(b.next); i.isReg() && b.have < i.count {
			return nil, chunkError(i.seq, "chunks", udec(b.have), udec(i.count))
		}
		b.have = 0
	}
	t.seal()
	xattrs := t.inodeOf(root).xattrLen > 0
	for k := 0; k < len(t.order) && !xattrs; k++ {
		xattrs = t.inodeOf(t.order[k]).xattrLen > 0
	}
	if xattrs {
		t.flags |= flagHasXattr
	}
	if t.chunks.n > 0 {
		t.blobs = []Blob{{ChunkCount: uint32(t.chunks.n), Codec: b.o.Codec, Digest: b.o.Digest, CompressedSize: b.end,
			UncompressedSize: b.expand, Features: FeatAligned | FeatCapTarToc}}
	}
	if err := t.SetPrefetch(b.o.Prefetch); err != nil {
		return nil, err
	}
	return t, nil
}

// SetPrefetch names the files and directories whose data a mount should read first, as absolute paths. Paths that do
// not exist, that repeat, or that lie below an earlier one are passed over; "/" means everything. A relative path is
// ErrInvalid.
func (t *Tree) SetPrefetch(paths []string) error {
	t.prefetch = nil
	var done []string
next:
	for _, p := range paths {
		if p = trimSpace(p); p == "" {
			continue
		}
		if p[0] != '/' {
			return abi.Errorf(abi.ErrInvalid, "prefetch pattern %q: want an absolute path", p)
		}
		for len(p) > 1 && p[len(p)-1] == '/' {
			p = p[:len(p)-1]
		}
		for _, d := range done {
			if d == "/" || p == d || len(p) > len(d) && p[:len(d)] == d && p[len(d)] == '/' {
				continue next
			}
		}
		done = append(done, p)
		if n := t.exact(p[1:]); n >= 0 {
			t.prefetch = append(t.prefetch, n)
		}
	}
	return nil
}

// exact finds a path without following links.
func (t *Tree) exact(path string) int32 {
	n := root
	for path != "" && n >= 0 {
		elem := path
		if i := indexByte(path, '/'); i >= 0 {
			elem, path = path[:i], path[i+1:]
		} else {
			path = ""
		}
		if elem != "" {
			n, _ = t.find(n, []byte(elem))
		}
	}
	return n
}

func trimSpace(s string) string {
	for s != "" && (s[0] <= ' ') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] <= ' ') {
		s = s[:len(s)-1]
	}
	return s
}
