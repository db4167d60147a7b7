package gzindex_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"

	"github.com/convhost/convhost/internal/zran"
	"github.com/convhost/convhost/plugins/overlaybd/gzindex"
)

func Example() {
	var layer, body bytes.Buffer
	z := gzip.NewWriter(&layer)
	if _, err := io.WriteString(z, "the tar of a layer"); err != nil {
		log.Fatal(err)
	}
	if err := z.Close(); err != nil {
		log.Fatal(err)
	}
	gz := layer.Bytes()

	w := gzindex.NewWriter(&body, gzindex.Config{})
	n, err := zran.NewReader(bytes.NewReader(gz), zran.Options{OnMember: w.Member, OnBlock: w.Block}).WriteTo(io.Discard)
	if err != nil {
		log.Fatal(err)
	}
	info, err := w.Close(int64(len(gz)), n)
	if err != nil {
		log.Fatal(err)
	}
	meta := append(info.Header, body.Bytes()...)

	f, err := gzindex.Open(bytes.NewReader(meta), info.Size, bytes.NewReader(gz), int64(len(gz)), gzindex.Options{})
	if err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 5)
	if _, err := f.ReadAt(p, f.Size()-5); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d entry, %d bytes, the last are %q\n", info.Entries, f.Size(), p)
	// Output:
	// 1 entry, 18 bytes, the last are "layer"
}
