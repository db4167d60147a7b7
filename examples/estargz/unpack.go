package main

import (
	"context"
	"strconv"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// Unpack implements sdk.Unpacker. It goes by the TOC, as a lazy runtime does, and so leaves out the files of the
// format: a layer comes out as it went in.
func (plugin) Unpack(_ context.Context, u *sdk.Unpack) (*abi.UnpackResponse, error) {
	sink, err := sdk.OpenSink(u, 0)
	if err != nil {
		return nil, err
	}
	r, err := newReader(u, sink)
	if err != nil {
		return nil, err
	}
	if u.Layer >= 0 {
		err = r.layer(u.Parts, u.Layer)
	} else {
		err = r.image(u.Parts)
	}
	if err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	_, err = sink.Close()
	return &abi.UnpackResponse{Entries: r.entries}, err
}

// reader decodes chunks on all cores and checks their digests; with a sink it also writes a tar.
type reader struct {
	host    abi.Host
	sink    *sdk.Sink
	plan    abi.Handle
	buf     []byte // tar bytes to write
	done    []byte // completions, which nobody needs
	entries int64
}

func newReader(h abi.Host, sink *sdk.Sink) (*reader, error) {
	spec := &abi.PlanSpec{Codec: abi.CodecGzip, Digest: abi.DigestSHA256, Decode: true}
	if sink != nil {
		spec.Sink = sink.Handle
	}
	plan, err := h.NewPlan(spec)
	return &reader{host: h, sink: sink, plan: plan, done: make([]byte, 256*abi.CompletionSize)}, err
}

// layer writes one layer, with its whiteouts.
func (r *reader) layer(parts []abi.PartInfo, i int) error {
	l, err := openLayer(r.host, parts, i)
	if err != nil {
		return err
	}
	for j := range l.files {
		if f := &l.files[j]; !reserved(f.Path) {
			if err := r.file(l, &f.Entry, f.chunks); err != nil {
				return err
			}
		}
	}
	return nil
}

// image writes the file system that all layers make together.
func (r *reader) image(parts []abi.PartInfo) error {
	o := sdk.NewOverlay()
	layers := make([]*lazyLayer, len(parts))
	for i := range parts {
		l, err := openLayer(r.host, parts, i)
		if err != nil {
			return err
		}
		layers[i] = l
		o.BeginLayer()
		for j := range l.files {
			if f := &l.files[j]; !reserved(f.Path) {
				if err := o.Add(&f.Entry, uint64(i)<<32|uint64(j)); err != nil {
					return err
				}
			}
		}
	}
	for e, at := range o.Entries() {
		var l *lazyLayer
		var chunks []chunk
		if e.Size > 0 {
			l = layers[at>>32]
			chunks = l.files[uint32(at)].chunks
		}
		if err := r.file(l, e, chunks); err != nil {
			return err
		}
	}
	return nil
}

// file writes one entry.
func (r *reader) file(l *lazyLayer, e *abi.Entry, chunks []chunk) (err error) {
	r.entries++
	if r.sink != nil {
		if r.buf, err = sdk.AppendTarHeader(r.buf, e); err != nil {
			return err
		}
	}
	if len(chunks) > 0 || len(r.buf) > 64<<10 {
		if err := r.flush(); err != nil {
			return err
		}
	}
	for i := range chunks {
		c := &chunks[i]
		job := abi.Range{Off: c.off, CLen: c.stored, ULen: c.size, Want: &c.digest, N: -1, Prefix: true}
		if err := r.host.JobRange(r.plan, l.blob.Handle, job, 0); err != nil {
			return err
		}
	}
	if r.sink != nil {
		r.buf = sdk.AppendTarPadding(r.buf, e.Size)
	}
	_, err = r.host.Collect(r.done, 0)
	return err
}

func (r *reader) flush() error {
	if len(r.buf) == 0 {
		return nil
	}
	_, err := r.sink.Write(r.buf)
	r.buf = r.buf[:0]
	return err
}

func (r *reader) finish() error {
	if r.sink != nil {
		r.buf = sdk.AppendTarEnd(r.buf)
		if err := r.flush(); err != nil {
			return err
		}
	}
	return sdk.Completions(r.host, r.done, true, func(*abi.Completion) error { return nil })
}

// Check implements sdk.Checker: footer and TOC of every layer, and with Deep every chunk. A chunk that is not what the TOC
// says ends it with that error.
func (plugin) Check(_ context.Context, c *sdk.Check) (*abi.CheckResponse, error) {
	resp := &abi.CheckResponse{}
	var files, chunks int
	for i := range c.Parts {
		l, err := openLayer(c, c.Parts, i)
		if err != nil {
			if stop(err) {
				return nil, err
			}
			resp.Problems = append(resp.Problems, abi.DetailOf(err))
			continue
		}
		files += len(l.files)
		for j := range l.files {
			chunks += len(l.files[j].chunks)
		}
		if c.Deep {
			if err := decodeAll(c, l); err != nil {
				return nil, err // after an error of a job the host does no more
			}
		}
	}
	resp.Facts = map[string]string{"layers": strconv.Itoa(len(c.Parts)), "entries": strconv.Itoa(files), "chunks": strconv.Itoa(chunks)}
	return resp, nil
}

// decodeAll compares every chunk with its digest.
func decodeAll(h abi.Host, l *lazyLayer) error {
	r, err := newReader(h, nil)
	if err != nil {
		return err
	}
	for i := range l.files {
		if f := &l.files[i]; len(f.chunks) > 0 {
			if err := r.file(l, &f.Entry, f.chunks); err != nil {
				return err
			}
		}
	}
	return r.finish()
}

// stop tells errors of the operation from those of the data.
func stop(err error) bool {
	switch abi.ClassOf(err) {
	case abi.ErrCorrupt, abi.ErrTruncated, abi.ErrDigest, abi.ErrLimit, abi.ErrUnsupported:
		return false
	}
	return true
}
