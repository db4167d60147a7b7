package zran_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/internal/zran"
	"github.com/klauspost/compress/zstd"
)

// shared returns a file of the shared test data.
func shared(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Skip("CONVHOST_TESTDATA is not set: no index made by upstream")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Contexts that upstream's nydus-image made of a gzip file with two members: each is one of our blocks, and what it says is
// enough to read its stretch, over the border of the members.
func TestContextsOfUpstream(t *testing.T) {
	blob, gz := shared(t, "nydus/v6/ref-gz2-zbig/layer.blob"), shared(t, "nydus/v6/in/zbig2.tar.gz")
	le := binary.LittleEndian
	head := blob[bytes.Index(blob, []byte{0x0b, 0xb1, 0x0b, 0xb1}):]
	at, size, tableAt, count := le.Uint64(head[16:]), le.Uint64(head[24:]), le.Uint64(head[40:]), int(le.Uint32(head[56:]))
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	meta, err := z.DecodeAll(blob[at:at+size], nil)
	if err != nil {
		t.Fatal(err)
	}
	out, cps, members := index(t, gz, zran.Gzip)
	if count < 2 || len(members) != 2 {
		t.Fatal(count, len(members))
	}
	blocks := map[int64]zran.Checkpoint{}
	for _, c := range cps {
		blocks[c.In] = c
	}
	for i := range count {
		e := meta[int(tableAt)+40*i:]
		dict := meta[int(tableAt)+40*count+int(le.Uint64(e[16:])):][:le.Uint32(e[32:])]
		c := zran.Checkpoint{In: int64(le.Uint64(e)), Out: int64(le.Uint64(e[8:])), Byte: e[36], Bits: e[37], Window: dict}
		inLen, outLen := int64(le.Uint32(e[24:])), int64(le.Uint32(e[28:]))
		if b, ok := blocks[c.In]; !ok || b.Out != c.Out || b.Bits != c.Bits || !bytes.Equal(b.Window, dict) || c.Bits > 0 && b.Byte != c.Byte {
			t.Errorf("context %d: input %d, output %d, bits %d %02x, window %d; ours %d, %d %02x, %d", i, c.In, c.Out, c.Bits, c.Byte, len(dict),
				b.Out, b.Bits, b.Byte, len(b.Window))
		}
		got := make([]byte, outLen)
		_, err := io.ReadFull(zran.NewReaderAt(bytes.NewReader(gz[c.In:c.In+inLen]), c, zran.Options{}), got)
		if err != nil || !bytes.Equal(got, out[c.Out:c.Out+outLen]) {
			t.Errorf("context %d: %v", i, err)
		}
	}
}
