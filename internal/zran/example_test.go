package zran_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/convhost/convhost/internal/zran"
)

// An index holds a checkpoint for each stretch of output; to read from somewhere, decompress from the last one before it.
func Example() {
	raw := []byte(strings.Repeat("Somewhere in a layer there is a file. ", 30_000))
	copy(raw[900_000:], "<this is what we want>")
	stored := gzipped(raw, 6)

	const span = 256 << 10
	var index []zran.Checkpoint
	z := zran.NewReader(bytes.NewReader(stored), zran.Options{OnBlock: func(b *zran.Block) error {
		if n := len(index); n == 0 || b.Out-index[n-1].Out >= span {
			index = append(index, b.Checkpoint())
		}
		return nil
	}})
	n, err := io.Copy(io.Discard, z)
	fmt.Println(n, err, len(index) > 1)

	const from = 900_000
	at := index[0]
	for _, c := range index {
		if c.Out <= from {
			at = c
		}
	}
	z.ResetAt(bytes.NewReader(stored[at.In:]), at)
	io.CopyN(io.Discard, z, from-at.Out)
	b := make([]byte, 22)
	_, err = io.ReadFull(z, b)
	fmt.Println(string(b), err)
	// Output:
	// 1140000 <nil> true
	// <this is what we want> <nil>
}
