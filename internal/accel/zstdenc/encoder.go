package zstdenc

import (
	"encoding/binary"

	"github.com/klauspost/compress/huff0"
)

const (
	// Version is another one when the output for some buffer is.
	Version = 1

	// MaxSize is the length of the longest buffer, in bytes.
	MaxSize = 16 << 20

	maxBlock = 128 << 10
)

// Encoder compresses buffers, one after the other. The zero value is ready. It takes up to 2 MiB, and is not safe for
// concurrent use.
type Encoder struct {
	matcher
	huff   huff0.Scratch
	codes  []codes
	bits   []byte      // coded sequences
	tables [3][2]table // of literal lengths, offsets and match lengths: the one that a block may repeat, and a new one
	known  [3]*table   // the one that a block may repeat, or nil
}

// Append appends a frame of src to dst, at most len(src)+len(src)/32768+13 bytes. It panics if src is longer than MaxSize.
func (e *Encoder) Append(dst, src []byte) []byte {
	if len(src) > MaxSize {
		panic("zstdenc: buffer is too long")
	}
	e.reset(len(src))
	e.forget()
	dst = appendFrameHeader(dst, len(src))
	if len(src) == 0 {
		return appendBlockHeader(dst, blockRaw, 0, true)
	}
	for at := 0; at < len(src); {
		to := min(at+maxBlock, len(src))
		dst = e.appendBlock(dst, src, at, to)
		at = to
	}
	return dst
}

// appendBlock appends src[from:to] as a compressed block, or raw if that is not longer.
func (e *Encoder) appendBlock(dst, src []byte, from, to int) []byte {
	rep1, rep2 := e.rep1, e.rep2
	e.find(src, from, to)
	body := len(dst) + blockHeader
	dst = e.appendLiterals(append(dst, make([]byte, blockHeader)...))
	dst = e.appendSequences(dst)
	kind, size := blockCompressed, len(dst)-body
	if size >= to-from { // as if it had not been tried
		kind, size = blockRaw, to-from
		dst = append(dst[:body], src[from:to]...)
		e.rep1, e.rep2 = rep1, rep2
		e.forget()
	}
	appendBlockHeader(dst[:body-blockHeader], kind, size, to == len(src))
	return dst
}

// forget makes the next block bring tables of its own.
func (e *Encoder) forget() {
	e.huff.Reuse = huff0.ReusePolicyNone
	e.known = [3]*table{}
}

// appendFrameHeader appends magic number, descriptor and content size (RFC 8878, 3.1.1.1).
func appendFrameHeader(dst []byte, n int) []byte {
	const single = 1 << 5
	dst = append(dst, 0x28, 0xb5, 0x2f, 0xfd)
	switch {
	case n < 256:
		return append(dst, single, byte(n))
	case n < 65536+256:
		return binary.LittleEndian.AppendUint16(append(dst, 1<<6|single), uint16(n-256))
	}
	return binary.LittleEndian.AppendUint32(append(dst, 2<<6|single), uint32(n))
}

// Types of blocks (RFC 8878, 3.1.1.2.2).
const (
	blockRaw        = 0
	blockCompressed = 2
	blockHeader     = 3 // bytes
)

func appendBlockHeader(dst []byte, kind, size int, last bool) []byte {
	h := size<<3 | kind<<1
	if last {
		h |= 1
	}
	return append(dst, byte(h), byte(h>>8), byte(h>>16))
}
