package abi

import "encoding/binary"

// Names of the WebAssembly binding, version 1. abi.md describes each import for authors in any language.
const (
	WasmModule     = "convhost.v1"            // module of all host imports; another number is another major version
	WasmWASI       = "wasi_snapshot_preview1" // the only other module a plugin may import from
	WasmMemory     = "memory"                 // export: the linear memory
	WasmInitialize = "_initialize"            // export, () -> (): called once before anything else
	WasmCall       = "convhost_v1_call"       // export, (op i32) -> i32
	WasmPoll       = "poll"                   // import that the host adds itself; a plugin must not import it
)

// Results of the export WasmCall.
const (
	WasmOK        = 0 // the response was given to ctl_write
	WasmFailed    = 1 // the error was given to fail
	WasmUnknownOp = 2 // the plugin does not have this operation
)

// WasmFunc is one import of module WasmModule. Params and Result use one letter a value: i for i32, I for i64.
type WasmFunc struct {
	Name   string
	Params string
	Result string
}

// WasmImports are the functions that a host offers in module WasmModule. Every result is an i64: 0 or more is the
// value, -n is the error class n.
var WasmImports = []WasmFunc{
	{"ctl_read", "ii", "I"},     // ptr, cap
	{"ctl_write", "ii", "I"},    // ptr, len
	{"fail", "iii", "I"},        // class, ptr, len
	{"last_error", "ii", "I"},   // ptr, cap
	{"open", "ii", "I"},         // role, index
	{"open_sink", "iii", "I"},   // index, filter, level
	{"read", "iii", "I"},        // handle, ptr, len
	{"read_at", "iiiI", "I"},    // handle, ptr, len, off
	{"size", "i", "I"},          // handle
	{"write", "iii", "I"},       // handle, ptr, len
	{"copy", "iiII", "I"},       // dst, src, off, n
	{"info", "iii", "I"},        // handle, StreamInfo ptr, len
	{"close", "iii", "I"},       // handle, StreamInfo ptr, len
	{"entries", "iiii", "I"},    // handle, ptr, len, plan
	{"new_plan", "ii", "I"},     // PlanSpec ptr, len
	{"job_stream", "iiII", "I"}, // plan, stream, n, tag
	{"job_bytes", "iiiI", "I"},  // plan, ptr, len, tag
	{"job_range", "iiiiI", "I"}, // plan, src, Range ptr, len, tag
	{"collect", "iii", "I"},     // ptr, len, min
	{"close_plan", "iii", "I"},  // plan, PlanInfo ptr, len
	{"sum", "iiii", "I"},        // alg, ptr, len, out (32 bytes)
	{"encode", "iiiiii", "I"},   // codec, level, src, slen, dst, dcap
	{"decode", "iiiii", "I"},    // codec, src, slen, dst, size
	{"log", "iii", "I"},         // level, ptr, len
	{"progress", "II", "I"},     // done, total
}

// Sizes of the structs that cross the WebAssembly border, in this version. All are little endian and grow only at
// their ends; the length that travels with a pointer says which version the plugin knows.
const (
	PlanSpecSize   = 32
	PlanInfoSize   = 64
	StreamInfoSize = 80
	RangeSize      = 64
)

// Flags of an encoded PlanSpec.
const (
	planCRC32C uint32 = 1 << iota
	planKeepRaw
	planRawSum
	planDecode
	planSharedSum
	planFlags = planCRC32C | planKeepRaw | planRawSum | planDecode | planSharedSum
)

// Append encodes s in PlanSpecSize bytes:
//
//	 0 u32 chunk size   4 u32 digest   8 u32 codec   12 i32 level   16 u32 dedup   20 u32 align   24 u32 sink
//	28 u32 flags: 1 CRC-32C, 2 keep raw, 4 raw sum, 8 decode, 16 shared sum
func (s *PlanSpec) Append(b []byte) []byte {
	le := binary.LittleEndian
	var flags uint32
	for i, on := range [...]bool{s.CRC32C, s.KeepRaw, s.RawSum, s.Decode, s.SharedSum} {
		if on {
			flags |= 1 << i
		}
	}
	for _, v := range [...]uint32{uint32(s.ChunkSize), uint32(s.Digest), uint32(s.Codec), uint32(s.Level),
		uint32(s.Dedup), uint32(s.Align), uint32(s.Sink), flags} {
		b = le.AppendUint32(b, v)
	}
	return b
}

// DecodePlanSpec reads the encoding of PlanSpec.Append. Bytes beyond it must be zero (a newer plugin that does not use
// what is new): ErrUnsupported; fewer bytes, or a number that no plan can have, are ErrPlugin.
func DecodePlanSpec(b []byte) (PlanSpec, error) {
	b, err := structBytes("plan spec", b, PlanSpecSize)
	if err != nil {
		return PlanSpec{}, err
	}
	le := binary.LittleEndian
	flags := le.Uint32(b[28:])
	if flags&^planFlags != 0 {
		return PlanSpec{}, Errorf(ErrUnsupported, "plan spec: flags 0x%x, this host knows 0x%x", flags, planFlags)
	}
	for _, off := range [...]int{0, 20} {
		if v := le.Uint32(b[off:]); v > 1<<30 {
			return PlanSpec{}, Errorf(ErrPlugin, "plan spec: value %d at offset %d, want at most %d", v, off, 1<<30)
		}
	}
	return PlanSpec{
		ChunkSize: int(le.Uint32(b)), Digest: Digest(le.Uint32(b[4:])), Codec: Codec(le.Uint32(b[8:])),
		Level: int(int32(le.Uint32(b[12:]))), Dedup: Dedup(le.Uint32(b[16:])), Align: int(le.Uint32(b[20:])),
		Sink: Handle(le.Uint32(b[24:])), CRC32C: flags&planCRC32C != 0, KeepRaw: flags&planKeepRaw != 0,
		RawSum: flags&planRawSum != 0, Decode: flags&planDecode != 0,
		SharedSum: flags&planSharedSum != 0,
	}, nil
}

// Append encodes i in PlanInfoSize bytes: u64 chunks, u64 jobs, u64 stored bytes, u64 raw bytes, SHA-256 of the raw bytes.
func (i *PlanInfo) Append(b []byte) []byte {
	le := binary.LittleEndian
	for _, v := range [...]int64{i.Chunks, i.Jobs, i.StoredBytes, i.RawBytes} {
		b = le.AppendUint64(b, uint64(v))
	}
	return append(b, i.RawSHA256[:]...)
}

// Decode reads one encoding; b must hold PlanInfoSize bytes.
func (i *PlanInfo) Decode(b []byte) {
	_ = b[PlanInfoSize-1]
	le := binary.LittleEndian
	i.Chunks, i.Jobs = int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
	i.StoredBytes, i.RawBytes = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))
	copy(i.RawSHA256[:], b[32:])
}

// Append encodes i in StreamInfoSize bytes: u64 size, SHA-256, u64 raw size, SHA-256 of the raw bytes.
func (i *StreamInfo) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(le.AppendUint64(b, uint64(i.Size)), i.SHA256[:]...)
	return append(le.AppendUint64(b, uint64(i.RawSize)), i.RawSHA256[:]...)
}

// Decode reads one encoding; b must hold StreamInfoSize bytes.
func (i *StreamInfo) Decode(b []byte) {
	_ = b[StreamInfoSize-1]
	le := binary.LittleEndian
	i.Size, i.RawSize = int64(le.Uint64(b)), int64(le.Uint64(b[40:]))
	copy(i.SHA256[:], b[8:])
	copy(i.RawSHA256[:], b[48:])
}

// Append encodes r in RangeSize bytes:
//
//	 0 u64 offset   8 u32 stored length   12 u32 length   16 u32 flags: 1 raw, 2 digest wanted, 4 CRC-32C wanted,
//	   8 prefix
//	20 u32 CRC-32C  24 u32 skip   28 i32 n   32 [32] digest
func (r *Range) Append(b []byte) []byte {
	le := binary.LittleEndian
	var flags uint32
	for i, on := range [...]bool{r.Raw, r.Want != nil, r.HasCRC, r.Prefix} {
		if on {
			flags |= 1 << i
		}
	}
	b = le.AppendUint64(b, uint64(r.Off))
	for _, v := range [...]uint32{uint32(r.CLen), uint32(r.ULen), flags, r.CRC, uint32(r.Skip), uint32(r.N)} {
		b = le.AppendUint32(b, v)
	}
	if r.Want == nil {
		return append(b, make([]byte, 32)...)
	}
	return append(b, r.Want[:]...)
}

// DecodeRange reads the encoding of Range.Append; errors as DecodePlanSpec.
func DecodeRange(b []byte) (Range, error) {
	b, err := structBytes("range", b, RangeSize)
	if err != nil {
		return Range{}, err
	}
	le := binary.LittleEndian
	flags := le.Uint32(b[16:])
	if flags&^15 != 0 {
		return Range{}, Errorf(ErrUnsupported, "range: flags 0x%x, this host knows 0xf", flags)
	}
	r := Range{
		Off: int64(le.Uint64(b)), CLen: int(int32(le.Uint32(b[8:]))), ULen: int(int32(le.Uint32(b[12:]))),
		Raw: flags&1 != 0, CRC: le.Uint32(b[20:]), HasCRC: flags&4 != 0, Prefix: flags&8 != 0,
		Skip: int(int32(le.Uint32(b[24:]))), N: int(int32(le.Uint32(b[28:]))),
	}
	if r.Off < 0 || r.CLen < 0 || r.ULen < 0 || r.Skip < 0 || r.N < -1 {
		return Range{}, Errorf(ErrPlugin, "range: offset %d, lengths %d and %d, skip %d, n %d: want 0 or more", r.Off, r.CLen, r.ULen, r.Skip, r.N)
	}
	if flags&2 != 0 {
		r.Want = (*[32]byte)(append([]byte(nil), b[32:64]...))
	}
	return r, nil
}

func structBytes(name string, b []byte, size int) ([]byte, error) {
	if len(b) < size {
		return nil, Errorf(ErrPlugin, "%s: %d bytes, want at least %d", name, len(b), size)
	}
	for _, c := range b[size:] {
		if c != 0 {
			return nil, Errorf(ErrUnsupported, "%s: %d bytes with content that this host does not know, it knows %d", name, len(b), size)
		}
	}
	return b[:size], nil
}
