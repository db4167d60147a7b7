package instrument

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// Kinds of imports and exports.
const (
	KindFunc   = 0
	KindTable  = 1
	KindMemory = 2
	KindGlobal = 3
)

// Sections of a module.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	sections
)

// rank is the order in which sections must stand.
var rank = [sections]int{secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7,
	secStart: 8, secElement: 9, secDataCount: 10, secCode: 11, secData: 12}

// FuncType is a signature: one byte a value, as in the binary format (0x7f i32, 0x7e i64, …).
type FuncType struct{ Params, Results string }

// String prints t as (i32, i64) -> (i64).
func (t FuncType) String() string {
	names := map[byte]string{0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128", 0x70: "funcref", 0x6f: "externref"}
	list := func(s string) string {
		out := "("
		for i := range len(s) {
			if i > 0 {
				out += ", "
			}
			out += names[s[i]]
		}
		return out + ")"
	}
	return list(t.Params) + " -> " + list(t.Results)
}

// Import is one import. Type is set for functions.
type Import struct {
	Module, Name string
	Kind         byte
	Type         FuncType

	raw []byte // the import as it stands
}

// Export is one export. Index counts imports first. Type is set for functions.
type Export struct {
	Name  string
	Kind  byte
	Index uint32
	Type  FuncType
}

// Module is the structure of a module, without its code.
type Module struct {
	Imports []Import
	Exports []Export
	// MemoryMin is the number of 64 KiB pages that the module's own memory starts with, -1 if it has none.
	MemoryMin int64
	// MemoryMax is the most pages that it declares, -1 if it does not say.
	MemoryMax int64

	wasm      []byte
	goVersion string // of the Go compiler that made it, as the module says; "" if it does not
	lim       Limits
	sec       [sections]span // contents of the sections
	types     []FuncType
	funcTypes []uint32 // type of every own function
	imported  [4]int   // number of imports of each kind
	tables    int      // imported and own
	globals   int      // own
}

// span is a range of the file; zero if absent.
type span struct{ start, end int }

// Read parses all sections but code, and checks their counts against lim and the bytes that are there.
func Read(wasm []byte, lim Limits) (*Module, error) {
	if len(wasm) > lim.ModuleBytes {
		return nil, &abi.FormatError{Class: abi.ErrLimit, Format: "wasm module", Off: -1, Field: "size",
			Got: fmt.Sprint(len(wasm)), Want: fmt.Sprintf("at most %d bytes", lim.ModuleBytes)}
	}
	m := &Module{wasm: wasm, lim: lim, MemoryMin: -1, MemoryMax: -1}
	r := &reader{b: wasm, end: len(wasm)}
	if err := header(r); err != nil {
		return nil, err
	}
	m.split(r)
	if r.err != nil {
		return nil, r.err
	}
	for id, parse := range [sections]func(*reader){secType: m.readTypes, secImport: m.readImports, secFunction: m.readFuncs,
		secTable: m.readTables, secMemory: m.readMemory, secGlobal: m.readGlobals, secExport: m.readExports} {
		if parse == nil || m.sec[id].start == 0 {
			continue
		}
		r := m.section(id)
		parse(r)
		if r.err == nil && r.pos != r.end {
			r.bad(fmt.Sprintf("section %d", id), fmt.Sprintf("%d bytes longer than its contents", r.left()), "none left")
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	return m, nil
}

func (m *Module) section(id int) *reader {
	return &reader{b: m.wasm, pos: m.sec[id].start, end: m.sec[id].end}
}

func header(r *reader) error {
	w := r.b
	if len(w) < 8 || string(w[:4]) != "\x00asm" {
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "wasm module", Off: 0, Field: "magic number",
			Got: fmt.Sprintf("%q", w[:min(len(w), 8)]), Want: `"\x00asm" and a version`}
	}
	if v := string(w[4:8]); v != "\x01\x00\x00\x00" {
		want := "version 1"
		if w[6] == 1 {
			want = "a core module; this is a component, which wazero cannot run"
		}
		return &abi.FormatError{Class: abi.ErrUnsupported, Format: "wasm module", Off: 4, Field: "version",
			Got: fmt.Sprintf("%x", v), Want: want}
	}
	r.pos = 8
	return nil
}

// split finds the sections.
func (m *Module) split(r *reader) {
	last := 0
	for r.err == nil && r.left() > 0 {
		id := r.byte("section id")
		size := r.u32("section size")
		if uint64(size) > uint64(r.left()) {
			r.fail(abi.ErrTruncated, fmt.Sprintf("section %d", id), fmt.Sprintf("%d bytes", r.left()), fmt.Sprintf("%d bytes", size))
			return
		}
		start := r.pos
		if id >= sections {
			r.fail(abi.ErrUnsupported, "section id", fmt.Sprint(id), "0 to 12")
			return
		}
		if id == secCustom {
			sub := &reader{b: r.b, pos: start, end: start + int(size)}
			name := sub.name("custom section name")
			if sub.err != nil {
				r.err = sub.err
				return
			}
			if name == "producers" {
				m.readProducers(sub)
			}
		} else {
			if rank[id] <= last {
				r.bad("section id", id, "sections in order, each once")
				return
			}
			last = rank[id]
			m.sec[id] = span{start, start + int(size)}
		}
		r.pos = start + int(size)
	}
}

// readProducers finds the version of Go's compiler. What is wrong with a custom section does not matter.
func (m *Module) readProducers(r *reader) {
	for range r.count("fields", maxName, 2) {
		r.name("field")
		for range r.count("values", maxName, 2) {
			tool, version := r.name("tool"), r.name("version")
			if tool == "Go cmd/compile" && r.err == nil {
				m.goVersion = version
			}
		}
	}
}

func valueType(c byte) bool { return c >= 0x7b && c <= 0x7f || c == 0x70 || c == 0x6f }

func (m *Module) readTypes(r *reader) {
	for range r.count("number of types", maxTypes, 3) {
		if c := r.byte("type"); c != 0x60 && r.err == nil {
			r.fail(abi.ErrUnsupported, "type", fmt.Sprintf("0x%x", c), "0x60, a function type")
		}
		t := FuncType{Params: valueTypes(r), Results: valueTypes(r)}
		if r.err != nil {
			return
		}
		m.types = append(m.types, t)
	}
}

func valueTypes(r *reader) string {
	n := r.count("number of values", maxValues, 1)
	s := string(r.b[r.pos : r.pos+n])
	for i := range n {
		if !valueType(s[i]) {
			r.fail(abi.ErrUnsupported, "value type", fmt.Sprintf("0x%x", s[i]), "a number, vector, funcref or externref")
			return ""
		}
	}
	r.pos += n
	return s
}

func (m *Module) typeAt(r *reader, field string) (uint32, FuncType) {
	i := r.u32(field)
	if r.err == nil && uint64(i) >= uint64(len(m.types)) {
		r.bad(field, i, fmt.Sprintf("less than %d", len(m.types)))
	}
	if r.err != nil {
		return 0, FuncType{}
	}
	return i, m.types[i]
}

func (m *Module) readImports(r *reader) {
	for range r.count("number of imports", maxImports, 4) {
		start := r.pos
		im := Import{Module: r.name("import module"), Name: r.name("import name"), Kind: r.byte("import kind")}
		switch im.Kind {
		case KindFunc:
			_, im.Type = m.typeAt(r, "type of an imported function")
		case KindTable:
			m.readTable(r)
			m.tables++
		case KindMemory:
			r.limits("imported memory", 1<<16)
		case KindGlobal:
			m.readGlobalType(r)
		default:
			r.fail(abi.ErrUnsupported, "import kind", fmt.Sprint(im.Kind), "a function, table, memory or global")
		}
		if r.err != nil {
			return
		}
		im.raw = r.b[start:r.pos]
		m.imported[im.Kind]++
		m.Imports = append(m.Imports, im)
	}
}

// limits reads the limits of a table or memory; max is -1 if absent.
func (r *reader) limits(field string, most uint32) (min, max int64) {
	flag := r.byte(field)
	min, max = int64(r.u32(field)), -1
	if flag > 1 {
		r.fail(abi.ErrUnsupported, field+" flags", fmt.Sprint(flag), "0 or 1 (no shared or 64-bit memory)")
	}
	if flag == 1 {
		max = int64(r.u32(field))
	}
	if r.err == nil && (min > int64(most) || max >= 0 && max < min) {
		r.bad(field, fmt.Sprintf("%d to %d", min, max), fmt.Sprintf("ascending and from at most %d", most))
	}
	return min, max
}

func (m *Module) readTable(r *reader) (kind byte, min, max int64) {
	kind = r.byte("table type")
	if kind != 0x70 && kind != 0x6f {
		r.fail(abi.ErrUnsupported, "table type", fmt.Sprintf("0x%x", kind), "funcref or externref")
	}
	min, max = r.limits("table size", 1<<32-1)
	if min > maxTable {
		r.fail(abi.ErrLimit, "table size", fmt.Sprint(min), fmt.Sprintf("at most %d", maxTable))
	}
	return kind, min, max
}

func (m *Module) readFuncs(r *reader) {
	for range r.count("number of functions", m.lim.Functions, 1) {
		t, _ := m.typeAt(r, "type of a function")
		if r.err != nil {
			return
		}
		m.funcTypes = append(m.funcTypes, t)
	}
}

func (m *Module) readTables(r *reader) {
	n := r.count("number of tables", maxTables, 3)
	for range n {
		m.readTable(r)
	}
	m.tables += n
}

func (m *Module) readMemory(r *reader) {
	n := r.count("number of memories", 1<<16, 2)
	if n+m.imported[KindMemory] > 1 {
		r.fail(abi.ErrUnsupported, "number of memories", fmt.Sprint(n), "at most 1")
	}
	if n == 1 {
		m.MemoryMin, m.MemoryMax = r.limits("memory size", 1<<16)
	}
}

func (m *Module) readGlobalType(r *reader) {
	if t := r.byte("type of a global"); r.err == nil && !valueType(t) {
		r.fail(abi.ErrUnsupported, "type of a global", fmt.Sprintf("0x%x", t), "a number, vector or reference")
	}
	if c := r.byte("mutability"); c > 1 {
		r.bad("mutability", c, "0 or 1")
	}
}

func (m *Module) readGlobals(r *reader) {
	m.globals = r.count("number of globals", maxGlobals, 4)
	for range m.globals {
		m.readGlobalType(r)
		m.constExpr(r)
	}
}

func (m *Module) readExports(r *reader) {
	own := len(m.funcTypes)
	for range r.count("number of exports", maxExports, 3) {
		e := Export{Name: r.name("export name"), Kind: r.byte("export kind"), Index: r.u32("export index")}
		if r.err != nil {
			return
		}
		if e.Kind > KindGlobal {
			r.fail(abi.ErrUnsupported, "export kind", fmt.Sprint(e.Kind), "a function, table, memory or global")
			return
		}
		if e.Kind == KindFunc {
			if uint64(e.Index) >= uint64(m.imported[KindFunc]+own) {
				r.bad("export index", e.Index, fmt.Sprintf("less than %d", m.imported[KindFunc]+own))
				return
			}
			e.Type = m.typeOf(e.Index)
		}
		m.Exports = append(m.Exports, e)
	}
}

// typeOf returns the signature of a function by its index, imports first.
func (m *Module) typeOf(index uint32) FuncType {
	if int(index) >= m.imported[KindFunc] {
		return m.types[m.funcTypes[int(index)-m.imported[KindFunc]]]
	}
	for _, im := range m.Imports {
		if im.Kind == KindFunc {
			if index == 0 {
				return im.Type
			}
			index--
		}
	}
	return FuncType{}
}
