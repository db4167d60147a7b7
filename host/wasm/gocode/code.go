package gocode

import "encoding/binary"

// Instructions that are looked at or written.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opI32Load      = 0x28 // the first load
	opI32Load8U    = 0x2d
	opI64Load      = 0x29
	opI64Load32U   = 0x35 // the last
	opI32Store     = 0x36 // the first store
	opI64Store     = 0x37
	opI64Store32   = 0x3e // the last
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF64Const     = 0x44
	opI32Eqz       = 0x45
	opI32Eq        = 0x46 // comparisons of i32
	opI32GeU       = 0x4f
	opI64Eqz       = 0x50
	opI64Eq        = 0x51 // comparisons of i64
	opI64Ne        = 0x52
	opI64GtU       = 0x56
	opI64GeU       = 0x5a
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64ShrU      = 0x88
	opI32WrapI64   = 0xa7
	opI64ExtendU   = 0xad
	opI64Extend32S = 0xc4 // the last numeric instruction

	emptyBlock = 0x40
)

// Go's use of locals and globals.
const (
	pcLocal  = 0 // parameter: the basic block to start at, see package comment
	spLocal  = 1 // copy of the stack pointer; see below for what it becomes
	spGlobal = 0 // the stack pointer
)

// Op is one instruction of a body.
type Op struct {
	Code       byte
	N          uint32 // first immediate of br, br_if, call, local.* and global.*
	Start, End int32  // where it stands in the source
}

// body is a function's instructions.
type body struct {
	src []byte
	ops []Op
}

// is reports whether instruction i is code with n as its immediate.
func (b *body) is(i int, code byte, n uint32) bool {
	return b.op(i) == code && b.ops[i].N == n
}

// op returns the code of instruction i, 0xff beyond the body.
func (b *body) op(i int) byte {
	if i < 0 || i >= len(b.ops) {
		return 0xff
	}
	return b.ops[i].Code
}

// plain reports whether instruction i opens a block, loop or if (code) without parameters and results.
func (b *body) plain(i int, code byte) bool {
	return b.op(i) == code && b.ops[i].End == b.ops[i].Start+2 && b.src[b.ops[i].Start+1] == emptyBlock
}

// constant returns the value of an i32.const or i64.const if it is between 0 and 2^31-1.
func (b *body) constant(i int) (v uint32, ok bool) {
	o := &b.ops[i]
	var n uint64
	var shift uint
	for at := o.Start + 1; at < o.End; at++ {
		c := b.src[at]
		n |= uint64(c&0x7f) << shift
		shift += 7
		if c&0x80 == 0 {
			return uint32(n), c&0x40 == 0 && n < 1<<31
		}
	}
	return 0, false
}

// isConst reports whether instruction i is a constant of the given type and value.
func (b *body) isConst(i int, code byte, want uint32) bool {
	if b.op(i) != code {
		return false
	}
	v, ok := b.constant(i)
	return ok && v == want
}

// targets returns the targets of a br_table, the default last.
func (b *body) targets(i int) []uint32 {
	at := b.ops[i].Start + 1
	n, w := binary.Uvarint(b.src[at:])
	out := make([]uint32, n+1)
	for k := range out {
		at += int32(w)
		var v uint64
		v, w = binary.Uvarint(b.src[at:])
		out[k] = uint32(v)
	}
	return out
}

// memarg returns alignment and offset of a load or store.
func (b *body) memarg(i int) (align, offset uint32) {
	at := b.ops[i].Start + 1
	a, w := binary.Uvarint(b.src[at:])
	o, _ := binary.Uvarint(b.src[at+int32(w):])
	return uint32(a), uint32(o)
}

func appendU32(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

// appendI32 encodes a signed number that is not negative.
func appendI32(b []byte, v uint32) []byte {
	for v >= 0x40 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
