package nydus

import (
	"context"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/sdk"
)

// ConvertLayer implements sdk.Plugin: the layer becomes output 0, a blob.
func (plugin) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	set, err := parseOptions(l.Options)
	if err != nil {
		return nil, err
	}
	sink, err := sdk.OpenSink(l, 0)
	if err != nil {
		return nil, err
	}
	tree, err := buildTree(l, set, sink)
	if err != nil {
		return nil, err
	}
	if err := tree.SetPrefetch(set.prefetch); err != nil {
		return nil, err
	}
	written, err := tree.WriteTail(sink, rafs6.TailOptions{
		InlineMeta: true, Toc: true,
		DataSum: func() ([32]byte, error) {
			info, err := sink.Info()
			return info.SHA256, err
		},
		Sum:    func(p []byte) ([32]byte, error) { return l.Sum(abi.DigestSHA256, p) },
		Encode: func(codec abi.Codec, p []byte) ([]byte, error) { return encodeMeta(l, codec, p) },
	})
	if err != nil {
		return nil, err
	}
	info, err := sink.Close()
	if err != nil {
		return nil, err
	}
	if info.Size != written.Size {
		return nil, abi.Errorf(abi.ErrInternal, "blob has %d bytes, planned were %d", info.Size, written.Size)
	}
	return &abi.ConvertResponse{
		Parts: []abi.Part{{
			Sink: 0, Name: "blob", MediaType: blobMediaType, Size: info.Size, Digest: "sha256:" + hexOf(info.SHA256),
			Annotations: map[string]string{annotationBlob: "true"},
		}},
		State: tree.State(bootSum(written)),
	}, nil
}

// bootSum is the digest of the bootstrap among what was written.
func bootSum(t *rafs6.Tail) (sum [32]byte) {
	for _, m := range t.Members {
		if m.Name == rafs6.MemberBoot {
			sum = m.Digest
		}
	}
	return sum
}

// buildTree runs the bodies of the layer through a plan that appends to sink, and collects what became of them.
func buildTree(l *sdk.Layer, set settings, sink *sdk.Sink) (*rafs6.Tree, error) {
	b, err := rafs6.NewBuilder(set.Options)
	if err != nil {
		return nil, err
	}
	stream, err := l.Open(abi.RoleLayerEntries, 0)
	if err != nil {
		return nil, err
	}
	plan, err := l.NewPlan(&abi.PlanSpec{
		ChunkSize: set.ChunkSize, Digest: set.Digest, CRC32C: true, Codec: set.Codec, Level: set.level,
		KeepRaw: true, Dedup: abi.DedupPlan, Sink: sink.Handle,
	})
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1024*abi.CompletionSize)
	take := func(c *abi.Completion) error { return b.AddChunk(c.Tag, c) }
	between := func() error { return sdk.Completions(l, buf, false, take) }
	for e, err := range sdk.Entries(l, stream, plan, between) {
		if err != nil {
			return nil, err
		}
		if err := b.Add(e); err != nil {
			return nil, err
		}
	}
	if err := sdk.Completions(l, buf, true, take); err != nil {
		return nil, err
	}
	if _, err := l.ClosePlan(plan); err != nil {
		return nil, err
	}
	return b.Finish()
}

// encodeMeta compresses metadata of a blob. The array of lz4 blobs stays as it is: no tool can extract an lz4 member.
func encodeMeta(h abi.Host, codec abi.Codec, p []byte) ([]byte, error) {
	if codec == abi.CodecLZ4Block {
		return nil, nil
	}
	return h.Encode(codec, 0, nil, p)
}

func hexOf(sum [32]byte) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 64)
	for _, c := range sum {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}
