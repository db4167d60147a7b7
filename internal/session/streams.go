package session

import (
	"context"
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
	file    io.ReadCloser   // stored bytes
	stored  io.Reader       // verified stored bytes, for RoleLayerStored
	raw     *inflate.Stream // the tar, for the other two
	tar     *layer.Reader   // for RoleLayerEntries
	entry   abi.Entry       // the last one
	left    int64           // of its body
	pending bool            // entry was read and did not fit into the buffer
	ended   bool            // everything was read and every promise held
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
		return 0, s.fail(abi.Errorf(abi.ErrDenied, "stream %d with role %d was not granted", index, role))
	}
	return s.newHandle(&parts[index])
}

func (s *Session) openLayer(role abi.Role, index int) (abi.Handle, error) {
	cfg := s.cfg.Layer
	switch {
	case cfg == nil || index != 0 || role != s.cfg.Input:
		return 0, s.fail(abi.Errorf(abi.ErrDenied, "layer %d with role %d was not granted", index, role))
	case s.layer != nil:
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "the layer was opened twice"))
	}
	l := &layerStream{s: s, role: role}
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
	n, err := c.r.Read(p)
	c.s.read.Add(int64(n))
	if c.s.cfg.Read != nil && n > 0 {
		c.s.cfg.Read(n)
	}
	return n, err
}

// Read takes the next bytes of the form: stored, tar, or the body of the current entry.
func (l *layerStream) Read(p []byte) (n int, err error) {
	switch {
	case l.tar != nil:
		if l.left == 0 {
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
		l.s.read.Add(int64(n))
	}
	if err == io.EOF && l.tar == nil {
		l.ended = true
	}
	return n, err
}

// bodyLeft is what is left of the current entry's body, -1 for streams that are not of entries.
func (l *layerStream) bodyLeft() int64 {
	if l.tar == nil {
		return -1
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
	for len(out) < batchBytes {
		if err := l.next(p); err == io.EOF {
			break
		} else if err != nil {
			return 0, s.fail(err)
		}
		if n := l.entry.RecordSize(); n > len(buf)-len(out) {
			if len(out) == 0 {
				return 0, abi.Errorf(abi.ErrLimit, "entry %q needs a record of %d bytes, the buffer has %d", l.entry.Path, n, len(buf))
			}
			l.pending = true
			break
		}
		out = l.entry.Append(out)
		if l.left > 0 {
			break // manual: the body comes first
		}
	}
	return len(out), nil
}

// next reads one entry into l.entry, and sends its body to the plan.
func (l *layerStream) next(p *plan) error {
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
	l.s.read.Add(512)
	if p != nil && l.left > 0 {
		n, err := l.s.queue.Stream(p.p, l, l.left, l.entry.Seq)
		if err != nil {
			return err
		}
		l.entry.Chunks = uint32(n)
	}
	return nil
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
	at, size, err := s.random(h)
	if err != nil {
		return 0, err
	}
	if off < 0 || off > size {
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "read at %d of a stream of %d bytes", off, size))
	}
	p = p[:min(int64(len(p)), size-off)]
	n, err := at.ReadAt(p, off)
	s.read.Add(int64(n))
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = abi.Errorf(abi.ErrTruncated, "input ends at %d, want %d bytes", off+int64(n), size)
	}
	return n, s.fail(err)
}

// random finds a stream with random access: a part, or the stored layer at rest.
func (s *Session) random(h abi.Handle) (io.ReaderAt, int64, error) {
	if h > 0 && int(h) < len(s.handles) {
		switch v := s.handles[h].(type) {
		case *Part:
			return v.At, v.Size, nil
		case *layerStream:
			if v.role == abi.RoleLayerStored && s.cfg.Layer.At != nil {
				return s.cfg.Layer.At, s.cfg.Layer.Size, nil
			}
			return nil, 0, abi.Errorf(abi.ErrUnsupported, "the layer has no random access here")
		}
	}
	_, err := lookup[*Part](s, h, "random-access stream")
	return nil, 0, err
}

// Size implements abi.Host.
func (s *Session) Size(h abi.Handle) (int64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	_, size, err := s.random(h)
	return size, err
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
	at, size, err := s.random(src)
	if err != nil {
		return nil, err
	}
	if off > size || n > size-off {
		return nil, s.fail(abi.Errorf(abi.ErrPlugin, "copy of %d bytes at %d from a stream of %d", n, off, size))
	}
	return &partReader{io.NewSectionReader(at, off, size-off), s}, nil
}

type partReader struct {
	io.Reader
	s *Session
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.s.read.Add(int64(n))
	return n, err
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
	var v any
	if h > 0 && int(h) < len(s.handles) {
		v = s.handles[h]
	}
	switch v := v.(type) {
	case *sink:
		if _, err := s.queue.Flush(v.queued); err != nil {
			return info, s.fail(err)
		}
		info, err = v.finish()
	case *layerStream:
		if err = s.drain(); err == nil && v.raw != nil {
			r, _ := v.raw.Result()
			info = abi.StreamInfo{Size: r.StoredSize, SHA256: r.StoredSHA256, RawSize: r.RawSize, RawSHA256: r.RawSHA256}
		}
	case *Part:
		info.Size = v.Size
	default:
		_, err = lookup[*sink](s, h, "stream")
		return info, err
	}
	s.handles[h] = nil
	return info, s.fail(err)
}

// allow says whether n more bytes may be written.
func (s *Session) allow(n int64) error {
	lim := s.cfg.Limits
	if w := s.written.Add(n); w > lim.OutputBase && w-lim.OutputBase > lim.OutputFactor*s.read.Load() {
		return abi.Errorf(abi.ErrLimit, "plugin wrote %d bytes after reading %d: more than %d and %d for each byte read", w, s.read.Load(), lim.OutputBase, lim.OutputFactor)
	}
	return nil
}

// Log implements abi.Host.
func (s *Session) Log(level int, msg string) {
	const most = 1000
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
