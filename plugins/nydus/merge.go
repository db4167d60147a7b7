package nydus

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/sdk"
)

// metaFile is a blob.meta of the bootstrap layer.
type metaFile struct {
	id    string
	bytes []byte
}

// MergeLayers implements sdk.Merger: output 0 is the bootstrap layer, behind the blobs.
func (plugin) MergeLayers(_ context.Context, m *sdk.Merge) (*abi.MergeResponse, error) {
	set, err := parseOptions(m.Options)
	if err != nil {
		return nil, err
	}
	boot, metas, err := merge(m, rafs6.MergeOptions{Correct: true, Prefetch: set.prefetch})
	if err != nil {
		return nil, err
	}
	info, err := writeBootstrapLayer(m, boot, metas)
	if err != nil {
		return nil, err
	}
	resp := &abi.MergeResponse{OSFeatures: []string{osFeature}}
	for i, l := range m.Layers {
		resp.Layers = append(resp.Layers, abi.OutLayer{Part: int(l.Parts[0]), Source: i})
	}
	resp.Layers = append(resp.Layers, abi.OutLayer{
		Part: -1, Source: -1, CreatedBy: historyCreatedBy, Comment: historyComment,
		New: abi.Part{
			Sink: 0, Name: bootstrapLayerName, MediaType: bootMediaType, Size: info.Size, Digest: "sha256:" + hexOf(info.SHA256),
			DiffID:      "sha256:" + hexOf(info.RawSHA256),
			Annotations: map[string]string{annotationBoot: "true", annotationVersion: "6"},
		},
	})
	return resp, nil
}

// content is a file of the bootstrap layer. It is written while it is made, so that it is compressed meanwhile.
type content interface {
	Size() int64
	io.WriterTo
}

// merge returns the bootstrap of the image and the chunk tables of its blobs.
func merge(m *sdk.Merge, o rafs6.MergeOptions) (content, []metaFile, error) {
	merger := rafs6.NewMerger(o)
	var boot []byte
	var metas []metaFile
	for i := range m.Layers {
		var err error
		if boot, metas, err = addLayer(m, i, merger, o, metas); err != nil {
			return nil, nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	if boot != nil {
		return bytes.NewReader(boot), metas, nil
	}
	tree, err := merger.Finish()
	if err != nil {
		return nil, nil, err
	}
	laid, err := tree.Layout()
	return laid, metas, err
}

// addLayer lays the bootstrap of layer i over those below, and appends the layer's chunk table to metas. If it is the only
// layer and its bootstrap can stand for the image, that is returned instead.
func addLayer(m *sdk.Merge, i int, merger *rafs6.Merger, o rafs6.MergeOptions, metas []metaFile) ([]byte, []metaFile, error) {
	l := &m.Layers[i]
	if len(l.Parts) != 1 {
		return nil, nil, abi.Errorf(abi.ErrInvalid, "it has %d parts, a nydus layer has one", len(l.Parts))
	}
	b, err := openBlob(m, m.Parts, int(l.Parts[0]))
	if err != nil {
		return nil, nil, err
	}
	boot, err := b.boot()
	if err != nil {
		return nil, nil, err
	}
	if len(m.Layers) > 1 || !rafs6.Single(boot, l.State, b.file.Boot.Digest, b.id(), o) {
		err := merger.AddBootstrap(boot, l.State, b.id())
		if boot = nil; err != nil {
			return nil, nil, err
		}
	}
	array, header, err := b.meta()
	if err != nil {
		return nil, nil, err
	}
	if header != nil {
		metas = append(metas, metaFile{b.id(), rafs6.AppendRuntimeMeta(nil, array, header)})
	}
	return boot, metas, b.Close()
}

// bootLevel is the gzip level of the bootstrap layer. Nothing else happens while it is written: higher levels take twice as
// long and save 2 %.
const bootLevel = 4

// writeBootstrapLayer writes the tar.gz with the bootstrap and the chunk tables of the blobs.
func writeBootstrapLayer(h abi.Host, boot content, metas []metaFile) (info abi.StreamInfo, err error) {
	sink, err := sdk.OpenFilteredSink(h, 0, abi.FilterGzip, bootLevel)
	if err != nil {
		return info, err
	}
	dir, err := sdk.AppendTarHeader(nil, &abi.Entry{Kind: abi.KindDir, Mode: 0o755, Path: "image"})
	if err != nil {
		return info, err
	}
	if _, err := sink.Write(dir); err != nil {
		return info, err
	}
	if err := writeFile(sink, bootFile, boot); err != nil {
		return info, err
	}
	seen := map[string]bool{}
	for _, f := range metas {
		if seen[f.id] {
			continue
		}
		seen[f.id] = true
		if err := writeFile(sink, "image/"+f.id+".blob.meta", bytes.NewReader(f.bytes)); err != nil {
			return info, err
		}
	}
	if _, err := sink.Write(sdk.AppendTarEnd(nil)); err != nil {
		return info, err
	}
	return sink.Close()
}

func writeFile(sink *sdk.Sink, path string, body content) error {
	head, err := sdk.AppendTarHeader(nil, &abi.Entry{Kind: abi.KindRegular, Mode: 0o444, Path: path, Size: body.Size()})
	if err != nil {
		return err
	}
	if _, err := sink.Write(head); err != nil {
		return err
	}
	if _, err := body.WriteTo(sink); err != nil {
		return err
	}
	if pad := sdk.AppendTarPadding(nil, body.Size()); len(pad) > 0 {
		_, err = sink.Write(pad)
	}
	return err
}
