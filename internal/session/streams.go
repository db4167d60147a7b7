package session

import (
	"io"

	"github.com/convhost/convhost/abi"
)

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
	switch v := s.handle(h).(type) {
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
	s.forget(h)
	return info, s.fail(err)
}

// allow says whether n more bytes may be written.
func (s *Session) allow(n int64) error {
	lim := s.cfg.Limits
	read := max(s.stored.Load(), s.raw.Load()) + s.random.Load()
	if w := s.written.Add(n); w > lim.OutputBase && (w-lim.OutputBase)/lim.OutputFactor > read {
		return abi.WithLimit(abi.Errorf(abi.ErrLimit, "plugin wrote %d bytes after reading %d: more than %d and %d for each byte read",
			w, read, lim.OutputBase, lim.OutputFactor), abi.LimitOutput)
	}
	return nil
}

// Log implements abi.Host.
func (s *Session) Log(level int, msg string) {
	const most, mostBytes = 1000, 16 << 10
	msg = msg[:min(len(msg), mostBytes)]
	s.mu.Lock()
	s.logged++
	n := s.logged
	s.mu.Unlock()
	if n <= most {
		s.cfg.Log.Log(s.ctx, slogLevel(level), msg)
	} else if n == most+1 {
		s.cfg.Log.Warn("plugin logs too much: the rest of this operation is dropped")
	}
}

// Ready implements abi.Host.
func (s *Session) Ready(resp *abi.AttachResponse) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.cfg.Ready == nil {
		return s.fail(abi.Errorf(abi.ErrPlugin, "plugin says that an image is attached, which it was not asked for"))
	}
	return s.fail(s.cfg.Ready(resp))
}

// Progress implements abi.Host.
func (s *Session) Progress(done, total int64) {
	if s.cfg.Progress != nil {
		s.cfg.Progress(done, total)
	}
}
