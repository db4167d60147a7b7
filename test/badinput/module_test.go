package badinput

import (
	"encoding/binary"
	"slices"

	"github.com/convhost/convhost/abi"
)

// Places in the memory of a module.
const (
	atDescription = 1 << 10 // what it answers to Describe
	atAnswer      = 8 << 10 // what it answers to ConvertLayer
	atScratch     = 16 << 10
	pageSize      = 64 << 10
)

// module is a small WebAssembly plugin under construction. It describes itself and does one thing when asked to
// convert: a plugin that behaves copies the layer to output 0 and says so.
type module struct {
	describe abi.Description
	answer   []byte // of ConvertLayer
	imports  []abi.WasmFunc
	pages    int  // of memory at the start
	noCall   bool // without the export
	major    byte // in the names of imports and exports
	convert  []byte
	garbage  []byte // further functions' bodies, never called
}

func newModule() *module {
	return &module{
		describe: abi.Description{Name: "evil", Version: "1", Major: abi.Major, Ops: []abi.Op{abi.OpConvertLayer}, Input: abi.RoleLayerStored},
		answer:   response(abi.Part{Sink: 0, MediaType: "application/x-evil"}),
		pages:    1, major: '1',
	}
}

func response(parts ...abi.Part) []byte { return abi.Marshal(&abi.ConvertResponse{Parts: parts}) }

// Opcodes.
const (
	opUnreachable = 0x00
	opLoop        = 0x03
	opIf          = 0x04
	opEnd         = 0x0b
	opBr          = 0x0c
	opReturn      = 0x0f
	opDrop        = 0x1a
	opLocalGet    = 0x20
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opI32Eq       = 0x46
	blockVoid     = 0x40
)

func uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func sleb(n int64) (b []byte) {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func i32(n int) []byte { return append([]byte{opI32Const}, sleb(int64(int32(n)))...) }

// call appends a call of an import with constants, and drops its result.
func (m *module) call(name string, args ...int) []byte {
	sig := abi.WasmFunc{Name: name, Params: "i"} // proc_exit
	if i := slices.IndexFunc(abi.WasmImports, func(f abi.WasmFunc) bool { return f.Name == name }); i >= 0 {
		sig = abi.WasmImports[i]
	}
	at := slices.Index(m.imports, sig)
	if at < 0 {
		at = len(m.imports)
		m.imports = append(m.imports, sig)
	}
	var code []byte
	for i, a := range args {
		if sig.Params[i] == 'I' {
			code = append(append(code, opI64Const), sleb(int64(a))...)
		} else {
			code = append(code, i32(a)...)
		}
	}
	code = append(append(code, 0x10), uleb(at)...)
	if sig.Result != "" {
		code = append(code, opDrop)
	}
	return code
}

// Pieces of a plugin that behaves. The session counts handles from 1.
func (m *module) open() []byte {
	return slices.Concat(m.call("open_sink", 0, 0, 0), m.call("open", int(abi.RoleLayerStored), 0))
}
func (m *module) copy() []byte  { return m.call("copy", 1, 2, -1, -1) }
func (m *module) close() []byte { return m.call("close", 1, atScratch, abi.StreamInfoSize) }
func (m *module) reply() []byte {
	return slices.Concat(m.call("ctl_write", atAnswer, len(m.answer)), i32(abi.WasmOK))
}
func (m *module) behave() []byte { return slices.Concat(m.open(), m.copy(), m.close(), m.reply()) }

// forever repeats code.
func forever(code []byte) []byte {
	return slices.Concat([]byte{opLoop, blockVoid}, code, []byte{opBr, 0, opEnd, opUnreachable})
}

func vec(items ...[]byte) []byte { return append(uleb(len(items)), slices.Concat(items...)...) }

func str(s string) []byte { return append(uleb(len(s)), s...) }

func section(id byte, content []byte) []byte {
	return append(append([]byte{id}, uleb(len(content))...), content...)
}

// bytes assembles the module.
func (m *module) bytes() []byte {
	description := abi.Marshal(&m.describe)
	call := slices.Concat([]byte{opLocalGet, 0}, i32(int(abi.OpDescribe)), []byte{opI32Eq, opIf, blockVoid},
		m.call("ctl_write", atDescription, len(description)), i32(abi.WasmOK), []byte{opReturn, opEnd}, m.convert)
	types := [][]byte{{0x60, 0, 0}, {0x60, 1, 0x7f, 1, 0x7f}}
	var imports [][]byte
	for _, f := range m.imports {
		from, sig := abi.WasmModule[:len(abi.WasmModule)-1]+string(m.major), []byte{0x60, byte(len(f.Params))}
		if f.Result == "" {
			from = abi.WasmWASI
		}
		for _, p := range f.Params {
			sig = append(sig, map[rune]byte{'i': 0x7f, 'I': 0x7e}[p])
		}
		if sig = append(sig, byte(len(f.Result))); f.Result != "" {
			sig = append(sig, 0x7e)
		}
		imports = append(imports, slices.Concat(str(from), str(f.Name), []byte{0}, uleb(len(types))))
		types = append(types, sig)
	}
	n := len(imports)
	exports := [][]byte{slices.Concat(str(abi.WasmMemory), []byte{2, 0}), slices.Concat(str(abi.WasmInitialize), []byte{0}, uleb(n))}
	if !m.noCall {
		exports = append(exports, slices.Concat(str(abi.WasmCall), []byte{0}, uleb(n+1)))
	}
	body := func(b []byte) []byte { return slices.Concat(uleb(len(b)+1), b, []byte{opEnd}) }
	functions, bodies := [][]byte{{0}, {1}}, [][]byte{body([]byte{0}), body(append([]byte{0}, call...))}
	if m.garbage != nil {
		functions, bodies = append(functions, []byte{1}), append(bodies, body(m.garbage))
	}
	data := func(at int, b []byte) []byte {
		return slices.Concat([]byte{0}, i32(at), []byte{opEnd}, uleb(len(b)), b)
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, vec(types...)), section(2, vec(imports...)), section(3, vec(functions...)),
		section(5, append([]byte{1, 0}, uleb(m.pages)...)), section(7, vec(exports...)), section(10, vec(bodies...)),
		section(11, vec(data(atDescription, description), data(atAnswer, m.answer))))
}
