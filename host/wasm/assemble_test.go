package wasm

import "encoding/binary"

// mod is a tiny module under construction. Types are fixed: 0 () -> (), 1 (i32) -> (i32), 2 (i32, i32) -> (i64).
type mod struct {
	imports [][]byte // module, name, kind and type
	offset  int      // less the imports that are no functions
	noMem   bool
	memory  []byte // limits; nil: one page
	init    []byte // body of _initialize
	call    []byte // body of convhost_v1_call, its locals first
	name    string // of the export of call
	extra   []byte // further sections after the code
}

func leb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func str(s string) []byte { return append(leb(len(s)), s...) }

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func section(id byte, parts ...[]byte) []byte {
	b := join(parts...)
	return join([]byte{id}, leb(len(b)), b)
}

func importFunc(module, name string, typ byte) []byte {
	return join(str(module), str(name), []byte{0, typ})
}

// bytes assembles the module. Both functions end with the opcode end, which is added.
func (m mod) bytes() []byte {
	if m.memory == nil {
		m.memory = []byte{0, 1}
	}
	if m.init == nil {
		m.init = []byte{0}
	}
	if m.call == nil {
		m.call = []byte{0, 0x41, 0}
	}
	if m.name == "" {
		m.name = "convhost_v1_call"
	}
	n := byte(len(m.imports) + m.offset)
	exports := [][]byte{leb(3), str("memory"), {2, 0}, str("_initialize"), {0, n}, str(m.name), {0, n + 1}}
	memory := section(5, []byte{1}, m.memory)
	if m.noMem {
		exports, memory = [][]byte{leb(2), str("_initialize"), {0, n}, str(m.name), {0, n + 1}}, nil
	}
	body := func(b []byte) []byte { return join(leb(len(b)+1), b, []byte{0x0b}) }
	return join([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{3, 0x60, 0, 0, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 1, 0x7e}),
		section(2, leb(len(m.imports)), join(m.imports...)),
		section(3, []byte{2, 0, 1}), memory,
		section(7, exports...),
		section(10, []byte{2}, body(m.init), body(m.call)), m.extra)
}

// bomb is a function of so many locals and loops within loops that use them.
func bomb(locals, loops int) []byte {
	code := join([]byte{1}, leb(locals), []byte{0x7e})
	for range loops {
		code = append(code, 0x03, 0x40)
	}
	for i := range locals {
		code = join(code, []byte{0x20}, leb(i), []byte{0x42, 1, 0x7c, 0x21}, leb(i))
	}
	for range loops {
		code = append(code, 0x41, 0, 0x0d, 0, 0x0b)
	}
	return append(code, 0x41, 0)
}
