package session

import (
	"crypto/sha256"
	"hash"
	"io"
	"math"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
)

// sink is one output: counted, digested, limited, perhaps filtered. The accelerator's committer writes to it.
type sink struct {
	s      *Session
	queued *accel.Sink // in front of it: keeps the order of jobs and writes
	out    Sink
	sum    hash.Hash // nil if out has its own
	summer Summer
	size   int64
	filter io.WriteCloser // nil: none
	raw    hash.Hash
	rawLen int64
	done   bool
	closed bool
}

// OpenSink implements abi.Host.
func (s *Session) OpenSink(index int, filter abi.SinkFilter, level int) (abi.Handle, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	switch {
	case s.cfg.OpenSink == nil || index < 0:
		return 0, s.fail(abi.Errorf(abi.ErrDenied, "output %d was not granted", index))
	case index >= s.cfg.Limits.Sinks:
		return 0, s.fail(abi.Errorf(abi.ErrLimit, "output %d: an operation may have %d", index, s.cfg.Limits.Sinks))
	case s.sinks[index] != nil:
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "output %d was opened twice", index))
	}
	if err := checkFilter(filter, level); err != nil {
		return 0, s.fail(err)
	}
	out, err := s.cfg.OpenSink(index)
	if err != nil {
		return 0, s.fail(err)
	}
	k := &sink{s: s, out: out}
	if k.summer, _ = out.(Summer); k.summer == nil {
		k.sum = sha256.New()
	}
	k.queued = s.queue.NewSink(k)
	s.sinks[index] = k
	if err := k.setFilter(filter, level); err != nil {
		return 0, s.fail(err)
	}
	return s.newHandle(k)
}

// checkFilter refuses what setFilter cannot do, before the output exists.
func checkFilter(filter abi.SinkFilter, level int) error {
	top := map[abi.SinkFilter]int{abi.FilterNone: math.MaxInt, abi.FilterGzip: flate.BestCompression, abi.FilterZstd: 22}
	switch most, ok := top[filter]; {
	case !ok:
		return abi.Errorf(abi.ErrUnsupported, "sink filter %d is unknown", filter)
	case level < 0 || level > most:
		return abi.Errorf(abi.ErrUnsupported, "level %d of sink filter %d, want 0 to %d", level, filter, most)
	}
	return nil
}

func (k *sink) setFilter(filter abi.SinkFilter, level int) (err error) {
	switch filter {
	case abi.FilterNone:
		return nil
	case abi.FilterGzip:
		if level == 0 {
			level = flate.DefaultCompression
		}
		k.filter, err = newGzip((*stored)(k), level, k.s.cfg.Pool.Stats().Workers)
	case abi.FilterZstd:
		if level == 0 {
			level = 3
		}
		k.filter, err = zstd.NewWriter((*stored)(k), zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
			zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	}
	if err != nil {
		return abi.Errorf(abi.ErrInternal, "sink filter level %d: %w", level, err)
	}
	k.raw = sha256.New()
	return nil
}

// Write takes what the plugin or a plan appends, before the filter.
func (k *sink) Write(p []byte) (int, error) {
	if k.filter == nil {
		return (*stored)(k).Write(p)
	}
	k.raw.Write(p)
	k.rawLen += int64(len(p))
	return k.filter.Write(p)
}

// stored is a sink behind its filter.
type stored sink

func (k *stored) Write(p []byte) (int, error) {
	if err := k.s.allow(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := k.out.Write(p)
	if k.sum != nil {
		k.sum.Write(p[:n])
	}
	k.size += int64(n)
	return n, err
}

// finish closes the output and returns its totals.
func (k *sink) finish() (info abi.StreamInfo, err error) {
	if k.filter != nil {
		if err := k.filter.Close(); err != nil {
			return info, err
		}
	}
	info = k.totals()
	k.closed = true
	if err := k.out.Close(info); err != nil {
		k.out.Abort()
		return info, err
	}
	k.done = true
	return info, nil
}

// totals says what was written so far. The queue must have been flushed.
func (k *sink) totals() (info abi.StreamInfo) {
	info.Size, info.RawSize = k.size, k.size
	if k.sum != nil {
		k.sum.Sum(info.SHA256[:0])
	} else {
		info.SHA256 = k.summer.Sum()
	}
	info.RawSHA256 = info.SHA256
	if k.raw != nil {
		info.RawSize = k.rawLen
		k.raw.Sum(info.RawSHA256[:0])
	}
	return info
}

func (k *sink) abort() {
	if z, ok := k.filter.(*gzipWriter); ok {
		z.abandon()
	}
	if !k.closed {
		k.closed = true
		k.out.Abort()
	}
}
