package gocode

import "bytes"

// Two functions of Go's library for WebAssembly, written by hand (internal/bytealg), look at one byte at a time: that behind
// every comparison of strings, and that behind every order of strings. They get a beginning that looks at eight.

// slowBytes is such a function: its code, and what comes before it.
type slowBytes struct {
	params, results string
	code, first     []byte
}

var slow = []slowBytes{
	{
		params: "\x7e\x7e\x7e", results: "\x7e", // memeqbody: two addresses, and their length
		code: []byte{
			0x20, 0x00, 0x20, 0x01, 0x51, 0x04, 0x40, 0x42, 0x01, 0x0f, 0x0b, 0x03, 0x40, 0x20, 0x02, 0x50, 0x04, 0x40, 0x42, 0x01,
			0x0f, 0x0b, 0x20, 0x00, 0xa7, 0x31, 0x00, 0x00, 0x20, 0x01, 0xa7, 0x31, 0x00, 0x00, 0x52, 0x04, 0x40, 0x42, 0x00, 0x0f,
			0x0b, 0x20, 0x00, 0x42, 0x01, 0x7c, 0x21, 0x00, 0x20, 0x01, 0x42, 0x01, 0x7c, 0x21, 0x01, 0x20, 0x02, 0x42, 0x01, 0x7d,
			0x21, 0x02, 0x0c, 0x00, 0x0b, 0x00, 0x00, 0x0b,
		},
		// if n >= 8 { for n > 8 { if *p != *q { return 0 }; p, q, n = p+8, q+8, n-8 }; return *(p+n-8) == *(q+n-8) }
		first: []byte{
			opLocalGet, 2, opI64Const, 8, opI64GeU, opIf, emptyBlock,
			opLoop, emptyBlock, opLocalGet, 2, opI64Const, 8, opI64GtU, opIf, emptyBlock,
			opLocalGet, 0, opI32WrapI64, opI64Load, 0, 0, opLocalGet, 1, opI32WrapI64, opI64Load, 0, 0, opI64Ne,
			opIf, emptyBlock, opI64Const, 0, opReturn, opEnd,
			opLocalGet, 0, opI64Const, 8, opI64Add, opLocalSet, 0,
			opLocalGet, 1, opI64Const, 8, opI64Add, opLocalSet, 1,
			opLocalGet, 2, opI64Const, 8, opI64Sub, opLocalSet, 2,
			opBr, 1, opEnd, opEnd,
			opLocalGet, 0, opLocalGet, 2, opI64Add, opI64Const, 8, opI64Sub, opI32WrapI64, opI64Load, 0, 0,
			opLocalGet, 1, opLocalGet, 2, opI64Add, opI64Const, 8, opI64Sub, opI32WrapI64, opI64Load, 0, 0,
			opI64Eq, opI64ExtendU, opReturn, opEnd,
		},
	},
	{
		params: "\x7f\x7f\x7f", results: "\x7f", // memcmp
		code: []byte{
			0x20, 0x02, 0x04, 0x7f, 0x03, 0x40, 0x20, 0x00, 0x2c, 0x00, 0x00, 0x22, 0x03, 0x20, 0x01, 0x2c, 0x00, 0x00, 0x22, 0x04,
			0x46, 0x04, 0x40, 0x20, 0x00, 0x41, 0x01, 0x6a, 0x21, 0x00, 0x20, 0x01, 0x41, 0x01, 0x6a, 0x21, 0x01, 0x41, 0x00, 0x20,
			0x02, 0x41, 0x7f, 0x6a, 0x22, 0x02, 0x45, 0x0d, 0x03, 0x1a, 0x0c, 0x01, 0x0b, 0x0b, 0x20, 0x03, 0x41, 0xff, 0x01, 0x71,
			0x20, 0x04, 0x41, 0xff, 0x01, 0x71, 0x6b, 0x05, 0x41, 0x00, 0x0b, 0x0f, 0x00, 0x0b,
		},
		// for n >= 8 && *p == *q { p, q, n = p+8, q+8, n-8 }
		first: []byte{
			opLoop, emptyBlock, opLocalGet, 2, opI32Const, 8, opI32GeU, opIf, emptyBlock,
			opLocalGet, 0, opI64Load, 0, 0, opLocalGet, 1, opI64Load, 0, 0, opI64Eq, opIf, emptyBlock,
			opLocalGet, 0, opI32Const, 8, opI32Add, opLocalSet, 0,
			opLocalGet, 1, opI32Const, 8, opI32Add, opLocalSet, 1,
			opLocalGet, 2, opI32Const, 8, opI32Sub, opLocalSet, 2,
			opBr, 2, opEnd, opEnd, opEnd,
		},
	},
}

// Hasten returns what to put before the instructions code, up to its last end, of a function with these parameters and results,
// or nil.
func Hasten(params, results string, code []byte) []byte {
	for k := range slow {
		if s := &slow[k]; s.params == params && s.results == results && bytes.Equal(s.code, code) {
			return s.first
		}
	}
	return nil
}
