package rafs6_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
)

// A layer of one file becomes a blob; its bootstrap is read back, merged, and listed.
func Example() {
	b, err := rafs6.NewBuilder(rafs6.Options{Codec: abi.CodecNone, Digest: abi.DigestSHA256})
	if err != nil {
		log.Fatal(err)
	}
	body := []byte("hello\n")
	if err := b.Add(&abi.Entry{Kind: abi.KindRegular, Path: "d/hello", Mode: 0o644, Size: 6}); err != nil {
		log.Fatal(err)
	}
	chunk := abi.Completion{Digest: sha256.Sum256(body), Raw: 6, Stored: 6, Flags: abi.CompletionRaw} // from the host
	if err := b.AddChunk(0, &chunk); err != nil {
		log.Fatal(err)
	}
	tree, err := b.Finish()
	if err != nil {
		log.Fatal(err)
	}
	blob := bytes.NewBuffer(body)
	tail, err := tree.WriteTail(blob, rafs6.TailOptions{InlineMeta: true, Toc: true,
		Encode:  func(abi.Codec, []byte) ([]byte, error) { return nil, nil }, // nothing gets smaller
		Sum:     func(p []byte) ([32]byte, error) { return sha256.Sum256(p), nil },
		DataSum: func() ([32]byte, error) { return sha256.Sum256(blob.Bytes()), nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range tail.Members {
		fmt.Println(m.Name, m.Offset, m.Stored)
	}
	layer, err := rafs6.Open(tail.Boot)
	if err != nil {
		log.Fatal(err)
	}
	m := rafs6.NewMerger(rafs6.MergeOptions{Correct: true})
	if err := m.Add(layer, fmt.Sprintf("%x", sha256.Sum256(blob.Bytes()))); err != nil {
		log.Fatal(err)
	}
	image, err := m.Finish()
	if err != nil {
		log.Fatal(err)
	}
	err = image.Walk(func(e *abi.Entry, f rafs6.File) error {
		fmt.Printf("%q %o, %d chunks\n", e.Path, e.Mode, f.Len())
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// image.blob 0 6
	// blob.meta 518 16
	// blob.meta.header 534 4096
	// blob.digest 5142 32
	// image.boot 5686 20480
	// "" 755, 0 chunks
	// "d" 755, 0 chunks
	// "d/hello" 644, 1 chunks
}
