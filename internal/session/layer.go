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

// LayerLimits returns the limits of the layer's tar and of its decompression, for plugins that take the layer as it is stored and
// do both themselves, in this process.
func (s *Session) LayerLimits() (layer.Limits, inflate.Limits) {
	return s.cfg.Limits.Layer, s.cfg.Limits.Inflate
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

// because is what broke the stream, if something did, and not what the queue makes of it.
func (l *layerStream) because(err error) error {
	if err != nil && l.broken != nil {
		return l.broken
	}
	return err
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
