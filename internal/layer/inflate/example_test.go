package inflate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/opencontainers/go-digest"
)

func Example() {
	stored := gz([]byte("pretend that this is a tar"))
	s, err := inflate.Open(context.Background(), bytes.NewReader(stored), inflate.Options{
		MediaType:    "application/vnd.docker.image.rootfs.diff.tar",
		StoredDigest: digest.FromBytes(stored), StoredSize: int64(len(stored)),
		DiffID: digest.FromString("something else"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	fmt.Println(s.Codec(), "·", s.Warning())
	raw, err := io.ReadAll(s)
	fmt.Println(len(raw), err)
	// Output:
	// gzip · media type application/vnd.docker.image.rootfs.diff.tar promises compression none, the bytes have gzip
	// 26 layer tar at 0x1a: digest is sha256:3ef0783658fbe3a9dbdf12fca17ef7c365532ab05472d6862d7d25414ce9595d, want sha256:f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8 as promised
}
