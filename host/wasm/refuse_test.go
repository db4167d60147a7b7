package wasm

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
)

// TestRefused loads modules that must not get as far as the compiler, or that it must reject.
func TestRefused(t *testing.T) {
	rt, g := load(t, Config{MemoryLimit: 64 << 20}, mustBuild(t, goodGuest))
	good := mod{}.bytes()
	call := func(body ...byte) []byte { return mod{call: append([]byte{0}, body...)}.bytes() }
	command := mod{name: "_start"}.bytes()
	for _, tt := range []struct {
		name  string
		code  []byte
		class abi.Class
		want  string
	}{
		{"empty", nil, abi.ErrCorrupt, "magic number"},
		{"an ELF file", []byte("\x7fELF\x02\x01\x01\x00\x00\x00"), abi.ErrCorrupt, "magic number"},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00"), abi.ErrUnsupported, "component"},
		{"another version of wasm", []byte("\x00asm\x02\x00\x00\x00"), abi.ErrUnsupported, "version"},
		{"another contract", mod{imports: [][]byte{importFunc("convhost.v2", "ctl_read", 2)}}.bytes(), abi.ErrUnsupported, "made for convhost.v2, this host speaks convhost.v1"},
		{"another export", mod{name: "convhost_v2_call"}.bytes(), abi.ErrUnsupported, "exports convhost_v2_call"},
		{"unknown import", mod{imports: [][]byte{importFunc("convhost.v1", "teleport", 2)}}.bytes(), abi.ErrUnsupported, `imports "teleport"`},
		{"unknown module", mod{imports: [][]byte{importFunc("env", "printf", 2)}}.bytes(), abi.ErrUnsupported, `of "env"`},
		{"unknown wasi", mod{imports: [][]byte{importFunc("wasi_snapshot_preview1", "thread_spawn", 2)}}.bytes(), abi.ErrUnsupported, "thread_spawn"},
		{"wrong type of import", mod{imports: [][]byte{importFunc("convhost.v1", "ctl_read", 1)}}.bytes(), abi.ErrUnsupported, "(i32) -> (i32), this host has (i32, i32) -> (i64)"},
		{"the poll", mod{imports: [][]byte{importFunc("convhost.v1", "poll", 0)}}.bytes(), abi.ErrUnsupported, `imports "poll"`},
		{"imported memory", mod{imports: [][]byte{join(str("env"), str("table"), []byte{1, 0x70, 0, 1})}, offset: -1}.bytes(), abi.ErrUnsupported, "no function"},
		{"no memory", mod{noMem: true}.bytes(), abi.ErrPlugin, `memory "memory" is not exported`},
		{"no call", mod{name: "other"}.bytes(), abi.ErrPlugin, `"convhost_v1_call" is not exported`},
		{"a program", command, abi.ErrPlugin, "c-shared"},
		{"wrong type of export", []byte(strings.Replace(string(good), "\x03\x02\x00\x01", "\x03\x02\x00\x00", 1)), abi.ErrPlugin, "() -> (), want (i32) -> (i32)"},
		{"more memory than the limit", mod{memory: []byte{0, 0x81, 0x08}}.bytes(), abi.ErrLimit, "memory limit of 64 MiB"},
		{"atomics", call(0xfe, 3, 0), abi.ErrUnsupported, "threads"},
		{"exceptions", call(0x08, 0), abi.ErrUnsupported, "exceptions"},
		{"tail call", call(0x12, 0), abi.ErrUnsupported, "tail calls"},
		{"type error", call(0x42, 0), abi.ErrCorrupt, "i64"},
		{"its own counter", call(0x23, 0, 0x0b), abi.ErrCorrupt, "global index"},
		{"a billion functions", join(good[:8], section(3, []byte{0xff, 0xff, 0xff, 0xff, 3})), abi.ErrLimit, "number of functions"},
		{"a billion segments", mod{extra: section(11, []byte{0xff, 0xff, 0xff, 0xff, 3})}.bytes(), abi.ErrLimit, "data segments"},
		{"a bomb", mod{call: bomb(2000, 2000)}.bytes(), abi.ErrLimit, "nesting of loops"},
		{"a flat bomb", mod{call: join([]byte{1}, leb(2000), []byte{0x7e}, []byte(strings.Repeat("\x03\x40\x0b", 2000)), []byte{0x41, 0})}.bytes(), abi.ErrLimit, "complexity"},
		{"too many locals", mod{call: join([]byte{1}, binary.AppendUvarint(nil, 1<<31), []byte{0x7e, 0x41, 0})}.bytes(), abi.ErrLimit, "locals"},
		{"too large", make([]byte, 64<<20+1), abi.ErrLimit, "size"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := rt.Load(t.Context(), tt.code)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v (%v), want %v with %q", err, abi.ClassOf(err), tt.class, tt.want)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("refused after %v", took)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
				t.Errorf("allocated %d bytes", n)
			}
		})
	}
	works(t, g)
	if _, err := rt.Load(t.Context(), good); err != nil {
		t.Errorf("the module that the others are made of: %v", err)
	}
}

// TestTruncated cuts a module everywhere.
func TestTruncated(t *testing.T) {
	rt := newRuntime(t, Config{Interpreter: true})
	data := section(11, []byte{1, 0, 0x41, 0, 0x0b, 1, 'x'})
	good := mod{imports: [][]byte{importFunc("convhost.v1", "ctl_read", 2)}, extra: data}.bytes()
	withoutData := len(good) - len(data) // sound without its last section
	for n := range good {
		if _, err := rt.Load(t.Context(), good[:n]); err == nil && n != withoutData {
			t.Errorf("%d of %d bytes are accepted", n, len(good))
		}
	}
	if _, err := rt.Load(t.Context(), good); err != nil {
		t.Error(err)
	}
}
