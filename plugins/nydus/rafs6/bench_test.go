package rafs6

import (
	"encoding/binary"
	"io"
	"runtime"
	"strconv"
	"testing"

	"github.com/convhost/convhost/abi"
)

// manyFiles makes a layer of n files of one chunk each, 100 in a directory.
func manyFiles(tb testing.TB, n int) *Tree {
	b, err := NewBuilder(Options{Codec: abi.CodecZstd, Digest: abi.DigestBLAKE3})
	if err != nil {
		tb.Fatal(err)
	}
	e := abi.Entry{Kind: abi.KindRegular, Mode: 0o644, Size: 5000}
	off := int64(0)
	for k := range n {
		e.Path = "usr/share/dir" + strconv.Itoa(k/100) + "/some-file-name-" + strconv.Itoa(k) + ".txt"
		e.Seq = uint64(k)
		if err := b.Add(&e); err != nil {
			tb.Fatal(err)
		}
		c := abi.Completion{Tag: e.Seq, Index: uint32(k), Offset: off, Stored: 3000, Raw: 5000}
		binary.BigEndian.PutUint64(c.Digest[:], uint64(k)*0x9E3779B97F4A7C15)
		if err := b.AddChunk(e.Seq, &c); err != nil {
			tb.Fatal(err)
		}
		off += 3000
	}
	t, err := b.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func BenchmarkBuild(b *testing.B) {
	const n = 100000
	for b.Loop() {
		manyFiles(b, n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/file")
}

func BenchmarkWriteBootstrap(b *testing.B) {
	const n = 100000
	t := manyFiles(b, n)
	for b.Loop() {
		if _, err := t.WriteBootstrap(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/file")
}

func BenchmarkOpen(b *testing.B) {
	const n = 100000
	t := manyFiles(b, n)
	fakeMeta(t)
	data, err := t.Bootstrap()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Open(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/file")
}

func fakeMeta(t *Tree) {
	b := &t.blobs[0]
	b.MetaOffset, b.MetaSize, b.ID = b.CompressedSize, 16*uint64(b.ChunkCount), "x"
}

// A layer may cost 1 KiB a file in all; the tree alone must leave room for the bootstrap and its compressed form.
func TestMemoryPerFile(t *testing.T) {
	const n = 100000
	var a, b runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&a)
	tree := manyFiles(t, n)
	runtime.ReadMemStats(&b)
	grown := (b.TotalAlloc - a.TotalAlloc) / n
	runtime.GC()
	runtime.ReadMemStats(&b)
	live := int64(b.HeapAlloc-a.HeapAlloc) / n
	runtime.KeepAlive(tree)
	t.Logf("%d bytes a file live, %d allocated", live, grown)
	if live > 330 {
		t.Errorf("%d bytes a file live, want at most 330", live)
	}
}
