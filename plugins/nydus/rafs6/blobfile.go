package rafs6

import (
	"io"

	"github.com/convhost/convhost/abi"
)

// BlobFile says where the parts of a blob file are. A part that is not there is nil.
type BlobFile struct {
	Size   int64
	Data   *Member
	Meta   *Member     // the chunk-info array as stored; Codec and Size come from its header
	Header *MetaHeader // nil without Meta
	Head   *Member     // the 4096 bytes of the header
	Digest *Member
	Boot   *Member // the bootstrap
	HasToc bool
}

// OpenBlob finds the parts of a blob file of size bytes from its end: through the table of contents, else by walking back over
// the trailing tar headers, else (a blob without headers) through the header of blob.meta at its end. Only headers are read.
//
// ErrCorrupt if it is none of these or if parts overlap or leave the file; ErrUnsupported for other kinds of nydus blobs.
// Errors of r come back as ErrIO unless they have a class.
func OpenBlob(r io.ReaderAt, size int64) (*BlobFile, error) {
	f := &BlobFile{Size: size}
	o := &blobOpener{r: r, f: f}
	if err := o.open(); err != nil {
		return nil, err
	}
	return f, nil
}

type blobOpener struct {
	r io.ReaderAt
	f *BlobFile
}

// read returns n bytes at off.
func (o *blobOpener) read(off, n int64, what string) ([]byte, error) {
	if off < 0 || n < 0 || off > o.f.Size-n {
		return nil, fail(abi.ErrTruncated, formatBlob, max(off, 0), what, dec(n)+" bytes", "within the file of "+dec(o.f.Size))
	}
	p := make([]byte, n)
	if k, err := o.r.ReadAt(p, off); int64(k) < n {
		if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, fail(abi.ErrTruncated, formatBlob, off+int64(k), what, dec(k)+" bytes", dec(n))
		}
		if abi.ClassOf(err) == abi.ErrInternal {
			err = abi.Errorf(abi.ErrIO, "nydus blob at %#x: %w", off, err)
		}
		return nil, err
	}
	return p, nil
}

func (o *blobOpener) open() error {
	if o.f.Size < tarBlock {
		return fail(abi.ErrTruncated, formatBlob, o.f.Size, "file", dec(o.f.Size)+" bytes", "at least 512")
	}
	p, err := o.read(o.f.Size-tarBlock, tarBlock, "last tar header")
	if err != nil {
		return err
	}
	name, size, ok := parseTarHeader(p)
	switch {
	case !ok:
		err = o.plain()
	case name == MemberToc:
		err = o.toc(size)
	default:
		err = o.walkBack()
	}
	if err != nil || o.f.Head == nil {
		return err
	}
	return o.header()
}

// plain finds blob.meta at the end of a blob without headers.
func (o *blobOpener) plain() error {
	at := o.f.Size - metaHeaderSize
	if at < 0 {
		return fail(abi.ErrCorrupt, formatBlob, o.f.Size-tarBlock, "end of the file", "no tar header", "one, or a header of blob.meta")
	}
	p, err := o.read(at, metaHeaderSize, "blob.meta header")
	if err != nil {
		return err
	}
	if le.Uint32(p) != metaMagic || le.Uint32(p[4092:]) != metaMagic {
		return fail(abi.ErrCorrupt, formatBlob, o.f.Size-tarBlock, "end of the file", "neither a tar header nor a header of blob.meta", "one of them")
	}
	h, err := ParseMetaHeader(p, at)
	if err != nil {
		return err
	}
	if h.Stored > uint64(at) || h.Offset != uint64(at)-h.Stored {
		return fail(abi.ErrCorrupt, formatMeta, at+16, "position of the array", udec(h.Offset), "right before the header at "+dec(at))
	}
	o.f.Data = &Member{Name: MemberData, Stored: int64(h.Offset), Size: int64(h.Offset)}
	o.f.Head = &Member{Name: MemberHeader, Offset: at, Stored: metaHeaderSize, Size: metaHeaderSize}
	return nil
}

func (o *blobOpener) walkBack() error {
	end := o.f.Size
	seen := map[string]bool{}
	for end > 0 {
		p, err := o.read(end-tarBlock, tarBlock, "tar header")
		if err != nil {
			return err
		}
		name, size, ok := parseTarHeader(p)
		if !ok {
			return fail(abi.ErrCorrupt, formatBlob, end-tarBlock, "tar header", "none", "a header behind each member")
		}
		if size < 0 || size > end-tarBlock || seen[name] {
			return fail(abi.ErrCorrupt, formatBlob, end-tarBlock, "size of member "+quote(name), dec(size), "bytes before its header, one member of a name")
		}
		seen[name] = true
		m := &Member{Name: name, Offset: end - tarBlock - size, Stored: size, Size: size}
		end = m.Offset
		switch name {
		case MemberData:
			if end != 0 {
				return fail(abi.ErrCorrupt, formatBlob, end, "start of image.blob", dec(end), "0")
			}
			o.f.Data = m
		case MemberMeta:
			if size < metaHeaderSize {
				return fail(abi.ErrCorrupt, formatBlob, end, "size of blob.meta", dec(size), "at least 4096")
			}
			o.f.Head = &Member{Name: MemberHeader, Offset: end + size - metaHeaderSize, Stored: metaHeaderSize, Size: metaHeaderSize}
		case MemberDigest:
			o.f.Digest = m
		case MemberBoot:
			o.f.Boot = m
		default:
			return fail(abi.ErrCorrupt, formatBlob, end+size, "member", quote(name), "a name of this format")
		}
	}
	return nil
}

// toc reads the table of contents of size bytes.
func (o *blobOpener) toc(size int64) error {
	at := o.f.Size - tarBlock - size
	if size <= 0 || size%tocEntrySize != 0 || size > maxToc {
		return fail(abi.ErrCorrupt, formatBlob, o.f.Size-tarBlock, "size of the table of contents", dec(size), "a multiple of 128, at most 65536")
	}
	p, err := o.read(at, size, "table of contents")
	if err != nil {
		return err
	}
	o.f.HasToc = true
	for k := int64(0); k < size; k += tocEntrySize {
		m, err := parseTocEntry(p[k:k+tocEntrySize], at+k)
		if err != nil {
			return err
		}
		if m.Offset < 0 || m.Stored < 0 || m.Size < 0 || m.Offset > at || m.Stored > at-m.Offset {
			return fail(abi.ErrCorrupt, formatBlob, at+k+56, "ToC entry "+m.Name, dec(m.Stored)+" bytes at "+dec(m.Offset), "within the bytes before the ToC")
		}
		dst := map[string]**Member{MemberData: &o.f.Data, MemberMeta: &o.f.Meta, MemberHeader: &o.f.Head, MemberDigest: &o.f.Digest,
			MemberBoot: &o.f.Boot}[m.Name]
		if dst == nil {
			continue
		}
		if *dst != nil {
			return fail(abi.ErrCorrupt, formatBlob, at+k, "ToC entry "+m.Name, "there twice", "once")
		}
		if m.Codec == abi.CodecNone && m.Name != MemberData && m.Size != m.Stored {
			return fail(abi.ErrCorrupt, formatBlob, at+k+72, "size of "+m.Name, dec(m.Size), dec(m.Stored)+", as stored")
		}
		*dst = m
	}
	if (o.f.Meta == nil) != (o.f.Head == nil) || o.f.Head != nil && o.f.Head.Stored != metaHeaderSize {
		return fail(abi.ErrCorrupt, formatBlob, at, "table of contents", "blob.meta or its header of 4096 bytes missing", "both or none")
	}
	return nil
}

func parseTocEntry(p []byte, at int64) (*Member, error) {
	n := 8
	for n < 24 && p[n] != 0 {
		n++
	}
	m := &Member{Name: string(p[8:n]), Offset: int64(le.Uint64(p[56:])), Stored: int64(le.Uint64(p[64:])), Size: int64(le.Uint64(p[72:])), HasSum: true}
	copy(m.Digest[:], p[24:56])
	switch f := le.Uint32(p) & 0xf; f {
	case 1:
	case 2:
		m.Codec = abi.CodecZstd
	case 4:
		m.Codec = abi.CodecLZ4Block
	default:
		return nil, fail(abi.ErrCorrupt, formatBlob, at, "codec of ToC entry "+quote(m.Name), udec(f), "1, 2 or 4")
	}
	return m, nil
}

// header reads the header of blob.meta, which has the last word about the array.
func (o *blobOpener) header() error {
	head := o.f.Head
	p, err := o.read(head.Offset, metaHeaderSize, "blob.meta header")
	if err != nil {
		return err
	}
	h, err := ParseMetaHeader(p, head.Offset)
	if err != nil {
		return err
	}
	if h.Stored > uint64(o.f.Size) || h.Offset > uint64(o.f.Size)-h.Stored || int64(h.Offset+h.Stored) > head.Offset {
		return fail(abi.ErrCorrupt, formatMeta, head.Offset+16, "position of the array", udec(h.Stored)+" bytes at "+udec(h.Offset), "before the header")
	}
	if m := o.f.Meta; m != nil && (m.Offset != int64(h.Offset) || m.Stored != int64(h.Stored) || m.Size != int64(h.Size) || m.Codec != h.Codec) {
		return fail(abi.ErrCorrupt, formatMeta, head.Offset+16, "position, sizes or codec of the array", "not those of the ToC", "the same")
	}
	if o.f.Meta == nil {
		o.f.Meta = &Member{Name: MemberMeta, Offset: int64(h.Offset), Stored: int64(h.Stored), Size: int64(h.Size), Codec: h.Codec}
	}
	if d := o.f.Digest; d != nil && d.Stored != 32*int64(h.Chunks) {
		return fail(abi.ErrCorrupt, formatBlob, d.Offset, "size of blob.digest", dec(d.Stored), "32 bytes a chunk, "+udec(h.Chunks)+" chunks")
	}
	o.f.Header = h
	return nil
}
