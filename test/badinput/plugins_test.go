package badinput

import (
	"archive/tar"
	"slices"
	"strings"
	"time"

	"github.com/convhost/convhost/abi"
)

// wasm writes a plugin whose ConvertLayer is what code returns, and a good image for it.
func wasm(code func(w *world, m *module) []byte) func(*world) {
	return func(w *world) {
		m := newModule()
		m.convert = code(w, m)
		w.plugin(m.bytes())
	}
}

// plugin makes b the plugin of the case.
func (w *world) plugin(b []byte) {
	w.file("evil.wasm", 0o644, b)
	w.format = "./evil.wasm"
	if w.root.Digest == "" {
		w.image(goodLayer(w.Store))
	}
	if w.class != 0 {
		w.says = append(w.says, "evil")
	}
}

// lies has a plugin copy the layer and answer something else.
func lies(answer []byte, class abi.Class, says ...string) func(*world) {
	return wasm(func(w *world, m *module) []byte {
		m.answer = answer
		w.fails(class, says...)
		return m.behave()
	})
}

// plugins are the cases of sandboxed plugins.
var plugins = []bad{
	{"nothing: a plugin that copies the layer, of which the others are made (works)", wasm(func(_ *world, m *module) []byte { return m.behave() })},
	{"a plugin that is no WebAssembly", func(w *world) {
		w.fails(abi.ErrCorrupt, "wasm module at 0x0")
		w.plugin([]byte("\x7fELF\x02\x01\x01 and so on"))
	}},
	{"a module cut in the middle", func(w *world) {
		m := newModule()
		m.convert = m.behave()
		w.fails(abi.ErrTruncated, "wasm module at 0x")
		b := m.bytes()
		w.plugin(b[:len(b)/2])
	}},
	{"a plugin for version 2 of the contract", func(w *world) {
		m := newModule()
		m.major = '2'
		m.convert = m.behave()
		w.fails(abi.ErrUnsupported, "convhost.v2", "convhost.v1")
		w.plugin(m.bytes())
	}},
	{"a plugin that says in its description that it is for version 2", wasm(func(w *world, m *module) []byte {
		m.describe.Major = 2
		w.fails(abi.ErrUnsupported, "version 2", "version 1")
		return m.behave()
	})},
	{"a module without the export that is called", func(w *world) {
		m := newModule()
		m.noCall = true
		m.convert = m.behave()
		w.fails(abi.ErrPlugin, abi.WasmCall)
		w.plugin(m.bytes())
	}},
	{"an import that convhost does not have", func(w *world) {
		m := newModule()
		m.imports = []abi.WasmFunc{{Name: "teleport", Params: "ii", Result: "I"}}
		m.convert = m.behave()
		w.fails(abi.ErrUnsupported, "teleport")
		w.plugin(m.bytes())
	}},
	{"a module that takes the compiler minutes", func(w *world) {
		m := newModule()
		m.convert = m.behave()
		m.garbage = slow(2000, 2000)
		w.fails(abi.ErrLimit, "wasm module at 0x")
		w.plugin(m.bytes())
	}},
	{"a module that starts with 4 GiB of memory", func(w *world) {
		m := newModule()
		m.pages = 65536
		m.convert = m.behave()
		w.fails(abi.ErrLimit, "memory limit of 2048 MiB")
		w.plugin(m.bytes())
	}},
	{"a trap", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "crashed", "unreachable")
		return slices.Concat(m.open(), []byte{opUnreachable})
	})},
	{"exit with status 0 halfway", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "exited with status 0")
		return slices.Concat(m.open(), m.copy(), m.call("proc_exit", 0), []byte{opUnreachable})
	})},
	{"an endless loop, with `--limit-time=300ms`", wasm(func(w *world, m *module) []byte {
		w.limits.PluginTime = 300 * time.Millisecond
		w.fails(abi.ErrTimeout, "300ms")
		return slices.Concat(m.open(), forever(m.call("progress", 1, 2)))
	})},
	{"an endless loop that never calls the host, with `--limit-stall=300ms`", wasm(func(w *world, m *module) []byte {
		w.limits.PluginStall = 300 * time.Millisecond
		w.fails(abi.ErrTimeout, "300ms")
		return slices.Concat(m.open(), forever(nil))
	})},
	{"memory that grows without end, with `--limit-memory=64MiB`", wasm(func(w *world, m *module) []byte {
		w.limits.PluginMemory = 64 << 20
		w.fails(abi.ErrLimit, "64 MiB")
		grow := slices.Concat(i32(16), []byte{opMemoryGrow, 0}, i32(-1), []byte{opI32Eq, opIf, blockVoid, opUnreachable, opEnd})
		return slices.Concat(m.open(), forever(grow))
	})},
	{"a gigabyte of output for an empty layer", func(w *world) {
		m := newModule()
		m.pages = 17
		write := m.call("write", 1, 0, 1<<20)
		m.convert = slices.Concat(m.open(), slices.Repeat(write, 1024), m.copy(), m.close(), m.reply())
		w.image(w.TarLayer(packed()))
		w.fails(abi.ErrLimit, "67108864")
		w.plugin(m.bytes())
	}},
	{"a million errors that it ignores", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "handle 77")
		return slices.Concat(m.open(), forever(m.call("size", 77)))
	})},
	{"a digest that its output does not have", lies(response(abi.Part{MediaType: "a/b", Digest: notSuch.String(), Size: 5}),
		abi.ErrPlugin, "output 0", notSuch.String())},
	{"a size that its output does not have", func(w *world) {
		l := goodLayer(w.Store)
		lies(response(abi.Part{MediaType: "a/b", Digest: l.Desc.Digest.String(), Size: 5}), abi.ErrPlugin, "output 0 has 5 bytes, it has 141")(w)
	}},
	{"an output that it did not write", lies(response(abi.Part{MediaType: "a/b"}, abi.Part{Sink: 3, MediaType: "a/b"}), abi.ErrPlugin, "output 3")},
	{"an output that it does not name", lies(response(), abi.ErrPlugin, "output 0")},
	{"a diff ID that is none", lies(response(abi.Part{MediaType: "a/b", DiffID: "sha256:zz"}), abi.ErrPlugin, "sha256:zz")},
	{"an answer that is no message", lies([]byte("\xff\xff\xff\xff"), abi.ErrPlugin)},
	{"an output that it leaves open", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "left output 0 open")
		return slices.Concat(m.open(), m.copy(), m.reply())
	})},
	{"a layer that it does not read", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "did not read the layer")
		return slices.Concat(m.call("open_sink", 0, 0, 0), m.close(), m.reply())
	})},
	{"an answer before the layer turns out to be broken", func(w *world) {
		raw := packed(member{tar.Header{Name: "a", Mode: 0o644, Size: 1 << 20}, strings.Repeat("x", 1<<20)})
		l := w.TarLayer(raw)
		w.Flip(l.Desc.Digest)
		w.image(l)
		m := newModule()
		m.convert = slices.Concat(m.open(), m.close(), m.reply())
		w.fails(abi.ErrDigest, l.Desc.Digest.String())
		w.plugin(m.bytes())
	}},
	{"a handle that it was not given", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "handle 77")
		return slices.Concat(m.open(), m.call("write", 77, 0, 10), m.copy(), m.close(), m.reply())
	})},
	{"a part that it was not granted", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrDenied, "part 0")
		return slices.Concat(m.call("open", int(abi.RolePart), 0), m.behave())
	})},
	{"a pointer beyond its memory", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "memory")
		return slices.Concat(m.open(), m.call("write", 1, 1<<30, 100), m.reply())
	})},
	{"failure without a reason", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "without saying why")
		return slices.Concat(m.open(), i32(abi.WasmFailed))
	})},
	{"a result that is none", wasm(func(w *world, m *module) []byte {
		w.fails(abi.ErrPlugin, "returned 99")
		return slices.Concat(m.open(), i32(99))
	})},
	{"a plugin that is not there", func(w *world) {
		w.image(goodLayer(w.Store))
		w.format = "./nowhere.wasm"
		w.fails(abi.ErrNotFound, "nowhere.wasm")
	}},
	{"a format that no plugin has", func(w *world) {
		w.image(goodLayer(w.Store))
		w.format = "nidus"
		w.fails(abi.ErrNotFound, `"nidus"`, "nydus")
	}},
}

// slow is a function of so many locals and loops within loops that use them.
func slow(locals, loops int) []byte {
	code := slices.Concat([]byte{1}, uleb(locals), []byte{0x7e}, slices.Repeat([]byte{opLoop, blockVoid}, loops))
	for i := range locals {
		code = slices.Concat(code, []byte{opLocalGet}, uleb(i), []byte{opI64Const, 1, 0x7c, 0x21}, uleb(i))
	}
	return slices.Concat(code, slices.Repeat(slices.Concat(i32(0), []byte{0x0d, 0, opEnd}), loops), i32(0))
}
