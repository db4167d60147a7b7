package instrument

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// Opcodes that the rewriter handles or emits.
const (
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
	opSelectT      = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32LtS       = 0x48
	opI32LeS       = 0x4c
	opI32Sub       = 0x6b
	opI32ShrU      = 0x76
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	opPrefixBulk   = 0xfc
	opPrefixSIMD   = 0xfd

	emptyBlock = 0x40
	typeI32    = 0x7f
	typeI64    = 0x7e
)

// Shapes of what follows an opcode.
const (
	immNone   = iota + 1
	immBlock  // block type
	immIndex  // one u32
	immTwo    // two u32
	immMemarg // alignment and offset
	immByte   // memory index
	imm32     // signed LEB of 32 bits
	imm64
	immF32
	immF64
	immTable  // br_table
	immSelect // types
	immRef    // reference type
	immBulk
	immSIMD
)

// shapes has 0 for opcodes that are not supported.
var shapes = func() (t [256]byte) {
	set := func(shape byte, from, to int) {
		for i := from; i <= to; i++ {
			t[i] = shape
		}
	}
	set(immNone, 0x00, 0x01)
	set(immBlock, opBlock, opIf)
	set(immNone, opElse, opElse)
	set(immNone, opEnd, opEnd)
	set(immIndex, opBr, opBrIf)
	set(immTable, opBrTable, opBrTable)
	set(immNone, opReturn, opReturn)
	set(immIndex, opCall, opCall)
	set(immTwo, opCallIndirect, opCallIndirect)
	set(immNone, 0x1a, 0x1b)
	set(immSelect, opSelectT, opSelectT)
	set(immIndex, 0x20, 0x26)
	set(immMemarg, 0x28, 0x3e)
	set(immByte, 0x3f, 0x40)
	set(imm32, opI32Const, opI32Const)
	set(imm64, opI64Const, opI64Const)
	set(immF32, opF32Const, opF32Const)
	set(immF64, opF64Const, opF64Const)
	set(immNone, 0x45, 0xc4)
	set(immRef, opRefNull, opRefNull)
	set(immNone, 0xd1, 0xd1)
	set(immIndex, opRefFunc, opRefFunc)
	set(immBulk, opPrefixBulk, opPrefixBulk)
	set(immSIMD, opPrefixSIMD, opPrefixSIMD)
	return t
}()

// instr is one decoded instruction. index is the first immediate of call, ref.func, br and the like, sub the number
// after a prefix.
type instr struct {
	op      byte
	sub     uint32
	index   uint32
	targets int // of br_table, the default included
	start   int // offset of the opcode
}

// next decodes one instruction.
func (r *reader) next(in *instr) {
	in.start, in.sub, in.index, in.targets = r.pos, 0, 0, 0
	in.op = r.byte("opcode")
	switch shapes[in.op] {
	case immNone:
	case immIndex:
		in.index = r.u32("index")
	case immMemarg:
		r.u32("alignment")
		r.u32("memory offset")
	case imm32:
		r.sleb(5, "i32.const")
	case imm64:
		r.sleb(10, "i64.const")
	case immBlock:
		r.sleb(5, "block type")
	case immTwo:
		in.index = r.u32("index")
		r.u32("index")
	case immByte:
		r.byte("memory index")
	case immF32:
		r.skip(4, "f32.const")
	case immF64:
		r.skip(8, "f64.const")
	case immTable:
		in.targets = r.count("targets of br_table", maxTargets, 1) + 1
		for range in.targets {
			r.u32("target of br_table")
		}
	case immSelect:
		valueTypes(r)
	case immRef:
		r.byte("reference type")
	case immBulk:
		r.bulk(in)
	case immSIMD:
		r.simd(in)
	default:
		r.unknown(in)
	}
}

func (r *reader) bulk(in *instr) {
	in.sub = r.u32("bulk opcode")
	switch {
	case in.sub <= 7:
	case in.sub == 9, in.sub == 11, in.sub == 13, in.sub >= 15 && in.sub <= 17:
		r.u32("index")
	case in.sub == 8, in.sub == 10, in.sub == 12, in.sub == 14:
		r.u32("index")
		r.u32("index")
	default:
		r.unknown(in)
	}
}

func (r *reader) simd(in *instr) {
	in.sub = r.u32("vector opcode")
	switch n := in.sub; {
	case n <= 11, n == 92, n == 93:
		r.u32("alignment")
		r.u32("memory offset")
	case n == 12, n == 13:
		r.skip(16, "vector immediate")
	case n >= 21 && n <= 34:
		r.byte("lane")
	case n >= 84 && n <= 91:
		r.u32("alignment")
		r.u32("memory offset")
		r.byte("lane")
	case n > 255:
		r.unknown(in)
	}
}

func (r *reader) unknown(in *instr) {
	if r.err != nil {
		return
	}
	proposal := "an unknown extension"
	switch in.op {
	case 0xfe:
		proposal = "threads"
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		proposal = "exceptions"
	case 0x12, 0x13:
		proposal = "tail calls"
	case 0x14, 0x15, 0xd3, 0xd4, 0xd5, 0xd6:
		proposal = "typed function references"
	case 0xfb:
		proposal = "garbage collection"
	case opPrefixSIMD:
		proposal = "relaxed vectors"
	}
	r.pos = in.start
	r.fail(abi.ErrUnsupported, "opcode", fmt.Sprintf("0x%x 0x%x (%s)", in.op, in.sub, proposal),
		"WebAssembly 2.0 without threads, exceptions and tail calls")
}
