package zfile_test

import (
	"bytes"
	"fmt"
	"log"
	"strings"

	"github.com/convhost/convhost/plugins/overlaybd/zfile"
)

func Example() {
	var buf bytes.Buffer
	w, err := zfile.NewParallelWriter(&buf, zfile.Config{}, 4)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := w.Write([]byte(strings.Repeat("0123456789", 1000))); err != nil {
		log.Fatal(err)
	}
	info, err := w.Close()
	if err != nil {
		log.Fatal(err)
	}
	file := buf.Bytes()
	copy(file, info.Header) // the output can be patched: make the header complete

	f, err := zfile.Open(bytes.NewReader(file), info.Size, zfile.Options{})
	if err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 12)
	if _, err := f.ReadAt(p, 4090); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes in %d blocks of %s, %d stored: %s\n", f.Size(), f.Header().Blocks, f.Header().Algorithm, info.Size, p)

	file[600]++
	_, err = f.ReadAt(make([]byte, 1), 5000) // cached
	fmt.Println(err)
	_, err = f.ReadAt(make([]byte, 1), 9000)
	fmt.Println(err)
	// Output:
	// 10000 bytes in 3 blocks of lz4, 1144 stored: 012345678901
	// <nil>
	// zfile at 0x24e: crc of the block is 0x615651b6, want 0x72ae3145
}
