package inflate

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
	"github.com/opencontainers/go-digest"
)

// Limits bound what decompression may produce and need. A field that is 0 means its default.
type Limits struct {
	Raw        int64  // decompressed bytes; default 1 TiB
	Ratio      int64  // decompressed by stored bytes; default 1100, a little more than gzip can reach
	RatioFloor int64  // decompressed bytes up to which the ratio does not matter; default 1 GiB
	Window     uint64 // zstd window; default 128 MiB
}

// Options are the promises about a layer and the limits. The zero value promises nothing.
type Options struct {
	MediaType    string        // of the descriptor; "" says nothing about compression
	StoredDigest digest.Digest // "" if unknown
	StoredSize   int64         // used when StoredDigest is not ""
	DiffID       digest.Digest // of the tar; "" if unknown
	Limits       Limits

	// OnMember and OnBlock are told of the members and blocks of a gzip layer, for indexes of it; see [zran.Options]. They
	// are called from the goroutine that decompresses, ahead of Read, and no more when Read has returned an error.
	OnMember func(zran.Member) error
	OnBlock  func(*zran.Block) error

	Buffers     int // decompressed ahead; default 4, at least 2
	BufferBytes int // default 256 KiB
}

func (o Options) withDefaults() Options {
	def := func(p *int64, v int64) {
		if *p <= 0 {
			*p = v
		}
	}
	def(&o.Limits.Raw, 1<<40)
	def(&o.Limits.Ratio, 1100)
	def(&o.Limits.RatioFloor, 1<<30)
	if o.Limits.Window == 0 {
		o.Limits.Window = 128 << 20
	}
	if o.Buffers == 0 {
		o.Buffers = 4
	}
	o.Buffers = max(o.Buffers, 2)
	if o.BufferBytes <= 0 {
		o.BufferBytes = 256 << 10
	}
	return o
}

// Result is what went through a Stream.
type Result struct {
	Codec        Codec
	StoredSize   int64
	StoredSHA256 [32]byte
	RawSize      int64
	RawSHA256    [32]byte
}

// Stream is the decompressed layer. Read, WriteTo and Close are called from one goroutine.
type Stream struct {
	opt     Options
	codec   Codec
	warning string
	in      *input
	raw     *Verifier
	dec     io.Reader

	ctx    context.Context
	cancel context.CancelFunc
	free   chan []byte
	full   chan []byte // closed by the producer after it set perr
	perr   error       // why the producer ended; io.EOF after all checks
	cur    []byte      // the buffer in use, to be recycled
	rest   []byte      // of it
	err    error       // sticky for the consumer
}

// Open looks at the first bytes of stored and starts to decompress. The caller keeps stored and closes it after the
// Stream. Close waits for a read of stored that is under way: stored should end its reads when ctx ends.
func Open(ctx context.Context, stored io.Reader, opt Options) (*Stream, error) {
	opt = opt.withDefaults()
	size := int64(-1)
	if opt.StoredDigest != "" {
		size = opt.StoredSize
	}
	v, err := NewVerifier(stored, "stored layer", opt.StoredDigest, size)
	if err != nil {
		return nil, err
	}
	s := &Stream{opt: opt, in: &input{Reader: bufio.NewReaderSize(v, 64<<10), v: v}}
	if err := s.sniff(); err != nil {
		return nil, err
	}
	if s.raw, err = NewVerifier(s.dec, "layer tar", opt.DiffID, -1); err != nil {
		return nil, err
	}
	if s.codec == Plain {
		s.raw.below = s.in.v
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.free, s.full = make(chan []byte, opt.Buffers), make(chan []byte, opt.Buffers)
	for range opt.Buffers {
		s.free <- nil
	}
	go s.produce()
	return s, nil
}

// sniff chooses the decoder.
func (s *Stream) sniff() error {
	head, err := s.in.Peek(SniffBytes)
	if err != nil && err != io.EOF {
		return err
	}
	s.codec = Sniff(head)
	promised, known := Promised(s.opt.MediaType)
	if known && promised != s.codec {
		if err == io.EOF && cutMagic(head, promised) {
			return s.in.truncated(promised.String(), "header", "a compressed layer, as its media type says")
		}
		s.warning = fmt.Sprintf("media type %s promises compression %s, the bytes have %s", s.opt.MediaType, promised, s.codec)
	}
	switch s.codec {
	case Gzip:
		s.dec = s.in.gunzip(s.opt)
	case Zstd:
		s.dec, err = newZstd(s.in, s.opt.Limits.Window)
		return err
	default:
		s.dec = s.in
	}
	return nil
}

// Codec returns how the bytes are compressed in truth.
func (s *Stream) Codec() Codec { return s.codec }

// Warning returns a sentence if the media type promised another compression, else "".
func (s *Stream) Warning() string { return s.warning }

// Result returns sizes and digests. ok is false before Read has returned io.EOF.
func (s *Stream) Result() (r Result, ok bool) {
	if s.err != io.EOF {
		return Result{}, false
	}
	return Result{Codec: s.codec, StoredSize: s.in.v.n, StoredSHA256: s.in.v.SHA256(), RawSize: s.raw.n, RawSHA256: s.raw.SHA256()}, true
}

// produce runs in its own goroutine. It owns dec, raw and in until full is closed.
func (s *Stream) produce() {
	defer close(s.full)
	defer func() {
		if p := recover(); p != nil {
			s.perr = abi.Errorf(abi.ErrInternal, "decompress %s at 0x%x: panic: %v\n%s", s.codec, s.in.pos(), p, debug.Stack())
		}
		if c, ok := s.dec.(io.Closer); ok {
			c.Close()
		}
	}()
	for s.perr == nil {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.ctx.Done():
			s.perr = s.ctxError()
			return
		}
		if buf == nil {
			buf = make([]byte, s.opt.BufferBytes)
		}
		var n int
		n, s.perr = s.fill(buf[:s.opt.BufferBytes])
		if n > 0 {
			s.full <- buf[:n] // never blocks: there are only as many buffers as it holds
		}
	}
}

// fill reads until buf is full; bytes beyond a limit are not handed out.
func (s *Stream) fill(buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		if s.ctx.Err() != nil {
			return n, s.ctxError()
		}
		var k int
		k, err = s.raw.Read(buf[n:])
		n += k
		if e := s.checkLimits(); e != nil {
			return 0, e
		}
	}
	return n, err
}

func (s *Stream) checkLimits() error {
	raw, stored, lim := s.raw.n, s.in.pos(), &s.opt.Limits
	got, want, name := "", "", ""
	switch {
	case raw > lim.Raw:
		got, want, name = fmt.Sprintf("%d bytes", raw), fmt.Sprintf("at most %d", lim.Raw), abi.LimitLayerBytes
	case raw > lim.RatioFloor && raw/lim.Ratio > stored:
		got, want, name = fmt.Sprintf("%d bytes from %d", raw, stored), fmt.Sprintf("at most %d times as many", lim.Ratio), abi.LimitLayerRatio
	default:
		return nil
	}
	return abi.WithLimit(&abi.FormatError{Class: abi.ErrLimit, Format: s.codec.String(), Off: stored, Field: "decompressed size", Got: got, Want: want}, name)
}

func (s *Stream) ctxError() error {
	err := context.Cause(s.ctx)
	c := abi.ClassOf(err)
	if c == abi.ErrInternal {
		c = abi.ErrCanceled
	}
	return abi.Errorf(c, "decompress layer: %w", err)
}

// next makes the following buffer current.
func (s *Stream) next() error {
	if s.err != nil {
		return s.err
	}
	if s.cur != nil {
		s.free <- s.cur[:cap(s.cur)]
		s.cur = nil
	}
	select {
	case b, ok := <-s.full:
		if !ok {
			s.err = s.perr
			return s.err
		}
		s.cur, s.rest = b, b
		return nil
	case <-s.ctx.Done():
		s.err = s.ctxError()
		return s.err
	}
}

// Read reads decompressed bytes; io.EOF when all of them were read and every promise held.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if len(p) == 0 && s.err == nil {
			return 0, nil
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// WriteTo writes all that is left to w without copying. It returns nil where Read returns io.EOF.
func (s *Stream) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(s.rest) == 0 {
			if err := s.next(); err == io.EOF {
				return n, nil
			} else if err != nil {
				return n, err
			}
		}
		k, err := w.Write(s.rest)
		n += int64(k)
		if err != nil {
			return n, err
		}
		if k < len(s.rest) {
			return n, abi.Errorf(abi.ErrIO, "decompressed layer: %w", io.ErrShortWrite)
		}
		s.rest = nil
	}
}

// Close stops decompression and waits for its goroutine. Result stays valid if the end was reached. It never fails and may be
// called twice.
func (s *Stream) Close() error {
	s.cancel()
	for range s.full { // until the producer has closed it
	}
	if s.err == nil {
		s.err = abi.Errorf(abi.ErrInvalid, "decompressed layer: read after Close")
	}
	s.rest = nil
	return nil
}
