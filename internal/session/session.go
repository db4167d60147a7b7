// Package session gives one plugin operation its view of the outside: it implements [abi.Host] over the streams that
// were granted to the operation, with the limits that hold for it.
//
// There is one Session for one operation, whatever runs the plugin. In process the plugin calls it directly; the wasm
// runtime calls it from its host functions; a native plugin has one in its own process, over descriptors that the
// host passed. So the three runtimes cannot differ in what they do with bytes.
//
// A Session is used from one goroutine. Finish ends it and tells whether the plugin kept its side of the contract.
package session

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/inflate"
)

// Config grants streams and allowances to one operation. Whatever is nil is not granted.
type Config struct {
	Pool    *accel.Pool
	Layer   *Layer // the source layer
	Input   abi.Role
	Parts   []Part
	Parents []Part
	Dicts   []Part
	// OpenSink makes output number index. It is called at most once an index. The session closes what it returns:
	// Close with the totals after the last byte, or Abort.
	OpenSink func(index int) (Sink, error)
	Limits   Limits
	Batch    int // bytes of records after which Entries returns; 0: 64 KiB. Plugins must not depend on it
	Log      *slog.Logger
	// Attach is set for the operation of that name: ReadAt may be called from several goroutines, and its errors end the
	// read and not the operation. Ready gets the plugin's answer when the image is attached.
	Attach bool
	Ready  func(*abi.AttachResponse) error
	// Progress is called with the plugin's own report; Read with the stored bytes of the layer that were read.
	Progress func(done, total int64)
	Read     func(n int)
}

// Layer is a source layer at rest or in flight.
type Layer struct {
	Open      func(ctx context.Context) (io.ReadCloser, error) // the stored bytes; called once
	At        io.ReaderAt                                      // the stored bytes with random access, or nil
	MediaType string
	Digest    string // of the stored bytes, checked at their end; "" unknown
	Size      int64  // of the stored bytes, checked; -1 unknown
	DiffID    string // of the tar, checked at its end; "" unknown
}

// Part is an input with random access.
type Part struct {
	At   io.ReaderAt
	Size int64
}

// Sink takes an output.
type Sink interface {
	io.Writer
	// Close completes the output; info is what was written.
	Close(info abi.StreamInfo) error
	// Abort drops it. It may follow a failed Close.
	Abort()
}

// Summer is a Sink that digests what it takes anyway. Its Sum is used then instead of a second one.
type Summer interface {
	// Sum returns the SHA-256 of everything that was written so far.
	Sum() [32]byte
}

// Limits are the allowances of one operation. Zero values mean the defaults of DefaultLimits.
type Limits struct {
	Layer   layer.Limits   // of the tar
	Inflate inflate.Limits // of its decompression
	// Output is allowed up to OutputBase + OutputFactor × bytes of input that the operation has read. Of the layer the
	// larger form counts, stored or tar; of another input, what is read again does not count again.
	OutputBase   int64
	OutputFactor int64
	Sinks        int // outputs of one operation
}

// DefaultLimits returns the limits that hold when nothing else is said: an operation may write 64 MiB, and 3 bytes for
// each byte that it reads; 64 outputs.
func DefaultLimits() Limits {
	return Limits{OutputBase: 64 << 20, OutputFactor: 3, Sinks: 64}
}

// Session implements abi.Host.
type Session struct {
	ctx     context.Context
	cfg     Config
	queue   *accel.Queue
	mu      sync.Mutex         // of handles, err and what parts count, for Attach
	handles map[abi.Handle]any // the open ones
	last    abi.Handle         // numbers are not used again: a closed handle stays wrong
	sinks   map[int]*sink
	parts   map[*Part]*part
	layer   *layerStream
	stored  atomic.Int64 // bytes of the layer as stored that were read,
	raw     atomic.Int64 // and bytes of its tar that reached the plugin or a plan
	random  atomic.Int64 // bytes of random-access inputs that were read
	written atomic.Int64
	logged  int
	err     error // first error that ends the operation
}

var _ abi.Host = (*Session)(nil)

// New starts a session. The caller must call Finish or Abort.
func New(ctx context.Context, cfg Config) *Session {
	def := DefaultLimits()
	if cfg.Limits.OutputBase == 0 {
		cfg.Limits.OutputBase = def.OutputBase
	}
	if cfg.Limits.OutputFactor == 0 {
		cfg.Limits.OutputFactor = def.OutputFactor
	}
	if cfg.Limits.Sinks == 0 {
		cfg.Limits.Sinks = def.Sinks
	}
	if cfg.Batch <= 0 {
		cfg.Batch = batchBytes
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Session{ctx: ctx, cfg: cfg, queue: cfg.Pool.NewQueue(ctx, accel.Limits{}),
		handles: map[abi.Handle]any{}, sinks: map[int]*sink{}, parts: map[*Part]*part{}}
}

// Err returns the first error that a method returned to the plugin and that ends the operation, or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Finish ends a successful operation: it reads the layer to its end so that its digests are checked, and fails if
// an output was left open. On an error everything is aborted.
func (s *Session) Finish() error {
	err := s.Err()
	if err == nil {
		err = s.drain()
	}
	if err == nil {
		for _, i := range slices.Sorted(maps.Keys(s.sinks)) {
			if !s.sinks[i].done {
				err = abi.Errorf(abi.ErrPlugin, "plugin left output %d open", i)
				break
			}
		}
	}
	if err != nil {
		s.Abort()
		return err
	}
	return s.close()
}

// Abort ends the operation and drops its outputs. It may be called at any time, also after Finish.
func (s *Session) Abort() {
	_ = s.close()
	for _, k := range s.sinks {
		k.abort()
	}
}

func (s *Session) close() error {
	err := s.queue.Close()
	if s.layer != nil {
		s.layer.close()
	}
	return err
}

// fail remembers the first error that ends the operation. After those of the two classes that say "not here" a plugin
// may go on another way.
func (s *Session) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		if c := abi.ClassOf(err); c != abi.ErrUnsupported && c != abi.ErrNotFound {
			s.err = err
		}
	}
	return err
}

// enter is the start of every method: it answers cancellation and sticky errors.
func (s *Session) enter() error {
	if err := s.Err(); err != nil {
		return err
	}
	if err := s.ctx.Err(); err != nil {
		return s.fail(abi.Errorf(abi.ClassOf(err), "%v", context.Cause(s.ctx))) // a cause may have a class of its own
	}
	return nil
}

func (s *Session) newHandle(v any) (abi.Handle, error) {
	s.mu.Lock()
	full := len(s.handles) >= abi.MaxHandles || s.last == math.MaxInt32
	if !full {
		s.last++
		s.handles[s.last] = v
	}
	h := s.last
	s.mu.Unlock()
	if full {
		return 0, s.fail(abi.Errorf(abi.ErrLimit, "plugin has more than %d handles open", abi.MaxHandles))
	}
	return h, nil
}

func (s *Session) forget(h abi.Handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.handles, h)
}

// handle returns what h names, nil if nothing.
func (s *Session) handle(h abi.Handle) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handles[h]
}

// lookup returns the object of type T behind h; a foreign handle is a fault of the plugin.
func lookup[T any](s *Session, h abi.Handle, what string) (T, error) {
	var zero T
	if v, ok := s.handle(h).(T); ok {
		return v, nil
	}
	return zero, s.fail(abi.Errorf(abi.ErrPlugin, "handle %d is not an open %s of this operation", h, what))
}

func slogLevel(level int) slog.Level {
	return slog.Level(max(min(level, abi.LogError), abi.LogDebug))
}
