package tarshell

import (
	"bytes"
	"testing"
)

func BenchmarkFind(b *testing.B) {
	layer := wrap(b, make([]byte, 1<<20), false)
	r := bytes.NewReader(layer)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := Find(r, int64(len(layer))); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
