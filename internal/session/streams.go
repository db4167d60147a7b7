package session

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/inflate"
)

// layerStream is the source layer as one of its three forms.
type layerStream struct {
	s       *Session
	role    abi.Role
	file    io.ReadCloser     // stored bytes
	stored  *inflate.Verifier // the stored bytes, for RoleLayerStored
	at      *part             // the same with random access, or nil
	raw     *inflate.Stream   // the tar, for the other two
	tar     *layer.Reader     // for RoleLayerEntries
	entry   abi.Entry         // the last one
	left    int64             // of its body
	pending bool              // entry did not fit into the buffer: the plugin does not know it, nor its body, yet
	ended   bool              // everything was read and every promise held
	broken  error             // why it cannot be read on
}

// Open implements abi.Host.
func (s *Session) Open(role abi.Role, index int) (abi.Handle, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	var parts []Part
	switch role {
	case abi.RolePart:
		parts = s.cfg.Parts
	case abi.RoleParent:
		parts = s.cfg.Parents
	case abi.RoleDict:
		parts = s.cfg.Dicts
	case abi.RoleLayerStored, abi.RoleLayerTar, abi.RoleLayerEntries:
		return s.openLayer(role, index)
	}
	if index < 0 || index >= len(parts) {
		return 0, s.fail(abi.Errorf(abi.ErrDenied, "%v %d was not granted", role, index))
	}
	return s.newHandle(s.part(&parts[index]))
}

func (s *Session) openLayer(role abi.Role, index int) (abi.Handle, error) {
	cfg := s.cfg.Layer
	switch {
	case cfg == nil || index != 0 || role != s.cfg.Input:
		return 0, s.fail(abi.Errorf(abi.ErrDenied, "%v %d was not granted", role, index))
	case s.layer != nil:
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "the layer was opened twice"))
	}
	l := &layerStream{s: s, role: role}
	if role == abi.RoleLayerStored && cfg.At != nil {
		l.at = s.part(&Part{At: cfg.At, Size: cfg.Size})
	}
	if err := l.open(s.ctx, cfg); err != nil {
		l.close()
		return 0, s.fail(err)
	}
	s.layer = l
	return s.newHandle(l)
}

func (l *layerStream) open(ctx context.Context, cfg *Layer) (err error) {
	if l.file, err = cfg.Open(ctx); err != nil {
		return err
	}
	counted := &counter{l.file, l.s}
	if l.role == abi.RoleLayerStored {
		l.stored, err = inflate.NewVerifier(counted, "stored layer", digest.Digest(cfg.Digest), cfg.Size)
		return err
	}
	l.raw, err = inflate.Open(ctx, counted, inflate.Options{
		MediaType: cfg.MediaType, StoredDigest: digest.Digest(cfg.Digest), StoredSize: cfg.Size,
		DiffID: digest.Digest(cfg.DiffID), Limits: l.s.cfg.Limits.Inflate,
	})
	if err != nil {
		return err
	}
	if w := l.raw.Warning(); w != "" {
		l.s.cfg.Log.Warn(w)
	}
	if l.role == abi.RoleLayerEntries {
		l.tar = layer.NewReader(l.raw, l.s.cfg.Limits.Layer)
	}
	return nil
}

// counter reports progress of the stored bytes. It is read by one goroutine.
type counter struct {
	r io.Reader
	s *Session
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	if err := c.s.ctx.Err(); err != nil {
		return 0, abi.Errorf(abi.ClassOf(err), "read layer: %v", context.Cause(c.s.ctx))
	}
	n, err := c.r.Read(p)
	c.s.stored.Add(int64(n))
	if c.s.cfg.Read != nil && n > 0 {
		c.s.cfg.Read(n)
	}
	return n, err
}

// Read takes the next bytes of the form: stored, tar, or the body of the current entry.
func (l *layerStream) Read(p []byte) (n int, err error) {
	switch {
	case l.tar != nil:
		if l.bodyLeft() == 0 {
			return 0, io.EOF
		}
		n, err = l.tar.Read(p[:min(int64(len(p)), l.left)])
		l.left -= int64(n)
		if err == io.EOF && l.left == 0 && n > 0 {
			err = nil
		}
	case l.raw != nil:
		n, err = l.raw.Read(p)
	default:
		n, err = l.stored.Read(p)
	}
	if l.raw != nil {
		l.s.raw.Add(int64(n))
	}
	if err == io.EOF && l.tar == nil {
		l.ended = true
	}
	if err != nil && err != io.EOF {
		l.broken = err
	}
	return n, err
}

// bodyLeft is what is left of the current entry's body, -1 for streams that are not of entries.
func (l *layerStream) bodyLeft() int64 {
	switch {
	case l.tar == nil:
		return -1
	case l.pending:
		return 0
	}
	return l.left
}

// drain reads to the end, so that the digests are checked.
func (s *Session) drain() error {
	l := s.layer
	if l == nil {
		if s.cfg.Layer != nil {
			return s.fail(abi.Errorf(abi.ErrPlugin, "plugin did not read the layer"))
		}
		return nil
	}
	if l.ended {
		return nil
	}
	var err error
	switch {
	case l.tar != nil:
		for e := (&abi.Entry{}); err == nil; err = l.tar.Next(e) {
		}
		if err == io.EOF {
			_, err = l.tar.Drain()
		}
	case l.raw != nil:
		_, err = io.Copy(io.Discard, l.raw)
	default:
		_, err = io.Copy(io.Discard, l.stored)
	}
	if err == nil || err == io.EOF {
		l.ended = true
		return nil
	}
	return s.fail(err)
}

func (l *layerStream) close() {
	if l.raw != nil {
		l.raw.Close()
	}
	if l.file != nil {
		l.file.Close()
	}
}

// batchBytes ends a batch of entries early, so that the plugin works while the host reads on.
const batchBytes = 64 << 10

// Entries implements abi.Host.
func (s *Session) Entries(h abi.Handle, buf []byte, ph abi.Handle) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	l, err := lookup[*layerStream](s, h, "stream of entries")
	if err != nil {
		return 0, err
	}
	if l.tar == nil {
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "handle %d is not a stream of entries", h))
	}
	var p *plan
	if ph != 0 {
		if p, err = lookup[*plan](s, ph, "plan"); err != nil {
			return 0, err
		}
	}
	out := buf[:0]
	for len(out) < s.cfg.Batch {
		if err := l.next(); err == io.EOF {
			break
		} else if err != nil {
			return 0, s.fail(err)
		}
		if n := l.entry.RecordSize(); n > len(buf)-len(out) {
			if len(out) == 0 {
				return 0, s.fail(abi.Errorf(abi.ErrLimit, "entry %q needs a record of %d bytes, the buffer has %d", l.entry.Path, n, len(buf)))
			}
			l.pending = true
			break
		}
		if err := l.submit(p); err != nil {
			return 0, s.fail(err)
		}
		out = l.entry.Append(out)
		if l.left > 0 {
			break // manual: the body comes first
		}
	}
	return len(out), nil
}

// next reads one entry into l.entry, unless that is one that did not fit.
func (l *layerStream) next() error {
	if l.pending {
		l.pending = false
		return nil
	}
	if l.ended {
		return io.EOF
	}
	if err := l.tar.Next(&l.entry); err == io.EOF {
		if _, err := l.tar.Drain(); err != nil {
			return err
		}
		l.ended, l.left = true, 0
		return io.EOF
	} else if err != nil {
		return err
	}
	l.left = l.entry.Size
	l.s.raw.Add(512)
	return nil
}

// submit sends the body of l.entry to the plan, in automatic mode.
func (l *layerStream) submit(p *plan) error {
	if p == nil || l.left == 0 {
		return nil
	}
	n, err := l.s.queue.Stream(p.p, l, l.left, l.entry.Seq)
	l.entry.Chunks = uint32(n)
	return l.because(err)
}

// because is what broke the stream, if something did, and not what the queue makes of it.
func (l *layerStream) because(err error) error {
	if err != nil && l.broken != nil {
		return l.broken
	}
	return err
}

// Read implements abi.Host.
func (s *Session) Read(h abi.Handle, p []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	l, err := lookup[*layerStream](s, h, "sequential stream")
	if err != nil || len(p) == 0 {
		return 0, err
	}
	for {
		n, err := l.Read(p)
		switch {
		case n > 0 || err == io.EOF:
			return n, nil
		case err != nil:
			return 0, s.fail(err)
		}
	}
}

// ReadAt implements abi.Host.
func (s *Session) ReadAt(h abi.Handle, p []byte, off int64) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	at, err := s.randomAccess(h)
	if err != nil {
		return 0, err
	}
	if off < 0 || off > at.Size {
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "read at %d of a stream of %d bytes", off, at.Size))
	}
	p = p[:min(int64(len(p)), at.Size-off)]
	n, err := at.At.ReadAt(p, off)
	at.read(int64(n))
	if n == len(p) {
		return n, nil
	}
	return n, s.fail(at.readError(err, off+int64(n)))
}

// randomAccess finds a stream with random access: a part, or the stored layer at rest.
func (s *Session) randomAccess(h abi.Handle) (*part, error) {
	if l, ok := s.handles[h].(*layerStream); ok {
		if l.at == nil {
			return nil, abi.Errorf(abi.ErrUnsupported, "the layer has no random access here")
		}
		return l.at, nil
	}
	return lookup[*part](s, h, "random-access stream")
}

// part is an input with random access, however often it was opened.
type part struct {
	*Part
	s       *Session
	counted int64
}

func (s *Session) part(p *Part) *part {
	if s.parts[p] == nil {
		s.parts[p] = &part{Part: p, s: s}
	}
	return s.parts[p]
}

// readError tells why a read ended at off.
func (p *part) readError(err error, off int64) error {
	var c abi.Class
	switch {
	case err == nil || err == io.EOF:
		return abi.Errorf(abi.ErrTruncated, "input ends at %d, want %d bytes", off, p.Size)
	case errors.As(err, &c):
		return err
	}
	return abi.Errorf(abi.ErrIO, "read input at %d: %w", off, err)
}

// read counts n bytes that were read, up to the size of the input: reading again earns no output. It tells whether
// anything counted.
func (p *part) read(n int64) bool {
	n = min(n, p.Size-p.counted)
	if n <= 0 {
		return false
	}
	p.counted += n
	p.s.random.Add(n)
	return true
}

// Size implements abi.Host.
func (s *Session) Size(h abi.Handle) (int64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	at, err := s.randomAccess(h)
	if err != nil {
		return 0, err
	}
	return at.Size, nil
}

// Write implements abi.Host.
func (s *Session) Write(h abi.Handle, p []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	k, err := lookup[*sink](s, h, "output")
	if err != nil {
		return err
	}
	return s.fail(s.queue.Write(k.queued, p))
}

// Copy implements abi.Host.
func (s *Session) Copy(dst, src abi.Handle, off, n int64) (int64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	k, err := lookup[*sink](s, dst, "output")
	if err != nil {
		return 0, err
	}
	r, err := s.copySource(src, off, n)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	var done int64
	for n < 0 || done < n {
		want := int64(len(buf))
		if n >= 0 {
			want = min(want, n-done)
		}
		got, err := r.Read(buf[:want])
		if got > 0 {
			if err := s.queue.Write(k.queued, buf[:got]); err != nil {
				return done, s.fail(err)
			}
			done += int64(got)
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return done, s.fail(err)
		}
	}
	return done, nil
}

func (s *Session) copySource(src abi.Handle, off, n int64) (io.Reader, error) {
	if off < 0 {
		return lookup[*layerStream](s, src, "sequential stream")
	}
	at, err := s.randomAccess(src)
	if err != nil {
		return nil, err
	}
	if off > at.Size || n > at.Size-off {
		return nil, s.fail(abi.Errorf(abi.ErrPlugin, "copy of %d bytes at %d from a stream of %d", n, off, at.Size))
	}
	return &partReader{at, off}, nil
}

// partReader reads a part from an offset to its end.
type partReader struct {
	at  *part
	off int64
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
	b = b[:min(int64(len(b)), p.at.Size-p.off)]
	if len(b) == 0 {
		return 0, io.EOF
	}
	n, err := p.at.At.ReadAt(b, p.off)
	p.at.read(int64(n))
	p.off += int64(n)
	if n == len(b) {
		return n, nil
	}
	return n, p.at.readError(err, p.off)
}

// Info implements abi.Host.
func (s *Session) Info(h abi.Handle) (info abi.StreamInfo, err error) {
	if err := s.enter(); err != nil {
		return info, err
	}
	k, err := lookup[*sink](s, h, "output")
	if err != nil {
		return info, err
	}
	if _, err := s.queue.Flush(k.queued); err != nil {
		return info, s.fail(err)
	}
	return k.totals(), nil
}

// Close implements abi.Host.
func (s *Session) Close(h abi.Handle) (info abi.StreamInfo, err error) {
	if err := s.enter(); err != nil {
		return info, err
	}
	switch v := s.handles[h].(type) {
	case *sink:
		if _, err := s.queue.Flush(v.queued); err != nil {
			return info, s.fail(err)
		}
		info, err = v.finish()
	case *layerStream:
		if err = s.drain(); err == nil {
			info = v.totals()
		}
	case *part:
		info.Size = v.Size
	default:
		_, err = lookup[*sink](s, h, "stream")
		return info, err
	}
	delete(s.handles, h)
	return info, s.fail(err)
}

// totals says what passed. The layer must have been read to its end.
func (l *layerStream) totals() abi.StreamInfo {
	if l.raw == nil {
		sum := l.stored.SHA256()
		return abi.StreamInfo{Size: l.stored.Size(), SHA256: sum, RawSize: l.stored.Size(), RawSHA256: sum}
	}
	r, _ := l.raw.Result()
	return abi.StreamInfo{Size: r.StoredSize, SHA256: r.StoredSHA256, RawSize: r.RawSize, RawSHA256: r.RawSHA256}
}

// allow says whether n more bytes may be written.
func (s *Session) allow(n int64) error {
	lim := s.cfg.Limits
	read := max(s.stored.Load(), s.raw.Load()) + s.random.Load()
	if w := s.written.Add(n); w > lim.OutputBase && (w-lim.OutputBase)/lim.OutputFactor > read {
		return abi.Errorf(abi.ErrLimit, "plugin wrote %d bytes after reading %d: more than %d and %d for each byte read", w, read, lim.OutputBase, lim.OutputFactor)
	}
	return nil
}

// Log implements abi.Host.
func (s *Session) Log(level int, msg string) {
	const most, mostBytes = 1000, 16 << 10
	msg = msg[:min(len(msg), mostBytes)]
	if s.logged++; s.logged <= most {
		s.cfg.Log.Log(s.ctx, slogLevel(level), msg)
	} else if s.logged == most+1 {
		s.cfg.Log.Warn("plugin logs too much: the rest of this operation is dropped")
	}
}

// Progress implements abi.Host.
func (s *Session) Progress(done, total int64) {
	if s.cfg.Progress != nil {
		s.cfg.Progress(done, total)
	}
}
