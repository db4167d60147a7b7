package wasm

import (
	"context"
	"encoding/binary"

	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/abi"
)

// Error numbers of WASI preview 1.
const (
	errnoBadf       = 8
	errnoInval      = 28
	errnoNosys      = 52
	errnoSpipe      = 70
	errnoNotcapable = 76
)

const (
	clockStart = 1640995200_000_000_000 // 2022-01-01, nanoseconds since 1970
	clockStep  = 1_000                  // each reading is a microsecond after the last, see below
	maxRandom  = 64 << 10               // bytes of one random_get
	maxVectors = 1024                   // of one fd_write or poll_oneoff
)

// The step matters to Go plugins: their garbage collector reads the clock often and shares time between itself and the program.
// With steps of a millisecond it hardly ever runs, and a plugin that needs 5 MB takes 600.

// wasiState is the clock and the random generator of one instance. Both start the same each time.
type wasiState struct {
	elapsed uint64 // nanoseconds
	random  uint64
}

// wasiFunc is one function of WASI; fn nil refuses with errno.
type wasiFunc struct {
	params, result string
	errno          uint64
	fn             hostFunc
}

// wasiFuncs is WASI as a plugin sees it: a standard output and error, and nothing else.
var wasiFuncs = map[string]wasiFunc{
	"args_get":                {"ii", "i", 0, nil},
	"args_sizes_get":          {"ii", "i", 0, noStrings},
	"environ_get":             {"ii", "i", 0, nil},
	"environ_sizes_get":       {"ii", "i", 0, noStrings},
	"clock_res_get":           {"ii", "i", 0, clockRes},
	"clock_time_get":          {"iIi", "i", 0, clockTime},
	"fd_advise":               {"iIIi", "i", errnoBadf, nil},
	"fd_allocate":             {"iII", "i", errnoBadf, nil},
	"fd_close":                {"i", "i", 0, standardOnly},
	"fd_datasync":             {"i", "i", errnoBadf, nil},
	"fd_fdstat_get":           {"ii", "i", 0, fdStat},
	"fd_fdstat_set_flags":     {"ii", "i", 0, standardOnly},
	"fd_fdstat_set_rights":    {"iII", "i", errnoBadf, nil},
	"fd_filestat_get":         {"ii", "i", 0, fileStat},
	"fd_filestat_set_size":    {"iI", "i", errnoBadf, nil},
	"fd_filestat_set_times":   {"iIIi", "i", errnoBadf, nil},
	"fd_pread":                {"iiiIi", "i", errnoBadf, nil},
	"fd_prestat_get":          {"ii", "i", errnoBadf, nil},
	"fd_prestat_dir_name":     {"iii", "i", errnoBadf, nil},
	"fd_pwrite":               {"iiiIi", "i", errnoBadf, nil},
	"fd_read":                 {"iiii", "i", 0, fdRead},
	"fd_readdir":              {"iiiIi", "i", errnoBadf, nil},
	"fd_renumber":             {"ii", "i", errnoBadf, nil},
	"fd_seek":                 {"iIii", "i", errnoSpipe, nil},
	"fd_sync":                 {"i", "i", errnoBadf, nil},
	"fd_tell":                 {"ii", "i", errnoSpipe, nil},
	"fd_write":                {"iiii", "i", 0, fdWrite},
	"path_create_directory":   {"iii", "i", errnoNotcapable, nil},
	"path_filestat_get":       {"iiiii", "i", errnoNotcapable, nil},
	"path_filestat_set_times": {"iiiiIIi", "i", errnoNotcapable, nil},
	"path_link":               {"iiiiiii", "i", errnoNotcapable, nil},
	"path_open":               {"iiiiiIIii", "i", errnoNotcapable, nil},
	"path_readlink":           {"iiiiii", "i", errnoNotcapable, nil},
	"path_remove_directory":   {"iii", "i", errnoNotcapable, nil},
	"path_rename":             {"iiiiii", "i", errnoNotcapable, nil},
	"path_symlink":            {"iiiii", "i", errnoNotcapable, nil},
	"path_unlink_file":        {"iii", "i", errnoNotcapable, nil},
	"poll_oneoff":             {"iiii", "i", 0, pollOneoff},
	"proc_exit":               {"i", "", 0, func(_ *call, _ guestMemory, s []uint64) { panic(&exit{api.DecodeU32(s[0])}) }},
	"proc_raise":              {"i", "i", errnoNosys, nil},
	"random_get":              {"ii", "i", 0, randomGet},
	"sched_yield":             {"", "i", 0, nil},
	"sock_accept":             {"iii", "i", errnoNosys, nil},
	"sock_recv":               {"iiiiii", "i", errnoNosys, nil},
	"sock_send":               {"iiiii", "i", errnoNosys, nil},
	"sock_shutdown":           {"ii", "i", errnoNosys, nil},
}

// addWASI makes the module of WASI functions.
func (r *Runtime) addWASI(ctx context.Context) error {
	b := r.rt.NewHostModuleBuilder(abi.WasmWASI)
	for name, f := range wasiFuncs {
		params := make([]api.ValueType, len(f.params))
		for i, c := range f.params {
			params[i] = api.ValueTypeI32
			if c == 'I' {
				params[i] = api.ValueTypeI64
			}
		}
		var results []api.ValueType
		if f.result != "" {
			results = []api.ValueType{api.ValueTypeI32}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, s []uint64) {
			c := ctx.Value(callKey{}).(*call)
			if c.ctx.Err() != nil {
				panic(&trap{c.canceled()})
			}
			if f.fn == nil {
				s[0] = f.errno
				return
			}
			f.fn(c, guestMemory{mod.Memory()}, s)
		}), params, results).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

func noStrings(_ *call, m guestMemory, s []uint64) {
	clear(m.view(s[0], 4))
	clear(m.view(s[1], 4))
	s[0] = 0
}

func clockRes(_ *call, m guestMemory, s []uint64) {
	binary.LittleEndian.PutUint64(m.view(s[1], 8), clockStep)
	s[0] = 0
}

func clockTime(c *call, m guestMemory, s []uint64) {
	now := c.wasi.elapsed
	c.wasi.elapsed += clockStep
	if api.DecodeU32(s[0]) == 0 {
		now += clockStart
	}
	binary.LittleEndian.PutUint64(m.view(s[2], 8), now)
	s[0] = 0
}

func standardOnly(_ *call, _ guestMemory, s []uint64) {
	if s[0] = uint64(api.DecodeU32(s[0])); s[0] > 2 {
		s[0] = errnoBadf
		return
	}
	s[0] = 0
}

// fdStat says that a standard stream is a character device.
func fdStat(c *call, m guestMemory, s []uint64) {
	out := m.view(s[1], 24)
	if standardOnly(c, m, s); s[0] == 0 {
		clear(out)
		out[0] = 2
	}
}

func fileStat(c *call, m guestMemory, s []uint64) {
	out := m.view(s[1], 64)
	if standardOnly(c, m, s); s[0] == 0 {
		clear(out)
		out[16] = 2
	}
}

// fdRead is at the end of an empty input.
func fdRead(c *call, m guestMemory, s []uint64) {
	clear(m.view(s[3], 4))
	standardOnly(c, m, s)
}

func fdWrite(c *call, m guestMemory, s []uint64) {
	fd, n := api.DecodeU32(s[0]), api.DecodeU32(s[2])
	if fd != 1 && fd != 2 {
		s[0] = errnoBadf
		return
	}
	if n > maxVectors {
		s[0] = errnoInval
		return
	}
	total := uint32(0)
	for v := m.view(s[1], uint64(n)*8); len(v) > 0; v = v[8:] {
		p := m.view(uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[4:])))
		c.out.write(p)
		total += uint32(len(p))
	}
	binary.LittleEndian.PutUint32(m.view(s[3], 4), total)
	s[0] = 0
}

// randomGet fills with the same numbers in every instance (SplitMix64 from a fixed seed).
func randomGet(c *call, m guestMemory, s []uint64) {
	if api.DecodeU32(s[1]) > maxRandom {
		s[0] = errnoInval
		return
	}
	for p := m.view(s[0], s[1]); len(p) > 0; p = p[min(8, len(p)):] {
		c.wasi.random += 0x9e3779b97f4a7c15
		z := c.wasi.random
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		copy(p, word[:])
	}
	s[0] = 0
}

// pollOneoff lets the clock jump to the earliest time that is waited for. A subscription has 48 bytes: u64 user data, u8 kind
// (0 clock) and, for clocks, at 24 u64 timeout and at 40 u16 flags (1 absolute). An event has 32: u64 user data, u16
// error, u8 kind.
func pollOneoff(c *call, m guestMemory, s []uint64) {
	n := api.DecodeU32(s[2])
	if n == 0 || n > maxVectors {
		s[0] = errnoInval
		return
	}
	le := binary.LittleEndian
	subs, best, when := m.view(s[0], uint64(n)*48), -1, uint64(0)
	for i := range int(n) {
		sub := subs[i*48:]
		if sub[8] != 0 {
			continue
		}
		t := le.Uint64(sub[24:])
		if le.Uint16(sub[40:])&1 == 0 {
			t += c.wasi.elapsed
		} else if le.Uint32(sub[16:]) == 0 {
			t -= min(t, clockStart)
		}
		if best < 0 || t < when {
			best, when = i, t
		}
	}
	out := m.view(s[1], 32)
	var event [32]byte
	if best < 0 { // streams only: there are none to wait for
		best = 0
		le.PutUint16(event[8:], errnoBadf)
	} else {
		c.wasi.elapsed = max(c.wasi.elapsed, when)
	}
	copy(event[:8], subs[best*48:best*48+8])
	event[10] = subs[best*48+8]
	copy(out, event[:])
	le.PutUint32(m.view(s[3], 4), 1)
	s[0] = 0
}
