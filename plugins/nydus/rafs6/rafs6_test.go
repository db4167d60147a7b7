package rafs6

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/convhost/convhost/abi"
)

// supported lists vectors whose bootstrap this package reads, with the set of files they hold.
var supported = map[string]string{
	"zstd-blake3-base": "base", "zstd-blake3-mid": "mid", "zstd-blake3-top": "top", "zstd-blake3-nodata": "nodata",
	"zstd-blake3-dev": "dev", "zstd-blake3-tiny": "tiny", "zstd-blake3-missing": "", "zstd-blake3-kitchen-4k": "kitchen",
	"lz4-sha256-base": "base", "none-sha256-base": "base", "plain-base": "base", "toc-base": "base",
	"inline-notoc-base": "base", "prefetch-base": "base", "merge-base-top": "base+top", "merge-base-mid": "base+mid",
	"merge-base-mid-top": "base+mid+top", "merge-base-nodata-top": "base+nodata+top", "merge-prefetch-root": "base+mid",
	"merge-dict": "",
}

func TestReadWriteVectors(t *testing.T) {
	for v := range supported {
		t.Run(v, func(t *testing.T) {
			data, _ := boot(t, v)
			tree, err := Open(data)
			if err != nil {
				t.Fatal(err)
			}
			out, err := tree.Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out, data) {
				t.Fatalf("written bootstrap differs from byte %#x", firstDiff(out, data))
			}
			for _, err := range Check(data) {
				t.Error(err)
			}
		})
	}
}

func firstDiff(a, b []byte) int {
	for k := range min(len(a), len(b)) {
		if a[k] != b[k] {
			return k
		}
	}
	return min(len(a), len(b))
}

// chunkReader returns the bytes of chunks, checked against their digests, from the blobs of layers by id.
func chunkReader(t testing.TB, tree *Tree, blobs map[string][]byte) func(Chunk) []byte {
	return func(c Chunk) []byte {
		b := tree.Blobs()[c.Blob]
		blob, ok := blobs[b.ID]
		if !ok {
			t.Fatalf("no blob %s", b.ID)
		}
		raw := blob[c.Offset : c.Offset+int64(c.Stored)]
		if c.Compressed {
			raw = decode(t, b.Codec, raw, int(c.Raw))
		}
		if len(raw) != int(c.Raw) || sumOf(b.Digest, raw) != c.Digest {
			t.Fatalf("chunk %d has another digest", c.Index)
		}
		return raw
	}
}

// layersOf are the vectors whose blobs an image refers to.
func allBlobs(t testing.TB) map[string][]byte {
	out := map[string][]byte{}
	for v := range supported {
		if strings.HasPrefix(v, "merge-") {
			continue
		}
		blob := layerBlob(t, v)
		if _, id := boot(t, v); id != "" {
			out[id] = blob
		}
	}
	return out
}

func TestTreesOfVectors(t *testing.T) {
	blobs := allBlobs(t)
	for v, set := range supported {
		if set == "" {
			continue
		}
		t.Run(v, func(t *testing.T) {
			data, _ := boot(t, v)
			tree, err := Open(data)
			if err != nil {
				t.Fatal(err)
			}
			use := blobs
			if !strings.HasPrefix(v, "merge-") && len(tree.Blobs()) > 0 {
				use = map[string][]byte{tree.Blobs()[0].ID: layerBlob(t, v)}
			}
			got := describe(t, tree, chunkReader(t, tree, use))
			want := readExpect(t, set)
			byPath := func(a, b map[string]any) int { return strings.Compare(a["path"].(string), b["path"].(string)) }
			slices.SortFunc(got, byPath)
			slices.SortFunc(want, byPath)
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// layerCases are layers that this package makes from the tar and the compressed sizes of upstream's output.
var layerCases = []struct {
	vector, set string
	o           Options
	inline, toc bool
}{
	{"zstd-blake3-base", "base", Options{}, true, true},
	{"zstd-blake3-mid", "mid", Options{}, true, true},
	{"zstd-blake3-top", "top", Options{}, true, true},
	{"zstd-blake3-nodata", "nodata", Options{}, true, true},
	{"zstd-blake3-dev", "dev", Options{}, true, true},
	{"zstd-blake3-tiny", "tiny", Options{}, true, true},
	{"zstd-blake3-kitchen-4k", "kitchen", Options{ChunkSize: 4096}, true, true},
	{"lz4-sha256-base", "base", Options{ChunkSize: 0x10000, Codec: abi.CodecLZ4Block, Digest: abi.DigestSHA256}, true, true},
	{"none-sha256-base", "base", Options{Codec: abi.CodecNone, Digest: abi.DigestSHA256, ChunkSize: 1 << 20}, true, true},
	{"prefetch-base", "base", Options{Prefetch: []string{"/etc/hosts", "/usr/bin/tool2", "/data", "/nope", "/data/big", " /etc/hosts/ "}}, true, true},
	{"inline-notoc-base", "base", Options{}, true, false},
	{"toc-base", "base", Options{}, false, true},
	{"plain-base", "base", Options{}, false, false},
}

func TestWriteLayerVectors(t *testing.T) {
	for _, c := range layerCases {
		t.Run(c.vector, func(t *testing.T) {
			if c.o.ChunkSize == 0 || c.o.Digest == 0 {
				c.o.Digest = abi.DigestBLAKE3
				if c.o.Codec == abi.CodecNone {
					c.o.Codec = abi.CodecZstd
				}
			}
			wantBoot, _ := boot(t, c.vector)
			wantBlob := layerBlob(t, c.vector)
			want, err := Open(wantBoot)
			if err != nil {
				t.Fatal(err)
			}
			sizes := map[uint32]uint32{}
			for k := int32(0); k < want.chunks.n; k++ {
				sizes[want.chunks.at(k).index] = want.chunks.at(k).stored
			}
			tree, err := build(c.o, tarEntries(t, inputTar(t, c.set)), func(n uint32, _ []byte) uint32 { return sizes[n] })
			if err != nil {
				t.Fatal(err)
			}
			data := int64(0)
			if len(tree.blobs) > 0 {
				data = int64(tree.blobs[0].CompressedSize)
			}
			var out bytes.Buffer
			out.Write(wantBlob[:data])
			calls := 0
			tail, err := tree.WriteTail(&out, TailOptions{InlineMeta: c.inline, Toc: c.toc,
				Encode: func(codec abi.Codec, p []byte) ([]byte, error) { // upstream's bytes, checked to mean the same
					calls++
					m := upstreamMember(t, wantBlob, p, calls, len(tree.blobs) > 0 && c.o.Codec != abi.CodecNone)
					if m.Codec == abi.CodecNone {
						return nil, nil
					}
					z := wantBlob[m.Offset : m.Offset+m.Stored]
					if !bytes.Equal(decode(t, m.Codec, z, int(m.Size)), p) {
						t.Errorf("%s differs from upstream's", m.Name)
					}
					return z, nil
				},
				Sum:     func(p []byte) ([32]byte, error) { return sha256.Sum256(p), nil },
				DataSum: func() ([32]byte, error) { return sha256.Sum256(out.Bytes()), nil },
				BlobID:  func() (string, error) { return want.Blobs()[0].ID, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(tail.Boot, wantBoot) {
				t.Errorf("bootstrap differs from byte %#x of %#x", firstDiff(tail.Boot, wantBoot), len(wantBoot))
			}
			if !bytes.Equal(out.Bytes(), wantBlob) || tail.Size != int64(len(wantBlob)) {
				t.Errorf("blob differs from byte %#x of %#x", firstDiff(out.Bytes(), wantBlob), len(wantBlob))
			}
		})
	}
}

// upstreamMember finds what upstream stored for the n-th call of Encode.
func upstreamMember(t testing.TB, blob, p []byte, n int, data bool) Member {
	f, err := OpenBlob(bytes.NewReader(blob), int64(len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	if n == 1 && data {
		if f.Meta == nil {
			t.Fatal("no blob.meta")
		}
		return *f.Meta
	}
	if f.Boot == nil {
		t.Fatal("no image.boot")
	}
	return *f.Boot
}
