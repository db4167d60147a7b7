package lsmt_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
)

// A base with two blocks and a layer that changes one and removes the other.
func Example() {
	layer := func(change func(w *lsmt.Writer) error) *lsmt.Layer {
		var buf bytes.Buffer
		w, err := lsmt.NewWriter(&buf, lsmt.Config{VirtualSize: 1 << 20})
		if err != nil {
			log.Fatal(err)
		}
		if err := change(w); err != nil {
			log.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			log.Fatal(err)
		}
		l, err := lsmt.Open(bytes.NewReader(buf.Bytes()), int64(buf.Len()), lsmt.Options{})
		if err != nil {
			log.Fatal(err)
		}
		return l
	}
	base := layer(func(w *lsmt.Writer) error { return w.Data(4096, bytes.Repeat([]byte("old!"), 2048)) })
	top := layer(func(w *lsmt.Writer) error {
		if err := w.Data(4096, bytes.Repeat([]byte("new!"), 1024)); err != nil {
			return err
		}
		return w.Zero(8192, 512)
	})
	dev, err := lsmt.Stack(base, top)
	if err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 4)
	for _, off := range []int64{0, 4096, 8192, 8704} {
		if _, err := dev.ReadAt(p, off); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%5d: %q\n", off, p)
	}
	for _, s := range dev.Segments() {
		fmt.Printf("sectors %d-%d, layer %d from the top, zero: %v\n", s.Start, s.End()-1, s.Tag, s.Zero)
	}
	// Output:
	//     0: "\x00\x00\x00\x00"
	//  4096: "new!"
	//  8192: "\x00\x00\x00\x00"
	//  8704: "old!"
	// sectors 8-15, layer 0 from the top, zero: false
	// sectors 16-16, layer 0 from the top, zero: true
	// sectors 17-23, layer 1 from the top, zero: false
}
