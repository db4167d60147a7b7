package blockdev

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
)

// kernel plays the kernel's part with a fuseFile.
type kernel struct {
	t *testing.T
	f *fuseFile
}

// ask sends a request and returns the error number and body of the answer; -1 if there is none.
func (k kernel) ask(op uint32, body ...byte) (errno int, answer []byte) {
	k.t.Helper()
	req := make([]byte, fuseRequest, fuseRequest+len(body))
	native.PutUint32(req, uint32(fuseRequest+len(body)))
	native.PutUint32(req[4:], op)
	native.PutUint64(req[8:], 0xfeed)
	errno = -1
	err := k.f.request(append(req, body...), func(b []byte) error {
		if len(b) < fuseAnswer || int(native.Uint32(b)) != len(b) || native.Uint64(b[8:]) != 0xfeed {
			k.t.Errorf("operation %d: answer % x", op, b[:min(len(b), 32)])
		}
		errno, answer = -int(int32(native.Uint32(b[4:]))), bytes.Clone(b[fuseAnswer:])
		return nil
	})
	if err != nil {
		k.t.Error(err)
	}
	return errno, answer
}

// io is the body of a read or write.
func ioBody(off uint64, n uint32, data ...byte) []byte {
	b := make([]byte, 40)
	native.PutUint64(b[8:], off)
	native.PutUint32(b[16:], n)
	return append(b, data...)
}

func fallocBody(off, n uint64, mode uint32) []byte {
	b := make([]byte, 32)
	native.PutUint64(b[8:], off)
	native.PutUint64(b[16:], n)
	native.PutUint32(b[24:], mode)
	return b
}

func newKernel(t *testing.T, d Disk) kernel {
	return kernel{t, newFuseFile(d, slog.New(slog.DiscardHandler), 4096)}
}

func TestFuseReads(t *testing.T) {
	m := &memory{b: bytes.Repeat([]byte("0123456789abcdef"), 4096)}
	k := newKernel(t, ReadOnly(m))
	if errno, a := k.ask(opInit, 7, 0, 0, 0, 31, 0, 0, 0, 0, 0, 2, 0, 0xff, 0xff, 0xff, 0xff); errno != 0 || len(a) != 64 || native.Uint32(a) != 7 || native.Uint16(a[28:]) != 256 {
		t.Errorf("init: %d, % x", errno, a)
	}
	if errno, a := k.ask(opGetAttr); errno != 0 || len(a) != 104 || native.Uint64(a[24:]) != 65536 || native.Uint32(a[76:]) != fileModeRO {
		t.Errorf("attributes: %d, % x", errno, a)
	}
	for _, c := range []struct {
		off  uint64
		n    uint32
		want string
	}{{0, 4, "0123"}, {65535, 4, "f"}, {65536, 4, ""}, {1 << 62, 4, ""}, {17, 3, "123"}} {
		if errno, a := k.ask(opRead, ioBody(c.off, c.n)...); errno != 0 || string(a) != c.want {
			t.Errorf("read %d at %d: %d, %q", c.n, c.off, errno, a)
		}
	}
	for _, c := range []struct {
		name  string
		errno int
		op    uint32
		body  []byte
	}{
		{"write", eROFS, opWrite, ioBody(0, 1, 7)}, {"zero", eROFS, opFallocate, fallocBody(0, 512, 3)}, {"sync", 0, opFsync, make([]byte, 16)},
		{"flush", 0, opFlush, make([]byte, 24)}, {"forget", -1, opForget, make([]byte, 8)}, {"unknown", eNoSys, 1, []byte("name\x00")},
		{"short read", eInval, opRead, make([]byte, 39)}, {"short init", eProto, opInit, []byte{7}}, {"other protocol", eProto, opInit, append([]byte{8}, make([]byte, 15)...)},
		{"open", 0, opOpen, make([]byte, 8)}, {"statfs", 0, opStatFS, nil}, {"release", 0, opRelease, make([]byte, 24)},
	} {
		if errno, _ := k.ask(c.op, c.body...); errno != c.errno {
			t.Errorf("%s: errno %d, want %d", c.name, errno, c.errno)
		}
	}
	m.fail = errors.New("the network is down")
	if errno, a := k.ask(opRead, ioBody(0, 4)...); errno != eIO || len(a) != 0 {
		t.Errorf("a failing disk: %d, %q", errno, a)
	}
	m.fail = nil
	if errno, a := k.ask(opRead, ioBody(0, 4)...); errno != 0 || string(a) != "0123" {
		t.Errorf("afterwards: %d, %q", errno, a)
	}
}

func TestFuseWrites(t *testing.T) {
	m := &memory{b: bytes.Repeat([]byte{9}, 4096)}
	k := newKernel(t, m)
	if errno, a := k.ask(opWrite, ioBody(100, 3, 1, 2, 3)...); errno != 0 || native.Uint32(a) != 3 || !bytes.Equal(m.b[99:104], []byte{9, 1, 2, 3, 9}) {
		t.Errorf("write: %d, % x", errno, a)
	}
	if errno, _ := k.ask(opFallocate, fallocBody(101, 1, fallocPunchHole|fallocKeepSize)...); errno != 0 || m.b[101] != 0 {
		t.Errorf("hole: %d", errno)
	}
	if errno, _ := k.ask(opFsync, make([]byte, 16)...); errno != 0 || m.synced != 1 {
		t.Errorf("sync: %d", errno)
	}
	for name, c := range map[string]struct {
		errno int
		op    uint32
		body  []byte
	}{
		"behind the end":      {eInval, opWrite, ioBody(4095, 2, 1, 2)},
		"far behind":          {eInval, opWrite, ioBody(1<<63, 2, 1, 2)},
		"less than it says":   {eInval, opWrite, ioBody(0, 3, 1, 2)},
		"hole behind the end": {eInval, opFallocate, fallocBody(4096, 1, 3)},
		"overflowing hole":    {eInval, opFallocate, fallocBody(1, 1<<64-1, 3)},
		"allocation":          {eNotSupp, opFallocate, fallocBody(0, 1, 0)},
	} {
		if errno, _ := k.ask(c.op, c.body...); errno != c.errno {
			t.Errorf("%s: errno %d, want %d", name, errno, c.errno)
		}
	}
}

// FuzzFuse: whatever comes is answered at most once, with a whole answer, and changes nothing outside the disk.
func FuzzFuse(f *testing.F) {
	f.Add(uint32(opRead), ioBody(0, 100))
	f.Add(uint32(opWrite), ioBody(0, 1, 1))
	f.Add(uint32(opFallocate), fallocBody(0, 512, 3))
	f.Add(uint32(opInit), []byte{7, 0, 0, 0, 31, 0, 0, 0, 0, 0, 2, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, op uint32, body []byte) {
		m := &memory{b: make([]byte, 8192)}
		for _, d := range []Disk{m, ReadOnly(m)} {
			newKernel(t, d).ask(op, body...)
		}
		if len(m.b) != 8192 {
			t.Error("the disk grew")
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"half a sector": {Disk: &memory{b: make([]byte, 700)}, Label: "x"},
		"empty":         {Disk: &memory{}, Label: "x"},
		"no label":      {Disk: &memory{b: make([]byte, 512)}},
		"long label":    {Disk: &memory{b: make([]byte, 512)}, Label: string(make([]byte, 61))},
		"backend":       {Disk: &memory{b: make([]byte, 512)}, Label: "x", Backend: "scsi"},
	} {
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("%s: was opened", name)
		}
	}
}
