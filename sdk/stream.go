package sdk

import (
	"io"
	"iter"

	"github.com/convhost/convhost/abi"
)

// Sink is an output of an operation.
type Sink struct {
	Handle abi.Handle
	host   abi.Host
}

// OpenSink opens output number index.
func OpenSink(h abi.Host, index int) (*Sink, error) {
	return OpenFilteredSink(h, index, abi.FilterNone, 0)
}

// OpenFilteredSink opens output number index; what is written passes through a filter of the host.
func OpenFilteredSink(h abi.Host, index int, f abi.SinkFilter, level int) (*Sink, error) {
	handle, err := h.OpenSink(index, f, level)
	return &Sink{Handle: handle, host: h}, err
}

// Write implements io.Writer. Jobs submitted before come before p.
func (s *Sink) Write(p []byte) (int, error) {
	if err := s.host.Write(s.Handle, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Info says what was written so far, jobs included.
func (s *Sink) Info() (abi.StreamInfo, error) { return s.host.Info(s.Handle) }

// Close completes the output and says what was written.
func (s *Sink) Close() (abi.StreamInfo, error) { return s.host.Close(s.Handle) }

// Blob is an input with random access.
type Blob struct {
	Handle abi.Handle
	host   abi.Host
	size   int64
}

// OpenBlob opens part, parent or dictionary number index.
func OpenBlob(h abi.Host, role abi.Role, index int) (*Blob, error) {
	handle, err := h.Open(role, index)
	if err != nil {
		return nil, err
	}
	size, err := h.Size(handle)
	return &Blob{Handle: handle, host: h, size: size}, err
}

// Size returns the blob's size in bytes.
func (b *Blob) Size() int64 { return b.size }

// ReadAt implements io.ReaderAt.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.host.ReadAt(b.Handle, p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Close ends the use of the blob.
func (b *Blob) Close() error {
	_, err := b.host.Close(b.Handle)
	return err
}

// Stream is a sequential input.
type Stream struct {
	Handle abi.Handle
	host   abi.Host
}

// OpenStream opens the layer as a stream.
func OpenStream(h abi.Host, role abi.Role) (*Stream, error) {
	handle, err := h.Open(role, 0)
	return &Stream{Handle: handle, host: h}, err
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.host.Read(s.Handle, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// Close ends the stream.
func (s *Stream) Close() (abi.StreamInfo, error) { return s.host.Close(s.Handle) }

// Entries iterates over a stream opened with abi.RoleLayerEntries. With a plan, the bodies of regular files become
// jobs tagged with Entry.Seq; with plan 0 the loop body may read or submit the body of the entry it holds. The
// entry is valid until the next iteration; its strings stay, and each of them keeps those that came with it. between, if given, is called when all entries that the host has handed over were
// iterated, before it is asked for more: the place to take completions, which then belong to entries already seen.
func Entries(h abi.Host, stream, plan abi.Handle, between ...func() error) iter.Seq2[*abi.Entry, error] {
	return func(yield func(*abi.Entry, error) bool) {
		buf := make([]byte, abi.MaxEntryRecord)
		var e abi.Entry
		for {
			n, err := h.Entries(stream, buf, plan)
			if err != nil {
				yield(nil, err)
				return
			}
			if n == 0 {
				return
			}
			text := string(buf[:n]) // one copy for the strings of all of them
			for rest := buf[:n]; len(rest) > 0; {
				if rest, err = e.DecodeText(rest, text[n-len(rest):]); err != nil {
					yield(nil, err)
					return
				}
				if !yield(&e, nil) {
					return
				}
			}
			for _, fn := range between {
				if err := fn(); err != nil {
					yield(nil, err)
					return
				}
			}
		}
	}
}

// Completions calls fn for the results that are ready, in submission order; with wait, for all outstanding ones. The
// completion is valid during the call. buf is scratch of any size from abi.CompletionSize.
func Completions(h abi.Host, buf []byte, wait bool, fn func(*abi.Completion) error) error {
	min := 0
	if wait {
		min = 1
	}
	var c abi.Completion
	for {
		n, err := h.Collect(buf, min)
		if err != nil || n == 0 {
			return err
		}
		for b := buf[:n]; len(b) >= abi.CompletionSize; b = b[abi.CompletionSize:] {
			c.Decode(b)
			if err := fn(&c); err != nil {
				return err
			}
		}
	}
}
