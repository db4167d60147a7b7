package rafs6

import (
	"github.com/convhost/convhost/abi"
)

// Members of a layer blob stand before their tar headers (6.2). With a table of contents (ToC) each has an entry of 128
// bytes (6.12):
//
//	0 u32 codec (1 none, 2 zstd, 4 lz4 block)   4 zero   8 [16] name   24 [32] SHA-256 of the decompressed member
//	56 u64 position   64 u64 stored bytes   72 u64 bytes   80 zero (old builders: garbage)

// Names of members.
const (
	MemberData   = "image.blob"
	MemberMeta   = "blob.meta"
	MemberHeader = "blob.meta.header" // ToC only; part of blob.meta as tar member
	MemberDigest = "blob.digest"
	MemberBoot   = "image.boot"
	MemberToc    = "rafs.blob.toc"
)

const (
	tarBlock     = 512
	tocEntrySize = 128
	maxToc       = 64 << 10
)

// Member is one part of a blob file.
type Member struct {
	Name   string
	Offset int64
	Stored int64 // bytes in the file
	Size   int64 // bytes after decompression; image.blob: of the expansion
	Codec  abi.Codec
	Digest [32]byte // SHA-256 of the decompressed bytes, if HasSum. image.blob: of its bytes and the tar header behind them
	HasSum bool
}

func tocFlag(c abi.Codec) uint32 {
	switch c {
	case abi.CodecZstd:
		return 2
	case abi.CodecLZ4Block:
		return 4
	}
	return 1
}

func (m *Member) append(dst []byte) []byte {
	var v [tocEntrySize]byte
	le.PutUint32(v[0:], tocFlag(m.Codec))
	copy(v[8:24], m.Name)
	copy(v[24:56], m.Digest[:])
	le.PutUint64(v[56:], uint64(m.Offset))
	le.PutUint64(v[64:], uint64(m.Stored))
	le.PutUint64(v[72:], uint64(m.Size))
	return append(dst, v[:]...)
}

// TarHeader returns the 512 bytes that stand behind a member of a blob file (6.3).
func TarHeader(name string, size int64) []byte {
	h := make([]byte, tarBlock)
	copy(h[:100], name)
	if size < 1<<33 {
		octal(h[124:135], uint64(size))
	} else {
		h[124] = 0x80
		for k := range 8 {
			h[128+k] = byte(uint64(size) >> (56 - 8*k))
		}
	}
	octal(h[136:147], 0)
	h[156] = '0'
	copy(h[257:], "ustar  \x00")
	octal(h[148:155], uint64(tarSum(h)))
	return h
}

func octal(p []byte, v uint64) {
	for k := len(p) - 1; k >= 0; k-- {
		p[k] = '0' + byte(v&7)
		v >>= 3
	}
}

func tarSum(h []byte) (sum uint32) {
	for k, c := range h[:tarBlock] {
		if k >= 148 && k < 156 {
			c = ' '
		}
		sum += uint32(c)
	}
	return sum
}

// parseTarHeader reads a trailing header; ok is false if p is none.
func parseTarHeader(p []byte) (name string, size int64, ok bool) {
	if len(p) < tarBlock || string(p[257:262]) != "ustar" || p[156] != '0' && p[156] != 0 {
		return "", 0, false
	}
	sum, ok := parseOctal(p[148:156])
	if !ok || uint32(sum) != tarSum(p) {
		return "", 0, false
	}
	for size := 0; size < 100 && p[size] != 0; size++ {
		name = string(p[:size+1])
	}
	if p[124]&0x80 != 0 {
		for k, c := range p[124:136] {
			if k == 0 {
				c &= 0x7f
			}
			if size>>54 != 0 {
				return "", 0, false
			}
			size = size<<8 | int64(c)
		}
		return name, size, true
	}
	size, ok = parseOctal(p[124:136])
	return name, size, ok
}

func parseOctal(p []byte) (v int64, ok bool) {
	for len(p) > 0 && p[0] == ' ' {
		p = p[1:]
	}
	for _, c := range p {
		if c == 0 || c == ' ' {
			break
		}
		if c < '0' || c > '7' {
			return 0, false
		}
		v, ok = v<<3|int64(c-'0'), true
	}
	return v, ok
}
