package abi

import "context"

// Op is an operation that a host asks of a plugin. The request and response messages are in messages.go.
type Op int32

// Operations. A plugin lists those it has in Description.Ops; Describe is not listed, every plugin has it.
const (
	OpDescribe     Op = 1
	OpConvertLayer Op = 2
	OpMergeLayers  Op = 3
	OpUnpack       Op = 4
	OpCheck        Op = 5
	OpAttach       Op = 6 // native plugins only
	OpDetach       Op = 7 // native plugins only
)

// String returns the operation's name as it stands in abi.proto.
func (o Op) String() string {
	names := [...]string{"", "Describe", "ConvertLayer", "MergeLayers", "Unpack", "Check", "Attach", "Detach"}
	if o > 0 && int(o) < len(names) {
		return names[o]
	}
	return "unknown operation"
}

// Guest is a plugin as the host sees it, whatever carries it: a wasm instance, a subprocess, or Go code in this
// process. It is implemented by the host's runtimes and by sdk.InProcess; strangers write plugins against package
// sdk instead.
//
// The host calls at most one operation at a time on a Guest. req and the returned bytes are encoded messages.
// host is valid until Call returns. A cancelled ctx ends the call within a second.
type Guest interface {
	Call(ctx context.Context, op Op, req []byte, host Host) (resp []byte, err error)
}

// Role says what a stream is to the operation that opens it.
type Role int32

// Roles for Host.Open. Only streams that the request announces can be opened; anything else is ErrDenied.
const (
	RoleLayerStored  Role = 1 // the layer's bytes as stored (compressed). Sequential; random access if the host has them at rest
	RoleLayerTar     Role = 2 // the layer's tar, decompressed. Sequential
	RoleLayerEntries Role = 3 // the layer's tar for Host.Entries, Read and JobStream. Sequential
	RoleSink         Role = 4 // an output; index is the caller's choice, from 0, each opened once. Write only
	RolePart         Role = 5 // part index of the request's Parts. Random access
	RoleParent       Role = 6 // part index of the request's Parents: artifacts of lower layers. Random access
	RoleDict         Role = 7 // part index of the request's Dicts: files that the user names, such as a base layer. Random access
)

// String names the role in a few words.
func (r Role) String() string {
	names := [...]string{1: "stored layer", "tar of layer", "entries of layer", "output", "part", "parent", "dictionary"}
	if r > 0 && int(r) < len(names) {
		return names[r]
	}
	return "stream of unknown role"
}

// Handle names an open stream or plan of one call. Handles are small positive numbers, typed, and end with the call.
type Handle int32

// StreamInfo is what closing a stream tells: how many bytes passed, and their SHA-256. For a sink with a filter,
// Raw describes the bytes before the filter. Random-access streams report their size and no digest.
type StreamInfo struct {
	Size      int64
	SHA256    [32]byte
	RawSize   int64
	RawSHA256 [32]byte
}

// SinkFilter is applied by the host to what is written into a sink.
type SinkFilter int32

// Filters for Host.OpenSink.
const (
	FilterNone SinkFilter = 0
	FilterGzip SinkFilter = 1 // one gzip member, no name, no time
	FilterZstd SinkFilter = 2 // one zstd frame
)

// Log levels of Host.Log; the numbers of log/slog.
const (
	LogDebug = -4
	LogInfo  = 0
	LogWarn  = 4
	LogError = 8
)

// Host is everything a plugin can do to the outside while one operation runs. There are three implementations with
// one meaning: direct calls in this process, wasm imports, and a session inside a native plugin's own process.
//
// A Host is used from one goroutine, except in Attach: there ReadAt may be called from several at a time, and its
// error ends that read and not the operation. Buffers belong to the caller and are not kept after a method returns. Methods
// return errors of the classes in this package: ErrDenied for a stream that was not granted, ErrPlugin for a wrong
// handle or misuse, ErrLimit when an allowance is used up, ErrCanceled after cancellation, ErrCorrupt (and its
// kinds) for input that breaks its format. After an error other than ErrUnsupported and ErrNotFound the operation
// cannot succeed any more: return the error.
type Host interface {
	// Open opens an input stream.
	Open(role Role, index int) (Handle, error)
	// OpenSink opens output number index, from 0. Each index can be opened once in an operation. level is the
	// filter's compression level, 0 for its default.
	OpenSink(index int, filter SinkFilter, level int) (Handle, error)
	// Read reads the next bytes of a sequential stream: 0 and nil at its end, never 0 before.
	// On a RoleLayerEntries stream it reads the body of the entry that Entries returned last, in manual mode.
	Read(h Handle, p []byte) (int, error)
	// ReadAt fills p from a random-access stream. Short only at the end: then n < len(p) and a nil error.
	ReadAt(h Handle, p []byte, off int64) (int, error)
	// Size returns the size of a random-access stream.
	Size(h Handle) (int64, error)
	// Write appends to a sink. Jobs that were submitted before write before it.
	Write(h Handle, p []byte) error
	// Copy moves n bytes from an input (at offset off when it is random-access, else the next bytes and off -1) to
	// a sink without passing through the plugin. n -1 means up to the end. It returns the bytes moved.
	Copy(dst, src Handle, off, n int64) (int64, error)
	// Info returns the totals of an open sink so far: everything written and all jobs submitted before are in it. The
	// sink stays open. For a filtered sink only the raw side is meaningful.
	Info(h Handle) (StreamInfo, error)
	// Close ends a stream. A sink is complete only when it was closed without an error; jobs that write to it are
	// finished first.
	Close(h Handle) (StreamInfo, error)

	// Entries fills buf with whole entry records (see entry.go) of a RoleLayerEntries stream and returns the bytes used;
	// 0 at the end of the layer. With plan != 0 the bodies of regular files become jobs of that plan by themselves,
	// tagged with Entry.Seq. With plan == 0 (manual) a batch ends after the first regular file that has a body:
	// Read, JobStream or the next Entries call consumes or skips it. ErrLimit if buf cannot hold the next record:
	// MaxEntryRecord is always enough.
	Entries(h Handle, buf []byte, plan Handle) (int, error)

	// NewPlan declares how jobs are to be processed; see PlanSpec.
	NewPlan(spec *PlanSpec) (Handle, error)
	// JobStream submits the next n bytes of a sequential stream, cut into chunks by the plan, and returns the number
	// of chunks. It may wait until earlier jobs are done (that is the back pressure). On an entries stream n == -1 means
	// the rest of the current body.
	JobStream(plan, stream Handle, n int64, tag uint64) (int, error)
	// JobBytes submits bytes; they are copied before it returns.
	JobBytes(plan Handle, p []byte, tag uint64) (int, error)
	// JobRange submits stored bytes of a random-access stream to a plan with Decode set: clen bytes at off become ulen
	// bytes after decompression. If raw is set the bytes are taken as they are (clen must equal ulen). If the plan
	// has a digest and want is not nil, a different digest is ErrDigest. From the decoded bytes, skip are dropped at
	// the front and n are written to the plan's sink (n -1: the rest).
	JobRange(plan Handle, src Handle, r Range, tag uint64) error
	// Collect fills buf with completion records (see completion.go) in submission order, whole records only, and returns
	// the bytes used. It waits until at least min records are there or no job is outstanding; min 0 polls.
	Collect(buf []byte, min int) (int, error)
	// ClosePlan waits for the plan's jobs and returns its totals. Uncollected completions stay collectable.
	ClosePlan(plan Handle) (PlanInfo, error)

	// Sum computes a small digest at once.
	Sum(alg Digest, p []byte) ([32]byte, error)
	// Encode compresses a small buffer (an inode table, a TOC) at once and appends it to dst.
	Encode(codec Codec, level int, dst, src []byte) ([]byte, error)
	// Decode decompresses exactly size bytes and appends them to dst; ErrCorrupt if there are more or fewer.
	Decode(codec Codec, dst, src []byte, size int) ([]byte, error)

	// Log records a message; the host may drop messages that come too fast.
	Log(level int, msg string)
	// Progress tells how much of the operation is done, in units of the plugin's choice; total 0 if unknown.
	Progress(done, total int64)

	// Ready tells, once in an Attach operation, that the image is attached and can be used; the operation goes on serving it.
	// An error says that nobody wants it any more: undo it and return. ErrUnsupported in the sandbox.
	Ready(resp *AttachResponse) error
}

// Range is the input of one decoding job.
type Range struct {
	Off    int64     // position of the stored bytes
	CLen   int       // stored length
	ULen   int       // length after decompression
	Raw    bool      // stored as is
	Prefix bool      // the CLen bytes may go on after what yields the ULen bytes: the rest is not looked at; gzip and deflate only
	Want   *[32]byte // expected digest of the ULen bytes, or nil
	CRC    uint32    // expected CRC-32C of the ULen bytes, if HasCRC
	HasCRC bool
	Skip   int // decoded bytes to drop at the front
	N      int // decoded bytes to write after that; -1: all that are left
}
