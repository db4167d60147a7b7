package blockdev

import (
	"encoding/binary"
	"log/slog"
	"sync"

	"github.com/convhost/convhost/abi"
)

// The kernel's FUSE protocol, as much of it as a file system of one file needs: the root is that file. All integers are in
// the machine's byte order.
//
//	request   0 u32 length  4 u32 opcode  8 u64 unique  16 u64 node  24 u32 uid, gid, pid  36 u32 0   then the body
//	answer    0 u32 length  4 i32 -errno  8 u64 unique                                                then the body
const (
	fuseRequest = 40
	fuseAnswer  = 16

	fuseMajor = 7
	fuseMinor = 31 // max_pages, no_opendir; everything used here is older than Linux 5.0

	opForget      = 2
	opGetAttr     = 3
	opSetAttr     = 4
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatFS      = 17
	opRelease     = 18
	opFsync       = 20
	opFlush       = 25
	opInit        = 26
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
	opFallocate   = 43

	initAsyncRead = 1 << 0
	initBigWrites = 1 << 5
	initAsyncDIO  = 1 << 15
	initMaxPages  = 1 << 22

	fallocKeepSize  = 1
	fallocPunchHole = 2
	fallocZeroRange = 16

	maxIO       = 1 << 20 // bytes of one read or write
	maxRequests = 64      // that the kernel has under way
)

// errno of Linux, the only system where this protocol is spoken; they are the same on all its processors.
const (
	eIO        = 5
	eInval     = 22
	eROFS      = 30
	eNoSys     = 38
	eProto     = 71
	eNotSupp   = 95
	fileMode   = 0o100600
	fileModeRO = 0o100400
)

var native = binary.NativeEndian

// fuseFile answers requests about the file that a disk is.
type fuseFile struct {
	disk     Disk
	writable WritableDisk // nil: read-only
	log      *slog.Logger
	page     int // bytes of a page
}

func newFuseFile(d Disk, log *slog.Logger, page int) *fuseFile {
	w, _ := d.(WritableDisk)
	return &fuseFile{disk: d, writable: w, log: log, page: page}
}

// requestSize is the buffer that a request fits in.
func (f *fuseFile) requestSize() int {
	if f.writable != nil {
		return maxIO + 4096
	}
	return 8192 // the least that the kernel accepts
}

// answers are buffers for answers. Most requests are reads of the device's read-ahead.
var answers = sync.Pool{New: func() any { b := make([]byte, fuseAnswer+128<<10); return &b }}

// request carries out one request and gives its answer to send, which must not keep it. Some have none.
func (f *fuseFile) request(req []byte, send func([]byte) error) error {
	if len(req) < fuseRequest || int(native.Uint32(req)) != len(req) {
		return abi.Errorf(abi.ErrIO, "fuse: request of %d bytes is not whole", len(req))
	}
	op, unique, body := native.Uint32(req[4:]), native.Uint64(req[8:]), req[fuseRequest:]
	switch op {
	case opForget, opBatchForget, opInterrupt:
		return nil
	}
	buf := answers.Get().(*[]byte)
	defer answers.Put(buf)
	n, errno := f.body(op, body, buf)
	if errno != 0 {
		n = 0
	}
	out := (*buf)[:fuseAnswer+n]
	native.PutUint32(out, uint32(len(out)))
	native.PutUint32(out[4:], uint32(-int32(errno)))
	native.PutUint64(out[8:], unique)
	return send(out)
}

// body writes the answer's body behind the place of its header and returns its length, or an errno.
func (f *fuseFile) body(op uint32, in []byte, buf *[]byte) (n, errno int) {
	out := (*buf)[fuseAnswer:]
	switch op {
	case opInit:
		return f.init(in, out)
	case opGetAttr, opSetAttr: // times and owner are nobody's concern
		clear(out[:104])
		native.PutUint64(out, 3600)
		f.attr(out[16:104])
		return 104, 0
	case opOpen:
		clear(out[:16])
		native.PutUint32(out[8:], 2) // keep what is cached
		return 16, 0
	case opRead:
		return f.read(in, buf)
	case opWrite:
		return f.write(in, out)
	case opStatFS:
		clear(out[:80])
		native.PutUint32(out[40:], 4096)
		native.PutUint32(out[44:], 255)
		native.PutUint32(out[48:], 4096)
		return 80, 0
	case opRelease, opDestroy:
		return 0, 0
	case opFlush:
		return 0, 0 // nothing is held back: only fsync makes durable
	case opFsync:
		return 0, f.sync()
	case opFallocate:
		return 0, f.fallocate(in)
	}
	return 0, eNoSys
}

func (f *fuseFile) init(in, out []byte) (n, errno int) {
	if len(in) < 16 || native.Uint32(in) != fuseMajor {
		return 0, eProto
	}
	clear(out[:64])
	native.PutUint32(out, fuseMajor)
	native.PutUint32(out[4:], fuseMinor)
	native.PutUint32(out[8:], native.Uint32(in[8:])) // read-ahead
	native.PutUint32(out[12:], native.Uint32(in[12:])&(initAsyncRead|initBigWrites|initAsyncDIO|initMaxPages))
	native.PutUint16(out[16:], maxRequests)
	native.PutUint16(out[18:], maxRequests*3/4)
	write := uint32(4096)
	if f.writable != nil {
		write = maxIO
	}
	native.PutUint32(out[20:], write)
	native.PutUint32(out[24:], 1) // nanoseconds
	native.PutUint16(out[28:], uint16(maxIO/f.page))
	return 64, 0
}

func (f *fuseFile) attr(out []byte) {
	mode := uint32(fileModeRO)
	if f.writable != nil {
		mode = fileMode
	}
	native.PutUint64(out, 1)
	native.PutUint64(out[8:], uint64(f.disk.Size()))
	native.PutUint64(out[16:], uint64(f.disk.Size()/512))
	native.PutUint32(out[60:], mode)
	native.PutUint32(out[64:], 1)
	native.PutUint32(out[80:], 4096)
}

func (f *fuseFile) read(in []byte, buf *[]byte) (n, errno int) {
	if len(in) < 40 {
		return 0, eInval
	}
	off, want := native.Uint64(in[8:]), native.Uint32(in[16:])
	if size := uint64(f.disk.Size()); off >= size {
		return 0, 0
	} else if uint64(want) > size-off {
		want = uint32(size - off)
	}
	if want > maxIO {
		return 0, eInval
	}
	if need := fuseAnswer + int(want); len(*buf) < need {
		*buf = make([]byte, need)
	}
	if err := readFull(f.disk, (*buf)[fuseAnswer:fuseAnswer+int(want)], int64(off)); err != nil {
		return 0, f.failed("read", off, uint64(want), err)
	}
	return int(want), 0
}

func (f *fuseFile) write(in, out []byte) (n, errno int) {
	if len(in) < 40 {
		return 0, eInval
	}
	off, size, data := native.Uint64(in[8:]), native.Uint32(in[16:]), in[40:]
	switch {
	case f.writable == nil:
		return 0, eROFS
	case uint64(size) != uint64(len(data)) || !inside(f.disk, off, uint64(size)):
		return 0, eInval
	}
	if _, err := f.writable.WriteAt(data, int64(off)); err != nil {
		return 0, f.failed("write", off, uint64(size), err)
	}
	clear(out[:8])
	native.PutUint32(out, size)
	return 8, 0
}

func (f *fuseFile) sync() int {
	if f.writable == nil {
		return 0
	}
	if err := f.writable.Sync(); err != nil {
		return f.failed("sync", 0, 0, err)
	}
	return 0
}

// fallocate is how a loop device discards and zeroes.
func (f *fuseFile) fallocate(in []byte) int {
	if len(in) < 32 {
		return eInval
	}
	off, n, mode := native.Uint64(in[8:]), native.Uint64(in[16:]), native.Uint32(in[24:])
	switch {
	case f.writable == nil:
		return eROFS
	case !inside(f.disk, off, n):
		return eInval
	case mode&^fallocKeepSize != fallocPunchHole && mode&^fallocKeepSize != fallocZeroRange:
		return eNotSupp
	}
	if err := f.writable.Zero(int64(off), int64(n)); err != nil {
		return f.failed("zero", off, n, err)
	}
	return 0
}

func (f *fuseFile) failed(what string, off, n uint64, err error) int {
	f.log.Error("a request of the block device failed", "what", what, "offset", off, "bytes", n, "error", err)
	return eIO
}
