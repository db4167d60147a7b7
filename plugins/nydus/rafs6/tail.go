package rafs6

import (
	"io"
	"strings"

	"github.com/convhost/convhost/abi"
)

// TailOptions say how a blob file ends behind its chunk data, and lend what a codec does not do itself.
type TailOptions struct {
	InlineMeta bool // the bootstrap is part of the blob
	Toc        bool // headers behind each member, digests and a table of contents

	// Encode compresses p, as abi.Host.Encode does. It is called for the chunk-info array with the codec of the chunks, and
	// for the bootstrap (Zstd). The result counts only if it is smaller; nil: store p as it is.
	Encode func(codec abi.Codec, p []byte) ([]byte, error)
	// Sum is SHA-256. Needed with Toc.
	Sum func(p []byte) ([32]byte, error)
	// DataSum returns the SHA-256 of the blob so far: the chunk data, and the tar header behind it that w got just before.
	// It is called once, with Toc, if there are chunks. nil leaves the digest of image.blob in the ToC zero: no known
	// reader looks at it.
	DataSum func() ([32]byte, error)
	// BlobID returns the id for a bootstrap that is not inlined; it is called when all of the blob is written.
	BlobID func() (string, error)
}

// Tail is what WriteTail wrote.
type Tail struct {
	Members   []Member
	Boot      []byte // the bootstrap; its SHA-256 and size say what the layer is
	Size      int64  // bytes of the whole blob file, chunk data included
	TocDigest [32]byte
}

type tailWriter struct {
	w    io.Writer
	pos  int64
	o    *TailOptions
	tail *Tail
}

func (w *tailWriter) write(p []byte) error {
	_, err := w.w.Write(p)
	w.pos += int64(len(p))
	return err
}

// header writes the tar header of a member of n bytes.
func (w *tailWriter) header(name string, n int64) error {
	if !w.o.InlineMeta && !w.o.Toc {
		return nil
	}
	return w.write(TarHeader(name, n))
}

// encode compresses p if that makes it smaller.
func (w *tailWriter) encode(codec abi.Codec, p []byte) ([]byte, abi.Codec, error) {
	if codec == abi.CodecNone {
		return p, codec, nil
	}
	c, err := w.o.Encode(codec, p)
	if err != nil {
		return nil, 0, err
	}
	if c == nil || len(c) >= len(p) {
		return p, abi.CodecNone, nil
	}
	return c, codec, nil
}

func (w *tailWriter) member(name string, off, stored int64, plain []byte, codec abi.Codec) error {
	if !w.o.Toc {
		return nil
	}
	sum, err := w.o.Sum(plain)
	w.tail.Members = append(w.tail.Members, Member{Name: name, Offset: off, Stored: stored, Size: int64(len(plain)),
		Codec: codec, Digest: sum, HasSum: true})
	return err
}

// WriteTail writes to w what follows the chunk data of a layer from a Builder: chunk-info array and header, digests, bootstrap and
// table of contents, each if the options ask for it (6.2). w must stand right behind the chunk data. Nothing may follow.
// It must be called once; the tree then is as a reader of the bootstrap finds it. A layer without data has no array.
func (t *Tree) WriteTail(w io.Writer, o TailOptions) (*Tail, error) {
	if !t.fresh {
		return nil, abi.Errorf(abi.ErrInvalid, "rafs v6: a blob can be written only for a new layer")
	}
	t.fresh = false
	tw := &tailWriter{w: w, o: &o, tail: &Tail{}}
	if len(t.blobs) > 0 {
		if err := t.writeMeta(tw, &t.blobs[0]); err != nil {
			return nil, err
		}
		t.blobs[0].CompressedSize = uint64(tw.pos)
	}
	t.setInlinedDigest()
	if o.InlineMeta {
		if len(t.blobs) > 0 {
			t.blobs[0].ID = strings.Repeat("x", 64)
		}
		if err := t.writeBoot(tw); err != nil {
			return nil, err
		}
	}
	if err := t.writeToc(tw); err != nil {
		return nil, err
	}
	tw.tail.Size = tw.pos
	if o.InlineMeta {
		return tw.tail, nil
	}
	return tw.tail, t.standalone(tw)
}

// setInlinedDigest sets the superblock's flag if every blob carries its digests.
func (t *Tree) setInlinedDigest() {
	t.flags |= flagInlinedDigest
	for i := range t.blobs {
		if t.blobs[i].Features&FeatInlinedDigest == 0 {
			t.flags &^= flagInlinedDigest
		}
	}
}

func (t *Tree) writeMeta(w *tailWriter, b *Blob) error {
	data := int64(b.CompressedSize)
	w.pos = data
	if w.o.InlineMeta {
		b.Features |= FeatInlinedMeta | FeatTarHeader
	}
	if w.o.Toc {
		b.Features |= FeatToc | FeatTarHeader | FeatInlinedDigest
	}
	if err := w.header(MemberData, data); err != nil {
		return err
	}
	if w.o.Toc {
		m := Member{Name: MemberData, Stored: data, Size: int64(b.UncompressedSize), HasSum: w.o.DataSum != nil}
		if m.HasSum {
			var err error
			if m.Digest, err = w.o.DataSum(); err != nil {
				return err
			}
		}
		w.tail.Members = append(w.tail.Members, m)
	}
	array := t.AppendChunkInfos(nil)
	stored, codec, err := w.encode(b.Codec, array)
	if err != nil {
		return err
	}
	b.MetaCodec, b.MetaOffset, b.MetaStored, b.MetaSize = codec, uint64(w.pos), uint64(len(stored)), uint64(len(array))
	if err := w.member(MemberMeta, w.pos, int64(len(stored)), array, codec); err != nil {
		return err
	}
	if err := w.write(stored); err != nil {
		return err
	}
	h := MetaHeader{Features: b.Features, Codec: codec, Chunks: b.ChunkCount, Offset: b.MetaOffset, Stored: b.MetaStored, Size: b.MetaSize}
	head := h.Append(nil)
	if err := w.member(MemberHeader, w.pos, metaHeaderSize, head, abi.CodecNone); err != nil {
		return err
	}
	if err := w.write(head); err != nil {
		return err
	}
	if err := w.header(MemberMeta, int64(len(stored))+metaHeaderSize); err != nil || !w.o.Toc {
		return err
	}
	digests := t.AppendDigests(nil)
	if err := w.member(MemberDigest, w.pos, int64(len(digests)), digests, abi.CodecNone); err != nil {
		return err
	}
	if err := w.write(digests); err != nil {
		return err
	}
	return w.header(MemberDigest, int64(len(digests)))
}

func (t *Tree) writeBoot(w *tailWriter) error {
	boot, err := t.Bootstrap()
	if err != nil {
		return err
	}
	w.tail.Boot = boot
	stored, codec := boot, abi.CodecNone
	if w.o.Toc {
		if stored, codec, err = w.encode(abi.CodecZstd, boot); err != nil {
			return err
		}
	}
	if err := w.member(MemberBoot, w.pos, int64(len(stored)), boot, codec); err != nil {
		return err
	}
	if err := w.write(stored); err != nil {
		return err
	}
	return w.header(MemberBoot, int64(len(stored)))
}

func (t *Tree) writeToc(w *tailWriter) error {
	if !w.o.Toc || len(w.tail.Members) == 0 {
		return nil
	}
	var toc []byte
	for i := range w.tail.Members {
		toc = w.tail.Members[i].append(toc)
	}
	toc = append(toc, TarHeader(MemberToc, int64(len(toc)))...)
	var err error
	if w.tail.TocDigest, err = w.o.Sum(toc); err != nil {
		return err
	}
	return w.write(toc)
}

// standalone completes the blob entry and makes the bootstrap of a blob that does not contain it.
func (t *Tree) standalone(w *tailWriter) error {
	if len(t.blobs) > 0 {
		b := &t.blobs[0]
		b.CompressedSize = uint64(w.pos)
		if w.o.Toc {
			b.TocSize, b.TocDigest = uint32(tocEntrySize*len(w.tail.Members)+tarBlock), w.tail.TocDigest
		}
		id, err := w.o.BlobID()
		if err != nil {
			return err
		}
		b.ID = id
	}
	boot, err := t.Bootstrap()
	w.tail.Boot = boot
	return err
}
