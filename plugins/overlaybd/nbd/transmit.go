package nbd

import (
	"errors"
	"io"
	"sync"

	"github.com/convhost/convhost/abi"
)

const defaultParallel = 16

// request is one request with the data of a write.
type request struct {
	flags, kind uint16
	cookie      uint64
	off         uint64
	n           uint32
	data        []byte
}

// transmission is a connection that serves requests.
type transmission struct {
	conn io.ReadWriter
	e    *Export
	mu   sync.Mutex // of writes to conn
	err  error      // first failed write
}

// Transmit serves requests of a connection that needs no negotiation, until the client disconnects (nil) or breaks off.
// It returns when all requests that were begun are answered.
func Transmit(conn io.ReadWriter, e Export) error {
	t := &transmission{conn: conn, e: &e}
	slots := make(chan struct{}, max(e.Parallel, 0))
	if e.Parallel <= 0 {
		slots = make(chan struct{}, defaultParallel)
	}
	var running sync.WaitGroup
	defer running.Wait()
	for {
		slots <- struct{}{} // before the data of a write is read
		r, err := t.next()
		if err == io.EOF || err == nil && r.kind == cmdDisconnect {
			return t.failure()
		} else if err != nil {
			return err
		}
		running.Go(func() {
			defer func() { <-slots }()
			t.answer(r)
		})
	}
}

func (t *transmission) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// next reads a request.
func (t *transmission) next() (*request, error) {
	var h [requestSize]byte
	if err := read(t.conn, h[:], "a request"); err != nil {
		return nil, err
	}
	if m := be.Uint32(h[:]); m != magicRequest {
		return nil, corrupt("request has magic %#x", m)
	}
	r := &request{flags: be.Uint16(h[4:]), kind: be.Uint16(h[6:]), cookie: be.Uint64(h[8:]), off: be.Uint64(h[16:]), n: be.Uint32(h[24:])}
	if r.kind != cmdWrite {
		return r, nil
	}
	if r.n > maxData {
		return nil, abi.Errorf(abi.ErrLimit, "nbd: write of %d bytes, at most %d are taken", r.n, maxData)
	}
	if t.e.writable() == nil || !t.inside(r) { // will be refused: do not hold it
		if _, err := io.CopyN(io.Discard, t.conn, int64(r.n)); err != nil {
			return nil, abi.Errorf(abi.ErrTruncated, "nbd: connection ends in the data of a write")
		}
		return r, nil
	}
	r.data = make([]byte, r.n)
	return r, must(t.conn, r.data, "the data of a write")
}

func (t *transmission) inside(r *request) bool {
	size := uint64(t.e.Disk.Size())
	return r.off <= size && uint64(r.n) <= size-r.off
}

// answer carries out a request and replies.
func (t *transmission) answer(r *request) {
	reply := make([]byte, replySize)
	errno := uint32(0)
	if r.kind == cmdRead {
		reply, errno = t.readData(r, reply)
	} else {
		errno = t.change(r)
	}
	be.PutUint32(reply, magicReply)
	be.PutUint32(reply[4:], errno)
	be.PutUint64(reply[8:], r.cookie)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = send(t.conn, reply)
	}
}

func (t *transmission) readData(r *request, reply []byte) ([]byte, uint32) {
	if !t.inside(r) || r.n > maxData {
		return reply, errInval
	}
	b := make([]byte, replySize+int(r.n))
	n, err := t.e.Disk.ReadAt(b[replySize:], int64(r.off))
	if n < int(r.n) {
		if err == nil || errors.Is(err, io.EOF) {
			err = abi.Errorf(abi.ErrTruncated, "disk ends at %d", int64(r.off)+int64(n))
		}
		return reply, t.failed("read", r, err)
	}
	return b, 0
}

// change carries out what gives no data.
func (t *transmission) change(r *request) uint32 {
	w := t.e.writable()
	var err error
	switch {
	case r.kind == cmdFlush && w == nil:
		return 0
	case r.kind == cmdFlush:
		if err = w.Sync(); err != nil {
			return t.failed("flush", r, err)
		}
		return 0
	case r.kind != cmdWrite && r.kind != cmdTrim && r.kind != cmdZero:
		return errNotSup
	case w == nil:
		return errPerm
	case !t.inside(r) && r.kind == cmdWrite:
		return errNoSpc
	case !t.inside(r):
		return errInval
	case r.kind == cmdWrite:
		_, err = w.WriteAt(r.data, int64(r.off))
	default:
		err = w.Zero(int64(r.off), int64(r.n))
	}
	if err == nil && r.flags&cmdFUA != 0 {
		err = w.Sync()
	}
	if err != nil {
		return t.failed("write", r, err)
	}
	return 0
}

func (t *transmission) failed(what string, r *request, err error) uint32 {
	t.e.log().Error("a request of the block device failed", "what", what, "offset", r.off, "bytes", r.n, "error", err)
	return errIO
}
