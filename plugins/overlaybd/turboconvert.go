package overlaybd

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/gzindex"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/turbo"
	"github.com/convhost/convhost/sdk"
)

// ConvertLayer implements sdk.Plugin: the layer becomes a small blob beside it, the last output.
func (turboPlugin) ConvertLayer(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	if l.Options["fstype"] == "erofs" {
		return nil, abi.Errorf(abi.ErrUnsupported, "not supported: TurboOCI layers with fstype=erofs; leave the option out for ext4")
	}
	set, err := parseOptions(l.Options)
	if err != nil {
		return nil, err
	}
	// The layer is read by the goroutine that decompresses it, while this one reads the lower layers.
	host := &sharedHost{Host: l.Host}
	l = &sdk.Layer{ConvertRequest: l.ConvertRequest, Host: host}
	c := &turboConverter{host: host, converter: converter{Layer: l, set: set, size: set.size, mediaType: layerType(l.Layer.MediaType)}}
	defer c.close()
	if err := c.open(); err != nil {
		return nil, err
	}
	set.warp = true
	if c.w, err = newLayerWriter(c.base, c.size, set, uuidOf(l.Layer.ChainID), c.parent); err != nil {
		return nil, err
	}
	if err := c.apply(ctx); err != nil {
		return nil, err
	}
	part, err := c.emit()
	if err != nil {
		return nil, err
	}
	return &abi.ConvertResponse{Parts: append(c.parts, part)}, nil
}

// sharedHost lets several goroutines read.
type sharedHost struct {
	abi.Host
	mu sync.Mutex
}

// limits are those that the user set for layers, if the host tells.
func (s *sharedHost) limits() (tar layer.Limits, raw inflate.Limits) {
	if h, ok := s.Host.(interface {
		LayerLimits() (layer.Limits, inflate.Limits)
	}); ok {
		return h.LayerLimits()
	}
	return tar, raw
}

// Read implements abi.Host.
func (s *sharedHost) Read(h abi.Handle, p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Host.Read(h, p)
}

// ReadAt implements abi.Host.
func (s *sharedHost) ReadAt(h abi.Handle, p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Host.ReadAt(h, p, off)
}

// turboConverter is the conversion of one layer.
type turboConverter struct {
	converter
	host  *sharedHost
	w     *layerWriter
	index spool         // of the gzip index, without its header
	gzip  *gzindex.Info // nil if the layer is a plain tar
}

func (c *turboConverter) close() {
	c.converter.close()
	c.index.close()
	if c.w != nil {
		c.w.close()
	}
}

// apply puts the layer's entries on the device, and indexes the layer.
func (c *turboConverter) apply(ctx context.Context) error {
	stored, err := sdk.OpenStream(c, abi.RoleLayerStored)
	if err != nil {
		return err
	}
	index := gzindex.NewWriter(&c.index, gzindex.Config{})
	limits, rawLimits := c.host.limits()
	tar, err := inflate.Open(ctx, stored, inflate.Options{
		MediaType: c.Layer.Layer.MediaType, DiffID: digest.Digest(c.Layer.Layer.DiffID), Limits: rawLimits,
		OnMember: index.Member, OnBlock: index.Block,
	})
	if err != nil {
		return err
	}
	defer tar.Close()
	if tar.Codec() == inflate.Zstd {
		return abi.Errorf(abi.ErrUnsupported, "TurboOCI reads original layers compressed with gzip, or not at all, and this one has zstd: convert with format overlaybd instead, or compress the image again")
	}
	if err := c.entries(ctx, layer.NewReader(tar, limits)); err != nil {
		return err
	}
	if w := tar.Warning(); w != "" {
		c.Log(abi.LogWarn, w)
	}
	res, ok := tar.Result()
	if !ok {
		return abi.Errorf(abi.ErrInternal, "the layer was not read to its end")
	}
	if res.Codec == inflate.Gzip {
		info, err := index.Close(res.StoredSize, res.RawSize)
		if err != nil {
			return err
		}
		c.gzip = &info
	}
	return nil
}

// entries applies the entries of the tar.
func (c *turboConverter) entries(ctx context.Context, tar *layer.Reader) error {
	var meta scratch
	defer meta.close()
	a, err := c.applier(c.w, ext4.Options{Scratch: &meta, Remote: c.remote})
	if err != nil {
		return err
	}
	var e abi.Entry
	for err = tar.Next(&e); err == nil; err = tar.Next(&e) {
		if err := a.Apply(ctx, &e, tar); err != nil {
			return atEntry(&e, err)
		}
	}
	if err != io.EOF {
		return err
	}
	if _, err := tar.Drain(); err != nil {
		return err
	}
	_, err = a.Commit()
	return err
}

// remote says that blocks hold the bytes from off on of e's body, which stay where they are.
func (c *turboConverter) remote(e *abi.Entry, block uint64, blocks uint32, off int64) error {
	at, all := int64(block)*ext4.BlockSize, int64(blocks)*ext4.BlockSize
	n := min(all, (e.Size-off+lsmt.SectorSize-1)/lsmt.SectorSize*lsmt.SectorSize)
	if err := c.w.diff.Remote(at, n, e.BodyOff+off); err != nil {
		if abi.ClassOf(err) == abi.ErrLimit {
			err = fmt.Errorf("%w: a TurboOCI layer points to at most about a million files with data; convert with format overlaybd instead", err)
		}
		return err
	}
	if n < all && c.covered(at+n, at+all) {
		return c.w.diff.Zero(at+n, all-n) // or the end of a last block would show what the block held before
	}
	return nil
}

// covered tells whether lower layers say anything of the bytes from one place to another.
func (c *turboConverter) covered(from, to int64) bool {
	lower, ok := c.base.(interface{ Segments() []lsmt.Segment })
	return ok && lsmt.Covered(lower.Segments(), from, to-from)
}

// emit writes the layer into the next output and says what it is.
func (c *turboConverter) emit() (abi.Part, error) {
	info, err := c.w.finish()
	if err != nil {
		return abi.Part{}, err
	}
	// The first header could not know what the second does; readers are content with one.
	rest := io.NewSectionReader(&c.w.spool, int64(len(info.Header)), info.Size-int64(len(info.Header)))
	contents := turbo.Contents{FS: "ext4", Meta: io.MultiReader(bytes.NewReader(info.Header), rest), MetaSize: info.Size}
	if c.gzip != nil {
		body := io.NewSectionReader(&c.index, 0, c.gzip.Size-int64(len(c.gzip.Header)))
		contents.Index, contents.IndexSize = io.MultiReader(bytes.NewReader(c.gzip.Header), body), c.gzip.Size
	}
	number := len(c.parts)
	sink, err := sdk.OpenFilteredSink(c, number, abi.FilterGzip, 0)
	if err != nil {
		return abi.Part{}, err
	}
	if err := turbo.Write(sink, contents); err != nil {
		return abi.Part{}, err
	}
	total, err := sink.Close()
	if err != nil {
		return abi.Part{}, err
	}
	sum, source := "sha256:"+hex.EncodeToString(total.SHA256[:]), c.Layer.Layer
	return abi.Part{
		Sink: number, Name: layerName, MediaType: turboType(source.MediaType, true), Digest: sum, Size: total.Size,
		DiffID: "sha256:" + hex.EncodeToString(total.RawSHA256[:]),
		Annotations: map[string]string{
			annotationVersion: turboLayerVersion, annotationDigest: sum, annotationSize: strconv.FormatInt(total.Size, 10),
			targetKeys[0]: source.Digest, annotationTargetType: turboType(source.MediaType, c.gzip != nil),
		},
	}, nil
}
